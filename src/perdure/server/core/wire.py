"""The pieces of serialised protobuf messages: for bytes that are put together instead of being built as messages.

Serialised messages can be joined: appending a field to the bytes of a message sets that field.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

_VARINT = 0
_LENGTH_DELIMITED = 2
_NANOS_PER_SECOND: Final = 1_000_000_000


def tags_of(message_class: type[Message]) -> dict[str, bytes]:
    """Return what stands before each field of a message, by name; of fields that are not numbers before its length."""
    return {
        field.name: message_tag(field.number) if field.cpp_type in _WITH_LENGTH else number_tag(field.number)
        for field in message_class.DESCRIPTOR.fields
    }


_WITH_LENGTH: Final = (FieldDescriptor.CPPTYPE_MESSAGE, FieldDescriptor.CPPTYPE_STRING)


def number_field(tag: bytes, value: int) -> bytes:
    """Return a field that holds a number; nothing where it is 0."""
    return tag + varint(value) if value else b""


def text_field(tag: bytes, text: str) -> bytes:
    """Return a field that holds text; nothing where it is empty."""
    if not text:
        return b""
    data = text.encode()
    return b"".join((tag, varint(len(data)), data))


def message_field(tag: bytes, data: bytes) -> bytes:
    """Return a field that holds a serialised message, also where that is empty."""
    return b"".join((tag, varint(len(data)), data))


@lru_cache(maxsize=256)
def time_field(tag: bytes, nanoseconds: int) -> bytes:
    """Return a field that holds a `Timestamp` or a `Duration`, which have the same form: those of one step repeat."""
    seconds, nanos = divmod(nanoseconds, _NANOS_PER_SECOND)
    data = (_SECONDS + varint(seconds) if seconds else b"") + (_NANOS + long_varint(nanos) if nanos else b"")
    return b"".join((tag, varint(len(data)), data))


def number_tag(number: int) -> bytes:
    """Return what stands before an integer or enum field of this number."""
    return varint(number << 3 | _VARINT)


def message_tag(number: int) -> bytes:
    """Return what stands before the length of a message, bytes or string field of this number."""
    return varint(number << 3 | _LENGTH_DELIMITED)


def long_varint(value: int) -> bytes:
    """Return what `varint` does, faster for numbers of 28 to 35 bits that do not repeat, as nanoseconds mostly are."""
    if value >> 28 == 0 or value >> 35:
        # Around the cache: it would only push out what repeats.
        return varint.__wrapped__(value)
    spread = (
        (value & 0x7F)
        | (value & 0x3F80) << 1
        | (value & 0x1FC000) << 2
        | (value & 0xFE00000) << 3
        | (value & 0x7F0000000) << 4
    )
    return (spread | 0x80808080).to_bytes(5, "little")


@lru_cache(maxsize=4096)
def varint(value: int) -> bytes:
    """Return a number that is not negative in base 128, least significant digits first. Most are small, and repeat."""
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)


_SECONDS: Final = number_tag(1)
_NANOS: Final = number_tag(2)
