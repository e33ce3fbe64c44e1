"""A front end's connection without a network: a transport that keeps what is written, for tests in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from perdure.server.frontends.grpc.byte_streams import StreamHandler
from perdure.server.frontends.grpc.call import GrpcCall
from perdure.server.frontends.grpc.http2 import frames
from perdure.server.frontends.grpc.http2.limits import Http2Limits
from perdure.server.frontends.grpc.protocol import GrpcProtocol
from perdure.server.frontends.grpc.service import Service, StreamRoute, UnaryRoute
from tests.server.frontends.grpc.peer import PATH, Frame, Peer, of_kind
from tests.virtual_time import settle

Answering = Callable[[bytes, GrpcCall], Awaitable[bytes]]


class KeptTransport(asyncio.Transport):
    """Keeps what is written, and does what a test says the network does."""

    def __init__(self, protocol: GrpcProtocol) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.unread = 0
        self.is_closed = False
        self.was_aborted = False
        self._protocol = protocol

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.is_closed
        self.written.append(bytes(data))

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """The test says when the buffer is full."""

    def get_write_buffer_size(self) -> int:
        return self.unread

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        if not self.is_closed and not self.unread:
            self._lose()
        self.is_closed = True

    def abort(self) -> None:
        if not self.was_aborted:
            self.was_aborted = True
            if not self.is_closed or self.unread:
                self._lose()
            self.is_closed = True

    def _lose(self) -> None:
        asyncio.get_running_loop().call_soon(self._protocol.connection_lost, None)


class Connected:
    """A connection of a service, and its peer.

    Args:
        answer: What a call of `PATH` is answered with.
        streams: Byte streams by path.
    """

    def __init__(
        self,
        answer: Answering | None = None,
        *,
        streams: Mapping[str, StreamHandler] | None = None,
        limits: Http2Limits | None = None,
        calls_max: int = 100,
        message_size_max: int = 1000,
        unwelcome: str = "",
    ) -> None:
        self.service = Service(
            {
                PATH: UnaryRoute("Method", answer or _echo),
                **{path: StreamRoute(handler) for path, handler in (streams or {}).items()},
            },
            calls_max=calls_max,
            message_size_max=message_size_max,
            limits=limits or Http2Limits(),
        )
        self.is_lost = False
        self.protocol = GrpcProtocol(self.service, self._lost, unwelcome=unwelcome)
        self.transport = KeptTransport(self.protocol)
        self.peer = Peer()
        self.protocol.connection_made(self.transport)

    async def give(self, data: bytes) -> list[Frame]:
        """Hand in bytes, let everything run that can, and return what came back."""
        self.protocol.data_received(data)
        return await self.frames()

    async def frames(self) -> list[Frame]:
        """Let everything run that can, and return what was written."""
        await settle()
        written, self.transport.written = self.transport.written, []
        return self.peer.read(b"".join(written))

    async def hello(self, *settings: tuple[int, int]) -> None:
        """Shake hands."""
        await self.give(self.peer.hello(*settings))

    async def lose(self) -> None:
        """Lose the connection."""
        self.protocol.connection_lost(ConnectionResetError())
        await settle()

    def _lost(self, protocol: GrpcProtocol) -> None:
        assert not self.is_lost
        self.is_lost = True


def status_in(found: list[Frame], peer: Peer) -> dict[str, str]:
    """Return the headers of the frame that ends the only stream answered."""
    fields = [peer.fields(frame) for frame in of_kind(found, frames.HEADERS)]
    assert of_kind(found, frames.HEADERS)[-1].ends_stream
    return fields[-1]


async def _echo(data: bytes, call: GrpcCall) -> bytes:
    return data
