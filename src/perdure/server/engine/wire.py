"""Replies put together from bytes: events go out as they are stored, neither parsed nor serialised again."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from google.protobuf.message import Message
from temporalio.api.history.v1 import History

from perdure.server.core.wire import message_field, message_tag, varint


def append_history(message: Message, field: str, events: Iterable[bytes]) -> bytes:
    """Serialise a message and set its `History` field to these events.

    Args:
        message: With that field unset.
        field: The field's name.
        events: Serialised events, in order.
    """
    tag = message_tag(message.DESCRIPTOR.fields_by_name[field].number)
    return message.SerializeToString() + history_field(tag, events)


def history_field(tag: bytes, events: Iterable[bytes]) -> bytes:
    """Return a field of the type `History` that holds these serialised events, in order."""
    parts: list[bytes] = []
    for event in events:
        parts += (_EVENTS_TAG, varint(len(event)), event)
    return message_field(tag, b"".join(parts))


_EVENTS_TAG: Final = message_tag(History.DESCRIPTOR.fields_by_name["events"].number)
