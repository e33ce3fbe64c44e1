"""Frames as bytes (RFC 9113, sections 4 and 6): the head that is read, and those frames that are written whole."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from enum import IntEnum
from typing import Final

from perdure.server.frontends.grpc.http2.errors import ConnectionFault, ErrorCode

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What a client sends first."""

HEAD: Final = struct.Struct(">BHBBL")
"""A frame's head: the length in two parts, kind, flags, stream."""
HEAD_BYTES: Final = HEAD.size
STREAM_ID_MASK: Final = 0x7FFF_FFFF
WINDOW_MAX: Final = 0x7FFF_FFFF

DATA: Final = 0x0
HEADERS: Final = 0x1
PRIORITY: Final = 0x2
RST_STREAM: Final = 0x3
SETTINGS: Final = 0x4
PUSH_PROMISE: Final = 0x5
PING: Final = 0x6
GOAWAY: Final = 0x7
WINDOW_UPDATE: Final = 0x8
CONTINUATION: Final = 0x9

END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
HAS_PRIORITY: Final = 0x20

PRIORITY_BYTES: Final = 5
PING_BYTES: Final = 8
SETTING: Final = struct.Struct(">HL")

_NUMBER: Final = struct.Struct(">L")
_TWO_NUMBERS: Final = struct.Struct(">LL")


class Setting(IntEnum):
    """The settings that are known here; others are ignored."""

    HEADER_TABLE_SIZE = 0x1
    ENABLE_PUSH = 0x2
    MAX_CONCURRENT_STREAMS = 0x3
    INITIAL_WINDOW_SIZE = 0x4
    MAX_FRAME_SIZE = 0x5
    MAX_HEADER_LIST_SIZE = 0x6


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    """Return a frame."""
    length = len(payload)
    return HEAD.pack(length >> 16, length & 0xFFFF, kind, flags, stream_id) + payload


def settings(values: Iterable[tuple[Setting, int]]) -> bytes:
    """Return a SETTINGS frame."""
    return frame(SETTINGS, 0, 0, b"".join(SETTING.pack(name, value) for name, value in values))


SETTINGS_ACK: Final = frame(SETTINGS, ACK, 0)


def rst_stream(stream_id: int, code: ErrorCode) -> bytes:
    """Return a frame that ends a stream at once."""
    return frame(RST_STREAM, 0, stream_id, _NUMBER.pack(code))


def window_update(stream_id: int, increment: int) -> bytes:
    """Return a frame that lets the peer send so many bytes more; stream 0 is the connection."""
    return frame(WINDOW_UPDATE, 0, stream_id, _NUMBER.pack(increment))


def ping(data: bytes, *, is_answer: bool) -> bytes:
    """Return a PING frame with its eight bytes."""
    return frame(PING, ACK if is_answer else 0, 0, data)


def goaway(last_stream_id: int, code: ErrorCode, message: str = "") -> bytes:
    """Return a frame that says which stream is the last one that was or will be looked at."""
    return frame(GOAWAY, 0, 0, _TWO_NUMBERS.pack(last_stream_id, code) + message.encode()[:200])


def number_in(payload: bytes) -> int:
    """Return the 32-bit number that RST_STREAM and WINDOW_UPDATE consist of."""
    if len(payload) != _NUMBER.size:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, f"a frame of {_NUMBER.size} bytes has {len(payload)}")
    return int.from_bytes(payload, "big")


def unpadded(flags: int, payload: bytes) -> bytes:
    """Return the payload of a DATA or HEADERS frame without its padding."""
    if not flags & PADDED:
        return payload
    if not payload:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "a padded frame does not say how far")
    padding = payload[0]
    if padding >= len(payload):
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "padding is longer than its frame")
    return payload[1 : len(payload) - padding]
