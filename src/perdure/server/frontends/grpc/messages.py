"""gRPC's framing of messages within a stream: a byte for compression, four of length, the message. No I/O."""

from __future__ import annotations

import zlib
from typing import Final

from perdure.server.frontends.grpc.codes import StatusCode
from perdure.server.frontends.grpc.status import CallFailed

PREFIX_BYTES: Final = 5

_TOO_LARGE: Final = "grpc: received message larger than max"
"""The words of gRPC for Go, by which SDKs tell this from an error that is worth trying again."""
_TOO_LARGE_UNCOMPRESSED: Final = "grpc: received message after decompression larger than max"

_WBITS: Final = {"gzip": 31, "deflate": 15}
"""What the compressions that are taken are called, and how zlib is told."""
ENCODINGS: Final = ("identity", *_WBITS)
"""Values of `grpc-encoding` that are taken."""


def prefix_of(message: bytes) -> bytes:
    """Return what goes before a message that is sent as it is."""
    return len(message).to_bytes(PREFIX_BYTES, "big")


def declared_size(body: bytes | bytearray) -> int:
    """Return how large the message is said to be at whose prefix `body` begins."""
    return int.from_bytes(body[1:PREFIX_BYTES], "big")


def is_whole(body: bytes | bytearray) -> bool:
    """Return whether it is exactly one message."""
    return len(body) >= PREFIX_BYTES and len(body) - PREFIX_BYTES == declared_size(body)


def check_size(size: int, size_max: int) -> None:
    """Refuse a message that is too large.

    Raises:
        CallFailed: It is.
    """
    if size > size_max:
        raise CallFailed(StatusCode.RESOURCE_EXHAUSTED, f"{_TOO_LARGE} ({size} vs. {size_max})")


def only_message(body: bytes | bytearray, encoding: str, size_max: int) -> bytes:
    """Return the message of a request that consists of one.

    Args:
        body: All that came.
        encoding: How compressed messages are compressed, one of `ENCODINGS`.
        size_max: Largest message, as sent and uncompressed.

    Raises:
        CallFailed: It is not one message, or too large.
    """
    length = declared_size(body)
    if len(body) != PREFIX_BYTES + length or length > size_max:
        check_size(length, size_max)
        raise CallFailed(*_not_one_message(body, length))
    message = bytes(memoryview(body)[PREFIX_BYTES:])
    return uncompressed(message, encoding, size_max) if body[0] else message


def uncompressed(data: bytes, encoding: str, size_max: int) -> bytes:
    """Return a message that was sent compressed.

    Raises:
        CallFailed: It cannot be uncompressed, or would be too large.
    """
    wbits = _WBITS.get(encoding)
    if wbits is None:
        raise CallFailed(StatusCode.INTERNAL, "a message is compressed, and the call does not say how")
    decompressor = zlib.decompressobj(wbits)
    try:
        message = decompressor.decompress(data, size_max + 1)
    except zlib.error as error:
        raise CallFailed(StatusCode.INTERNAL, f"a message cannot be uncompressed: {error}") from None
    if len(message) > size_max:
        raise CallFailed(StatusCode.RESOURCE_EXHAUSTED, f"{_TOO_LARGE_UNCOMPRESSED} ({len(message)} vs. {size_max})")
    if not decompressor.eof:
        raise CallFailed(StatusCode.INTERNAL, "a compressed message ends too early")
    return message


class MessageReader:
    """Cuts what arrives on a stream into messages.

    Args:
        size_max: Largest message, as sent.
    """

    __slots__ = ("_buffer", "_size_max", "_wanted")

    def __init__(self, size_max: int) -> None:
        self._size_max = size_max
        self._buffer = bytearray()
        self._wanted = PREFIX_BYTES

    @property
    def buffered(self) -> int:
        """Bytes of a message that is not complete."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[tuple[bool, bytes]]:
        """Take bytes as they come; return the messages that are complete with them, and whether each is compressed.

        They are uncompressed when they are read, so that what waits in memory is no more than what was sent.

        Raises:
            CallFailed: A message is too large.
        """
        buffer = self._buffer
        buffer += data
        messages: list[tuple[bool, bytes]] = []
        position = 0
        while len(buffer) - position >= self._wanted:
            length = int.from_bytes(buffer[position + 1 : position + PREFIX_BYTES], "big")
            check_size(length, self._size_max)
            self._wanted = PREFIX_BYTES + length
            end = position + self._wanted
            if end > len(buffer):
                break
            messages.append((buffer[position] != 0, bytes(memoryview(buffer)[position + PREFIX_BYTES : end])))
            position = end
            self._wanted = PREFIX_BYTES
        del buffer[:position]
        return messages


def _not_one_message(body: bytes | bytearray, length: int) -> tuple[StatusCode, str]:
    if not body or len(body) > PREFIX_BYTES + length:
        return StatusCode.UNIMPLEMENTED, "the method takes exactly one message"
    return StatusCode.INVALID_ARGUMENT, "the request ends in the middle of its message"
