"""Header compression (RFC 7541): decoding what a peer sends, and writing headers in the plainest form there is.

Why a decoder of our own: that of the library `hpack` takes 35 microseconds for the dozen headers of a call that are all
in the table already, which is as much as everything else about the call; this one takes 3. Huffman's code and the
static table are the library's. What is written never uses the table, so a header block can be made once and sent on
every connection.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final, TypeAlias

from hpack.exceptions import HPACKDecodingError
from hpack.huffman_table import decode_huffman
from hpack.table import HeaderTable

from perdure.server.frontends.grpc.http2.errors import ConnectionFault, ErrorCode

Header: TypeAlias = tuple[bytes, bytes]

TABLE_BYTES: Final = 4096
"""How large the peer may make the table it refers to: HTTP/2's own default, so it need not be told."""
FORGET_TABLE: Final = b"\x20"
"""Begins a header block: from here on the writer's table has no room. Due once where the peer lowers its size."""

_ENTRY_OVERHEAD: Final = 32
_STATIC: Final[Sequence[Header]] = ((b"", b""), *HeaderTable.STATIC_TABLE)
_STATIC_COUNT: Final = len(_STATIC)
_INTEGER_SHIFT_MAX: Final = 28


def encoded(headers: Iterable[Header]) -> bytes:
    """Return a header block: literals that no table remembers."""
    return b"".join(
        b"\x88" if header == (b":status", b"200") else b"\x00" + _string(header[0]) + _string(header[1])
        for header in headers
    )


def _string(text: bytes) -> bytes:
    length = len(text)
    if length < 0x7F:
        return bytes((length,)) + text
    out = bytearray((0x7F,))
    length -= 0x7F
    while length >= 0x80:
        out.append(length & 0x7F | 0x80)
        length >>= 7
    out.append(length)
    return bytes(out) + text


class HeaderDecoder:
    """Decodes the header blocks of one connection, in the order they came; one that fails is the connection's end.

    Args:
        list_bytes_max: Largest header list that is decoded.
    """

    __slots__ = ("_bytes", "_bytes_max", "_dynamic", "_list_bytes_max", "changes", "list_bytes")

    def __init__(self, list_bytes_max: int) -> None:
        self._list_bytes_max = list_bytes_max
        self._dynamic: deque[Header] = deque()
        self._bytes = 0
        self._bytes_max = TABLE_BYTES
        self.changes = 0
        """How often the table has changed: a block means the same as long as this does not."""
        self.list_bytes = 0
        """The size of the header list that was decoded last."""

    def decode(self, block: bytes) -> list[Header]:
        """Return the headers of a block.

        Raises:
            ConnectionFault: It is malformed, or larger than is taken.
        """
        headers: list[Header] = []
        position, end, size = 0, len(block), 0
        while position < end:
            first = block[position]
            if first & 0x80:
                index = first & 0x7F
                if index == 0x7F:
                    index, position = _integer(block, position, 0x7F)
                else:
                    position += 1
                header = self._entry(index)
            elif first & 0xE0 == 0x20:
                if headers:
                    raise _malformed("the table's size changes within a block")
                position = self._resize(block, position)
                continue
            else:
                header, position = self._literal(block, position, first)
            headers.append(header)
            size += len(header[0]) + len(header[1]) + _ENTRY_OVERHEAD
            if size > self._list_bytes_max:
                raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, f"more than {self._list_bytes_max} bytes of headers")
        self.list_bytes = size
        return headers

    def _entry(self, index: int) -> Header:
        if 0 < index < _STATIC_COUNT:
            return _STATIC[index]
        index -= _STATIC_COUNT
        if 0 <= index < len(self._dynamic):
            return self._dynamic[index]
        raise _malformed("a header refers to nothing")

    def _literal(self, block: bytes, position: int, first: int) -> tuple[Header, int]:
        is_remembered = first & 0x40
        index, position = _integer(block, position, 0x3F if is_remembered else 0x0F)
        if index:
            name = self._entry(index)[0]
        else:
            name, position = _text(block, position)
        value, position = _text(block, position)
        header = (name, value)
        if is_remembered:
            self._remember(header)
        return header, position

    def _remember(self, header: Header) -> None:
        self.changes += 1
        self._dynamic.appendleft(header)
        self._bytes += len(header[0]) + len(header[1]) + _ENTRY_OVERHEAD
        self._evict()

    def _resize(self, block: bytes, position: int) -> int:
        size, position = _integer(block, position, 0x1F)
        if size > TABLE_BYTES:
            raise _malformed(f"a table of {size} bytes, of at most {TABLE_BYTES}")
        self.changes += 1
        self._bytes_max = size
        self._evict()
        return position

    def _evict(self) -> None:
        while self._bytes > self._bytes_max:
            name, value = self._dynamic.pop()
            self._bytes -= len(name) + len(value) + _ENTRY_OVERHEAD


def _integer(block: bytes, position: int, mask: int) -> tuple[int, int]:
    value = block[position] & mask
    position += 1
    if value < mask:
        return value, position
    shift = 0
    while position < len(block):
        byte = block[position]
        position += 1
        value += (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, position
        shift += 7
        if shift > _INTEGER_SHIFT_MAX:
            raise _malformed("a number is too long")
    raise _malformed("a number ends too early")


def _text(block: bytes, position: int) -> tuple[bytes, int]:
    if position >= len(block):
        raise _malformed("a text is missing")
    is_huffman = block[position] & 0x80
    length, position = _integer(block, position, 0x7F)
    end = position + length
    if end > len(block):
        raise _malformed("a text ends too early")
    text = block[position:end]
    if not is_huffman:
        return text, end
    try:
        return decode_huffman(text), end
    except HPACKDecodingError:
        raise _malformed("a text is not in Huffman's code") from None


def _malformed(message: str) -> ConnectionFault:
    return ConnectionFault(ErrorCode.COMPRESSION_ERROR, message)
