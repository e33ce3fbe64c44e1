"""Replies put together from bytes: events go out as they are stored, neither parsed nor serialised again."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from google.protobuf.message import Message
from temporalio.api.history.v1 import History

from perdure.server.core.wire import message_tag, varint


def append_history(message: Message, field: str, events: Iterable[bytes]) -> bytes:
    """Serialise a message and set its `History` field to these events.

    Args:
        message: With that field unset.
        field: The field's name.
        events: Serialised events, in order.
    """
    parts: list[bytes] = []
    for event in events:
        parts += (_EVENTS_TAG, varint(len(event)), event)
    return append_field(message, field, b"".join(parts))


def append_field(message: Message, field: str, value: bytes) -> bytes:
    """Serialise a message and set a field of it to an already serialised message."""
    name = (message.DESCRIPTOR.full_name, field)
    tag = _tags.get(name)
    if tag is None:
        tag = _tags[name] = message_tag(message.DESCRIPTOR.fields_by_name[field].number)
    return b"".join((message.SerializeToString(), tag, varint(len(value)), value))


_tags: Final[dict[tuple[str, str], bytes]] = {}
_EVENTS_TAG: Final = message_tag(History.DESCRIPTOR.fields_by_name["events"].number)
