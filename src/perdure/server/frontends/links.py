"""The streams between nodes, both ends: plain TCP on the gRPC port, told from HTTP/2 by the first bytes.

A frame between nodes costs so little that HTTP/2 around it would be most of it, and these streams need nothing of what
HTTP/2 has: there is one for each pair of nodes. No port is needed beside the gRPC one. This module must know nothing of
what the streams carry; who may open one is said in the first frames, to `engine/cluster/links.py`.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, TypeAlias, cast

from perdure.server.engine.cluster.stream import ByteStream

PREFACE: Final = b"PERDURE LINK 1\r\n"
"""How a stream between nodes begins. HTTP/2 begins with `PRI`."""

AcceptLink: TypeAlias = Callable[[ByteStream], Awaitable[None]]

_UNREAD_BYTES: Final = 4 * 1024 * 1024
"""When more has arrived than was read, the other side has to wait."""
_WRITE_BUFFER_BYTES: Final = 1024 * 1024
_SILENT_MS: Final = 10_000
"""A peer that has acknowledged nothing for so long is gone, as far as the system can tell."""
_PROBE_SECONDS: Final = 5


class LinkProtocol(asyncio.Protocol):
    """One end of a stream between nodes."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._arrived: list[bytes] = []
        self._unread = 0
        self._has_news = asyncio.Event()
        self._may_write = asyncio.Event()
        self._may_write.set()
        self._take: Callable[[bytes], None] | None = None
        self._carried: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when there is nothing more to hand over."""
        self._is_lost = False

    # --- for whoever uses the stream ----------------------------------------------------------------------------------

    async def read(self) -> bytes | None:
        """See `ByteStream.read`."""
        while not self._arrived:
            if self._is_lost:
                return None
            self._has_news.clear()
            await self._has_news.wait()
        return self._take_arrived()

    async def write(self, data: bytes) -> None:
        """See `ByteStream.write`."""
        await self._may_write.wait()
        if self._transport is None or self._is_lost:
            raise OSError("the stream between the nodes is closed")
        self._transport.write(data)

    async def carry(self, take: Callable[[bytes], None]) -> None:
        """See `ByteStream.carry`."""
        if self._arrived:
            take(self._take_arrived())
        if self._is_lost:
            return
        self._take = take
        try:
            await self._carried
        finally:
            self._take = None

    def send(self, data: bytes) -> bool:
        """See `ByteStream.send`."""
        if self._transport is None or not self._may_write.is_set():
            return False
        self._transport.write(data)
        return True

    def close(self) -> None:
        """End the stream."""
        if self._transport is not None:
            self._transport.close()

    # --- for the event loop -------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Have the system notice when the peer is gone."""
        # uvloop's transports are not derived from asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(_WRITE_BUFFER_BYTES)
        _watch(transport.get_extra_info("socket"))

    def data_received(self, data: bytes) -> None:
        """Hand over what has come, or keep it until it is read."""
        if self._take is None:
            self._keep(data)
            return
        try:
            self._take(data)
        except Exception as error:  # noqa: BLE001 - it is raised where the stream is carried
            # What is half taken in must not be begun anew with the next piece.
            self._take = None
            if not self._carried.done():
                self._carried.set_exception(error)

    def pause_writing(self) -> None:
        """Let writers wait."""
        self._may_write.clear()

    def resume_writing(self) -> None:
        """Let writers go on."""
        self._may_write.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever reads or writes."""
        self._is_lost = True
        self._transport = None
        self._has_news.set()
        self._may_write.set()
        if not self._carried.done():
            self._carried.set_result(None)

    # --- within -------------------------------------------------------------------------------------------------------

    def _keep(self, data: bytes) -> None:
        self._arrived.append(data)
        self._unread += len(data)
        if self._unread > _UNREAD_BYTES and self._transport is not None:
            self._transport.pause_reading()
        self._has_news.set()

    def _take_arrived(self) -> bytes:
        data = b"".join(self._arrived)
        self._arrived.clear()
        self._unread = 0
        if self._transport is not None:
            self._transport.resume_reading()
        return data


class Doorman(asyncio.Protocol):
    """Meets a connection and sees by its first bytes what it is.

    Args:
        make_grpc: Makes the protocol of a client's connection.
        accept_link: Serves a stream of another node.
        seconds: How long the first bytes may take.
        on_gone: Told once the connection is handed on, or was closed before.
    """

    def __init__(
        self,
        make_grpc: Callable[[], asyncio.Protocol],
        accept_link: Callable[[LinkProtocol], None],
        seconds: float,
        on_gone: Callable[[Doorman], None],
    ) -> None:
        self._make_grpc = make_grpc
        self._accept_link = accept_link
        self._on_gone = on_gone
        self._first = b""
        self._transport: asyncio.Transport | None = None
        self._is_unwanted = False
        self._timer = asyncio.get_running_loop().call_later(seconds, self.abort)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the first bytes."""
        self._transport = cast("asyncio.Transport", transport)
        if self._is_unwanted:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Hand the connection on as soon as it says what it is."""
        self._first += data
        if len(self._first) < len(PREFACE) and PREFACE.startswith(self._first):
            return
        self._leave()
        if self._first.startswith(PREFACE):
            link = LinkProtocol()
            self._hand_on(link, self._first[len(PREFACE) :])
            self._accept_link(link)
        else:
            self._hand_on(self._make_grpc(), self._first)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody has come in."""
        self._leave()

    def abort(self) -> None:
        """Close the connection of somebody who says nothing."""
        self._is_unwanted = True
        if self._transport is not None:
            self._transport.abort()

    def _hand_on(self, protocol: asyncio.Protocol, first: bytes) -> None:
        assert self._transport is not None, "bytes have come over it"
        self._transport.set_protocol(protocol)
        protocol.connection_made(self._transport)
        if first:
            protocol.data_received(first)

    def _leave(self) -> None:
        self._timer.cancel()
        self._on_gone(self)


class TcpDialer:
    """Opens streams to other nodes."""

    @asynccontextmanager
    async def dial(self, address: str) -> AsyncIterator[ByteStream]:
        """See `Dialer.dial`."""
        host, _, port = address.rpartition(":")
        loop = asyncio.get_running_loop()
        _, link = await loop.create_connection(LinkProtocol, host.strip("[]"), int(port))
        try:
            await link.write(PREFACE)
            yield link
        finally:
            link.close()


def _watch(connection: socket.socket | None) -> None:
    """Have a connection end whose peer has vanished without a word."""
    if connection is None:
        return
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", _PROBE_SECONDS),
        ("TCP_KEEPINTVL", _PROBE_SECONDS),
        ("TCP_KEEPCNT", 2),
        ("TCP_USER_TIMEOUT", _SILENT_MS),
    ):
        # Not every system has all of them.
        option = getattr(socket, name, None)
        if option is not None:
            connection.setsockopt(socket.IPPROTO_TCP, option, value)
