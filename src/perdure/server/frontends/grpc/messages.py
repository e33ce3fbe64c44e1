"""gRPC's framing of messages within a stream: a byte for compression, four of length, the message. No I/O."""

from __future__ import annotations

import zlib
from typing import Final

import grpc

from perdure.server.frontends.grpc.status import CallFailed

PREFIX_BYTES: Final = 5

_WBITS: Final = {"gzip": 31, "deflate": 15}
"""What the compressions that are taken are called, and how zlib is told."""
ENCODINGS: Final = ("identity", *_WBITS)
"""Values of `grpc-encoding` that are taken."""


def prefix_of(message: bytes) -> bytes:
    """Return what goes before a message that is sent as it is."""
    return len(message).to_bytes(PREFIX_BYTES, "big")


def check_size(size: int, size_max: int) -> None:
    """Refuse a message that is too large.

    Raises:
        CallFailed: It is.
    """
    if size > size_max:
        raise CallFailed(grpc.StatusCode.RESOURCE_EXHAUSTED, _too_large(size, size_max))


def only_message(body: bytes, encoding: str, size_max: int) -> bytes:
    """Return the message of a request that consists of one.

    Args:
        body: All that came.
        encoding: How compressed messages are compressed, one of `ENCODINGS`.
        size_max: Largest message, as sent and uncompressed.

    Raises:
        CallFailed: It is not one message, or too large.
    """
    length = int.from_bytes(body[1:PREFIX_BYTES], "big")
    if len(body) != PREFIX_BYTES + length or length > size_max:
        check_size(length, size_max)
        raise CallFailed(*_not_one_message(body, length))
    message = body[PREFIX_BYTES:]
    return uncompressed(message, encoding, size_max) if body[0] else message


def uncompressed(data: bytes, encoding: str, size_max: int) -> bytes:
    """Return a message that was sent compressed.

    Raises:
        CallFailed: It cannot be uncompressed, or would be too large.
    """
    wbits = _WBITS.get(encoding)
    if wbits is None:
        raise CallFailed(grpc.StatusCode.INTERNAL, "a message is compressed, and the call does not say how")
    decompressor = zlib.decompressobj(wbits)
    try:
        message = decompressor.decompress(data, size_max + 1)
    except zlib.error as error:
        raise CallFailed(grpc.StatusCode.INTERNAL, f"a message cannot be uncompressed: {error}") from None
    if len(message) > size_max:
        raise CallFailed(grpc.StatusCode.RESOURCE_EXHAUSTED, _too_large(len(message), size_max))
    if not decompressor.eof:
        raise CallFailed(grpc.StatusCode.INTERNAL, "a compressed message ends too early")
    return message


class MessageReader:
    """Cuts what arrives on a stream into messages.

    Args:
        size_max: Largest message, as sent.
    """

    __slots__ = ("_parts", "_size_max", "_wanted", "buffered")

    def __init__(self, size_max: int) -> None:
        self._size_max = size_max
        self._parts: list[bytes] = []
        self._wanted = PREFIX_BYTES
        self.buffered = 0
        """Bytes of a message that is not complete."""

    def feed(self, data: bytes) -> list[tuple[bool, bytes]]:
        """Take bytes as they come; return the messages that are complete with them, and whether each is compressed.

        They are uncompressed when they are read, so that what waits in memory is no more than what was sent.

        Raises:
            CallFailed: A message is too large.
        """
        self._parts.append(data)
        self.buffered += len(data)
        if self.buffered < self._wanted:
            return []
        whole = b"".join(self._parts)
        messages: list[tuple[bool, bytes]] = []
        position, end = 0, len(whole)
        self._wanted = PREFIX_BYTES
        while end - position >= PREFIX_BYTES:
            length = int.from_bytes(whole[position + 1 : position + PREFIX_BYTES], "big")
            check_size(length, self._size_max)
            start = position + PREFIX_BYTES
            if start + length > end:
                self._wanted = PREFIX_BYTES + length
                break
            messages.append((whole[position] != 0, whole[start : start + length]))
            position = start + length
        self._parts = [whole[position:]]
        self.buffered = end - position
        return messages


def _too_large(size: int, size_max: int) -> str:
    return f"the message of {size} bytes is larger than the limit of {size_max}"


def _not_one_message(body: bytes, length: int) -> tuple[grpc.StatusCode, str]:
    if not body or len(body) > PREFIX_BYTES + length:
        return grpc.StatusCode.UNIMPLEMENTED, "the method takes exactly one message"
    return grpc.StatusCode.INVALID_ARGUMENT, "the request ends in the middle of its message"
