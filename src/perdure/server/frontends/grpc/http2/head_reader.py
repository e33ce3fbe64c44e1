"""From a header block to what the layer above makes of it, checked as HTTP/2 asks and remembered while nothing changes.

A client sends the same header block with every call of a kind once its table has settled. What a block means depends on
nothing but its bytes and the table, so what was read of it is kept until the table changes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final, Generic, TypeVar

from perdure.server.frontends.grpc.http2.errors import ErrorCode, StreamFault
from perdure.server.frontends.grpc.http2.hpack import Header, HeaderDecoder

HeadT = TypeVar("HeadT")

HEADS_REMEMBERED: Final = 256
"""Header blocks remembered for one connection."""
FIELDS_REMEMBERED: Final = 256
"""Fields remembered to be right, for one connection: most of a head stays the same where one value changes."""
REMEMBERED_BYTES_MAX: Final = 1024
"""Larger blocks and values are not."""

_PSEUDO: Final = frozenset((b":method", b":scheme", b":path", b":authority"))
_REQUIRED: Final = (b":method", b":scheme", b":path")
_OF_CONNECTIONS: Final = frozenset(
    (b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade")
)
_NAME: Final = re.compile(rb":?[^\x00-\x20A-Z\x7f-\xff:]+")
_FORBIDDEN_IN_VALUES: Final = re.compile(rb"[\x00\r\n]")


class HeadReader(Generic[HeadT]):
    """Reads the heads of one connection's requests.

    Args:
        decoder: The connection's decoder, which must see every block.
        interpret: Makes of a request's headers, and of their size, what the layer above wants to know of them.
    """

    __slots__ = ("_checked", "_decoder", "_interpret", "_remembered")

    def __init__(self, decoder: HeaderDecoder, interpret: Callable[[Sequence[Header], int], HeadT]) -> None:
        self._decoder = decoder
        self._interpret = interpret
        self._remembered: dict[bytes, HeadT] = {}
        self._checked: set[Header] = set()

    def request(self, block: bytes) -> HeadT:
        """Return what is made of the headers that begin a request.

        Raises:
            StreamFault: They are no request.
            ConnectionFault: They cannot be decoded.
        """
        head = self._remembered.get(block)
        if head is not None:
            return head
        changes = self._decoder.changes
        headers = self._decoder.decode(block)
        if self._decoder.changes != changes or len(self._remembered) >= HEADS_REMEMBERED:
            self._remembered.clear()
        check_request(headers, self._checked)
        head = self._interpret(headers, self._decoder.list_bytes)
        if self._decoder.changes == changes and len(block) <= REMEMBERED_BYTES_MAX:
            self._remembered[block] = head
        return head

    def skipped(self, block: bytes) -> list[Header]:
        """Return the headers of a block that begins no request; the table must know them.

        Raises:
            ConnectionFault: They cannot be decoded.
        """
        changes = self._decoder.changes
        headers = self._decoder.decode(block)
        if self._decoder.changes != changes:
            self._remembered.clear()
        return headers


def check_request(headers: Sequence[Header], checked: set[Header]) -> None:
    """Check what RFC 9113, section 8, asks of the headers that begin a request.

    Args:
        headers: Names and values.
        checked: Fields that were found right before; those that are found right now are added.

    Raises:
        StreamFault: They are malformed.
    """
    pseudo: dict[bytes, bytes] = {}
    is_past_pseudo = False
    for header in headers:
        name, value = header
        if header not in checked:
            _check_field(name, value)
            if len(checked) >= FIELDS_REMEMBERED:
                checked.clear()
            if len(value) <= REMEMBERED_BYTES_MAX:
                checked.add(header)
        if name not in _PSEUDO:
            is_past_pseudo = True
        elif is_past_pseudo or name in pseudo:
            raise _malformed(f"the pseudo-header {name!r} is out of place")
        else:
            pseudo[name] = value
    if not all(pseudo.get(name) for name in _REQUIRED):
        raise _malformed("a pseudo-header is missing")


def check_trailers(headers: Sequence[Header]) -> None:
    """Check what RFC 9113, section 8, asks of the headers that end a request.

    Raises:
        StreamFault: They are malformed.
    """
    for name, value in headers:
        _check_field(name, value)
        if name.startswith(b":"):
            raise _malformed("a pseudo-header among the trailers")


def _check_field(name: bytes, value: bytes) -> None:
    if _NAME.fullmatch(name) is None or (name.startswith(b":") and name not in _PSEUDO):
        raise _malformed(f"the header name {name!r}")
    if _FORBIDDEN_IN_VALUES.search(value) is not None:
        raise _malformed(f"the value of {name!r}")
    if name in _OF_CONNECTIONS or (name == b"te" and value != b"trailers"):
        raise _malformed(f"the header {name!r}, which is not HTTP/2's")


def _malformed(message: str) -> StreamFault:
    return StreamFault(ErrorCode.PROTOCOL_ERROR, message)
