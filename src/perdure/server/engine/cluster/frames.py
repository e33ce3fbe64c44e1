"""What nodes say to each other, as bytes: frames in a stream, each with its length before it.

Kinds are only ever added, and fields at the end with a default: two releases may talk to each other. Data only.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, get_args

import msgspec

from perdure.server.core.errors import InvariantBroken

PROTOCOL: Final = 1
"""Counts up with a change that the previous release cannot live with; nodes of different protocols do not talk."""
FRAME_BYTES_MAX: Final = 256 * 1024 * 1024
"""What a frame may have at most; far more than any request or reply."""


class Hello(msgspec.Struct, array_like=True, tag="hello"):
    """The first frame each way: who speaks."""

    node: str
    protocol: int
    release: str
    nonce: str
    """Fresh; the other's proof is about it."""


class Proof(msgspec.Struct, array_like=True, tag="proof"):
    """The second frame each way: the speaker has the session that the database holds for it, which it does not tell."""

    code: bytes


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
    client_features: str = ""
    """Empty where the peer is of a release that did not pass it on."""


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


Frame = Hello | Proof | Call | Cancel | Reply | Failed | Moved | Cast

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Frame).decode
_decode_anything: Final = msgspec.msgpack.Decoder().decode
_KINDS: Final = frozenset(kind.__struct_config__.tag for kind in get_args(Frame))
_LENGTH: Final = struct.Struct(">I")


class BadFrame(InvariantBroken):
    """What another node sent cannot be read."""


def encode_frame(frame: Frame) -> bytes:
    """Return a frame as it goes into the stream."""
    data = _encode(frame)
    return _LENGTH.pack(len(data)) + data


class FrameReader:
    """Puts frames together out of a stream's pieces. Those of a kind that a newer release has added are passed over.

    Args:
        bytes_max: What a frame may have at most.
    """

    def __init__(self, bytes_max: int = FRAME_BYTES_MAX) -> None:
        self.bytes_max = bytes_max
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Take in a piece and yield the frames that it completes. Raises BadFrame."""
        continues = bool(self._buffer)
        if continues:
            self._buffer += data
        # Most pieces begin and end with a frame: they need not be copied.
        pieces = self._buffer if continues else data
        start = 0
        while (end := self._end_of_frame(pieces, start)) is not None:
            frame = _decoded(pieces[start + _LENGTH.size : end])
            if frame is not None:
                yield frame
            start = end
        if continues:
            del self._buffer[:start]
        else:
            self._buffer += data[start:]

    def take(self, data: bytes) -> None:
        """Take in a piece, for `next`."""
        self._buffer += data

    def next(self) -> Frame | None:
        """Return the next frame alone, None where none is complete. Raises BadFrame."""
        while (end := self._end_of_frame(self._buffer, 0)) is not None:
            frame = _decoded(self._buffer[_LENGTH.size : end])
            del self._buffer[:end]
            if frame is not None:
                return frame
        return None

    def _end_of_frame(self, pieces: bytes | bytearray, start: int) -> int | None:
        begin = start + _LENGTH.size
        if len(pieces) < begin:
            return None
        [length] = _LENGTH.unpack_from(pieces, start)
        if length > self.bytes_max:
            raise BadFrame(f"a frame of {length} bytes is longer than any that a node sends")
        end: int = begin + length
        return end if len(pieces) >= end else None


def _decoded(data: bytes | bytearray) -> Frame | None:
    """Return a frame, None for one of a kind that this release does not know."""
    try:
        frame: Frame = _decode(data)
    except msgspec.MsgspecError as error:
        if isinstance(error, msgspec.ValidationError) and _is_of_unknown_kind(data):
            return None
        raise BadFrame(f"a frame cannot be read: {error}") from error
    return frame


def _is_of_unknown_kind(data: bytes | bytearray) -> bool:
    match _decode_anything(data):
        case [str(kind), *_]:
            return kind not in _KINDS
        case _:
            return False
