"""A unary gRPC call: its request as it arrives, what handlers may know of it, and its one answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perdure.server.frontends.grpc.exchange import Exchange
from perdure.server.frontends.grpc.messages import (
    PREFIX_BYTES,
    check_size,
    declared_size,
    is_whole,
    only_message,
    prefix_of,
)
from perdure.server.frontends.grpc.replies import failure
from perdure.server.frontends.grpc.status import CallFailed, CallStatus, status_of_failure

if TYPE_CHECKING:
    from perdure.server.engine.client_software import ClientSoftware
    from perdure.server.frontends.grpc.http2.streams import Stream
    from perdure.server.frontends.grpc.protocol import GrpcProtocol
    from perdure.server.frontends.grpc.requests import CallHead
    from perdure.server.frontends.grpc.service import UnaryRoute


class GrpcCall(Exchange):
    """One unary call; the `Call` that handlers are given."""

    __slots__ = ("_body", "_route")

    def __init__(self, connection: GrpcProtocol, stream: Stream, head: CallHead, route: UnaryRoute) -> None:
        super().__init__(connection, stream, head)
        self._route = route
        self._body: bytes | bytearray = b""
        if self.deadline is None:
            self._timer = connection.loop.call_later(connection.service.limits.request_seconds, self.expire)

    @property
    def client(self) -> ClientSoftware:
        """Which software calls."""
        return self._head.client

    # --- the request --------------------------------------------------------------------------------------------------

    def receive(self, data: bytes, is_end: bool) -> None:
        """Take a part of the request, and begin when it was the last."""
        if not self._body:
            self._body = data
        elif data:
            # Many small parts in a list would take many times their size.
            if not isinstance(self._body, bytearray):
                self._body = bytearray(self._body)
            self._body += data
        if is_end:
            self._complete()
        elif self._hold(len(data)) and not is_whole(self._body):
            self._connection.took(self._stream, len(data))
            self._check_size()

    def _check_size(self) -> None:
        """Refuse a request that is or says that it will be too large, before all of it has arrived."""
        size = len(self._body) - PREFIX_BYTES
        if size >= 0:
            size = max(size, declared_size(self._body))
        try:
            check_size(size, self._connection.service.message_size_max)
        except CallFailed as error:
            self.fail(error.status)

    def _complete(self) -> None:
        body, self._body = self._body, b""
        if self._unread:
            self._unhold(self._unread)
        if self.deadline is None and self._timer is not None:
            self._timer.cancel()
            self._timer = None
        try:
            message = only_message(body, self._head.encoding, self._connection.service.message_size_max)
        except CallFailed as error:
            self.fail(error.status)
            return
        if self._has_room():
            self._begin(self._serve(message))

    # --- the answer ---------------------------------------------------------------------------------------------------

    async def _serve(self, message: bytes) -> None:
        self._is_entered = True
        route = self._route
        try:
            reply = await route.answer(message, self)
            self._answer(reply if isinstance(reply, bytes) else reply.SerializeToString())
        except Exception as error:  # noqa: BLE001 - this is the border: whatever failed becomes a status
            self.fail(status_of_failure(error, route.name))
        finally:
            self._left()

    def _answer(self, message: bytes) -> None:
        self._connection.reply(self._stream, prefix_of(message), message)
        if self._stream.is_closed:
            self._release()

    def fail(self, status: CallStatus) -> None:
        """End the call with an error, unless it has ended."""
        self._connection.answer(self._stream, failure(status))
        self._release()
