"""Byte streams: messages in both directions, any number of them, each a string of bytes, under flow control.

For what is no RPC of the protocol: the streams between nodes, and the two standard services that stream. On the wire it
is a bidirectional gRPC method. What has arrived is not read further from the peer until the handler has read it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from perdure.server.frontends.grpc.codes import StatusCode
from perdure.server.frontends.grpc.exchange import Exchange
from perdure.server.frontends.grpc.messages import MessageReader, prefix_of, uncompressed
from perdure.server.frontends.grpc.replies import REPLY_HEAD, trailers
from perdure.server.frontends.grpc.status import CallFailed, CallStatus, status_of_failure

if TYPE_CHECKING:
    from perdure.server.frontends.grpc.http2.streams import Stream
    from perdure.server.frontends.grpc.protocol import GrpcProtocol
    from perdure.server.frontends.grpc.requests import CallHead

STREAM_MESSAGE_BYTES_MAX: Final = 16 * 1024 * 1024
"""Largest message on a byte stream: several requests of the largest size fit into one."""

_OK: Final = CallStatus(StatusCode.OK, "", b"")


class ByteStream(Protocol):
    """A stream as its handler sees it. When the peer goes away, the handler is cancelled."""

    async def read(self) -> bytes | None:
        """Return the next message, None once the peer has ended its side."""

    async def write(self, data: bytes) -> None:
        """Send a message; wait until the peer and the network have taken it.

        Raises:
            ConnectionResetError: The stream is over.
        """


StreamHandler: TypeAlias = Callable[[ByteStream], Awaitable[None]]
"""Serves one stream; when it returns, the stream ends well, and with an error when it raises one."""


class GrpcByteStream(Exchange):
    """A byte stream over gRPC."""

    __slots__ = ("_arrived", "_handler", "_held", "_is_ended", "_messages", "_reader", "_sent")

    def __init__(self, connection: GrpcProtocol, stream: Stream, head: CallHead, handler: StreamHandler) -> None:
        super().__init__(connection, stream, head)
        self._handler = handler
        self._reader = MessageReader(STREAM_MESSAGE_BYTES_MAX)
        self._messages: deque[tuple[bool, bytes]] = deque()
        self._is_ended = False
        self._held = 0
        self._arrived = asyncio.Event()
        self._sent = asyncio.Event()

    def begin(self) -> None:
        """Begin to serve, if there is room."""
        if self._has_room():
            self._connection.answer(self._stream, REPLY_HEAD)
            self._begin(self._serve())

    # --- for the handler ----------------------------------------------------------------------------------------------

    async def read(self) -> bytes | None:
        """Return the next message, None once the peer has ended its side."""
        while not self._messages:
            if self._is_ended:
                return None
            self._arrived.clear()
            await self._arrived.wait()
        is_compressed, data = self._messages.popleft()
        self._settle()
        return uncompressed(data, self._head.encoding, STREAM_MESSAGE_BYTES_MAX) if is_compressed else data

    async def write(self, data: bytes) -> None:
        """Send a message; wait until the peer and the network have taken it."""
        if not self._stream.is_closed:
            self._connection.data(self._stream, prefix_of(data) + data)
        while self._stream.waiting:
            self._sent.clear()
            await self._sent.wait()
        if self._stream.is_closed:
            raise ConnectionResetError("the stream is over")

    # --- the stream's events ------------------------------------------------------------------------------------------

    def receive(self, data: bytes, is_end: bool) -> None:
        """Take what the peer sent, and whether it has ended its side."""
        self._held += len(data)
        if not self._hold(len(data)):
            return
        try:
            self._messages += self._reader.feed(data)
        except CallFailed as error:
            self.fail(error.status)
            self.cancel()
            return
        self._is_ended = is_end
        self._settle()
        if self._messages or is_end:
            self._arrived.set()

    def drained(self) -> None:
        """Know that what waited for the peer's window has been sent."""
        super().drained()
        self._sent.set()

    def cancel(self) -> None:
        """Stop: the peer reset the stream, or its connection is gone."""
        super().cancel()
        self._sent.set()

    def fail(self, status: CallStatus) -> None:
        """End the stream with a status, unless it has ended."""
        self._connection.end(self._stream, trailers(status))
        if self._stream.is_closed:
            self._release()

    # --- within -------------------------------------------------------------------------------------------------------

    async def _serve(self) -> None:
        self._is_entered = True
        try:
            await self._handler(self)
            self.fail(_OK)
        except Exception as error:  # noqa: BLE001 - this is the border: whatever failed becomes a status
            self.fail(status_of_failure(error, self._head.path))
        finally:
            self._left()

    def _settle(self) -> None:
        """Have the peer send more once all whole messages were read; a part of one must not stop the rest of it."""
        if self._messages:
            return
        self._connection.took(self._stream, self._held)
        self._held = 0
        self._unhold(self._unread - self._reader.buffered)
