"""The pieces of serialised protobuf messages: for bytes that are put together instead of being built as messages.

Serialised messages can be joined: appending a field to the bytes of a message sets that field.
"""

from __future__ import annotations

from functools import lru_cache

_VARINT = 0
_LENGTH_DELIMITED = 2


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
