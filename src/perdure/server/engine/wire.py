"""Replies put together from bytes: events go out as they are stored, neither parsed nor serialised again.

Serialised protobuf messages can be joined: appending a field to the bytes of a message sets that field.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from google.protobuf.message import Message
from temporalio.api.history.v1 import History

_LENGTH_DELIMITED = 2


def append_history(message: Message, field: str, events: Iterable[bytes]) -> bytes:
    """Serialise a message and set its `History` field to these events.

    Args:
        message: With that field unset.
        field: The field's name.
        events: Serialised events, in order.
    """
    parts: list[bytes] = []
    for event in events:
        parts += (_EVENTS_TAG, _varint(len(event)), event)
    return append_field(message, field, b"".join(parts))


def append_field(message: Message, field: str, value: bytes) -> bytes:
    """Serialise a message and set a field of it to an already serialised message."""
    number = message.DESCRIPTOR.fields_by_name[field].number
    return b"".join((message.SerializeToString(), _tag(number), _varint(len(value)), value))


def _tag(number: int) -> bytes:
    return _varint(number << 3 | _LENGTH_DELIMITED)


def _varint(value: int) -> bytes:
    if value <= 0x7F:
        return value.to_bytes(1, "big")
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)


_EVENTS_TAG: Final = _tag(History.DESCRIPTOR.fields_by_name["events"].number)
