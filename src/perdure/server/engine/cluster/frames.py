"""What nodes say to each other, as bytes: frames in a stream, each with its length before it.

Kinds are only ever added, and fields at the end with a default: two releases may talk to each other. Data only.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from perdure.server.core.errors import InvariantBroken

PROTOCOL: Final = 1
"""Counts up with a change that the previous release cannot live with; nodes of different protocols do not talk."""
FRAME_BYTES_MAX: Final = 256 * 1024 * 1024
"""What a frame may have at most; far more than any request or reply."""


class Hello(msgspec.Struct, array_like=True, tag="hello"):
    """The first frame each way: who speaks, and the proof that it can read the database: its session."""

    node: str
    session: str
    protocol: int
    release: str


class Call(msgspec.Struct, array_like=True, tag="call"):
    """Please answer."""

    number: int
    """Counts the caller's calls on this stream."""
    service: str
    body: bytes
    seconds: float | None
    """How long the caller waits; None for ever."""
    client_name: str = ""
    client_version: str = ""


class Cancel(msgspec.Struct, array_like=True, tag="cancel"):
    """The caller of a call does not wait any more."""

    number: int


class Reply(msgspec.Struct, array_like=True, tag="reply"):
    """The answer to a call."""

    number: int
    body: bytes


class Failed(msgspec.Struct, array_like=True, tag="failed"):
    """A call ended with an error that its caller is to be told."""

    number: int
    error: str
    """The name of the type in `core.errors`."""
    message: str
    detail_type: str = ""
    detail: bytes = b""


class Moved(msgspec.Struct, array_like=True, tag="moved"):
    """A call came to a node that does not own what it touches."""

    number: int
    shard: int


class Cast(msgspec.Struct, array_like=True, tag="cast"):
    """News that need no answer."""

    topic: str
    body: bytes


Frame = Hello | Call | Cancel | Reply | Failed | Moved | Cast

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Frame).decode
_LENGTH_BYTES: Final = 4


class BadFrame(InvariantBroken):
    """What another node sent cannot be read."""


def encode_frame(frame: Frame) -> bytes:
    """Return a frame as it goes into the stream."""
    data = _encode(frame)
    return len(data).to_bytes(_LENGTH_BYTES, "big") + data


class FrameReader:
    """Puts frames together out of a stream's pieces."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Take in a piece and yield the frames that it completes. Raises BadFrame."""
        self._buffer += data
        start = 0
        while (end := self._end_of_frame(start)) is not None:
            try:
                yield _decode(self._buffer[start + _LENGTH_BYTES : end])
            except (msgspec.DecodeError, msgspec.ValidationError) as error:
                raise BadFrame(f"a frame cannot be read: {error}") from error
            start = end
        del self._buffer[:start]

    def _end_of_frame(self, start: int) -> int | None:
        if len(self._buffer) < start + _LENGTH_BYTES:
            return None
        length = int.from_bytes(self._buffer[start : start + _LENGTH_BYTES], "big")
        if length > FRAME_BYTES_MAX:
            raise BadFrame(f"a frame of {length} bytes is longer than any that a node sends")
        end = start + _LENGTH_BYTES + length
        return end if len(self._buffer) >= end else None
