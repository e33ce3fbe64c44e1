"""A unary gRPC call: its request as it arrives, what handlers may know of it, and its one answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perdure.server.frontends.grpc.exchange import Exchange
from perdure.server.frontends.grpc.messages import PREFIX_BYTES, check_size, only_message, prefix_of
from perdure.server.frontends.grpc.replies import failure
from perdure.server.frontends.grpc.status import CallFailed, CallStatus

if TYPE_CHECKING:
    from perdure.server.frontends.grpc.http2.streams import Stream
    from perdure.server.frontends.grpc.protocol import GrpcProtocol
    from perdure.server.frontends.grpc.requests import CallHead
    from perdure.server.frontends.grpc.service import UnaryRoute


class GrpcCall(Exchange):
    """One unary call; the `Call` that handlers are given."""

    __slots__ = ("_parts", "_route")

    def __init__(self, connection: GrpcProtocol, stream: Stream, head: CallHead, route: UnaryRoute) -> None:
        super().__init__(connection, stream, head)
        self._route = route
        self._parts: list[bytes] = []
        if self.deadline is None:
            self._timer = connection.loop.call_later(connection.service.limits.request_seconds, self.expire)

    @property
    def client_name(self) -> str:
        """The caller's `client-name`; empty where it names none."""
        return self._head.client_name

    @property
    def client_version(self) -> str:
        """The caller's `client-version`; empty where it names none."""
        return self._head.client_version

    # --- the request --------------------------------------------------------------------------------------------------

    def receive(self, data: bytes, is_end: bool) -> None:
        """Take a part of the request, and begin when it was the last."""
        parts = self._parts
        if data:
            parts.append(data)
        if is_end:
            self._complete(b"".join(parts))
        elif self._hold(len(data)):
            self._connection.took(self._stream, len(data))
            self._check_declared_size()

    def _check_declared_size(self) -> None:
        """Refuse a request that says it will be too large, before it has arrived."""
        start = self._parts[0]
        if len(start) < PREFIX_BYTES:
            start = b"".join(self._parts)[:PREFIX_BYTES]
        size_max = self._connection.service.message_size_max
        try:
            if len(start) >= PREFIX_BYTES:
                check_size(int.from_bytes(start[1:PREFIX_BYTES], "big"), size_max)
            check_size(self._unread - PREFIX_BYTES, size_max)
        except CallFailed as error:
            self.fail(error.status)

    def _complete(self, body: bytes) -> None:
        self._parts = []
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
            self._begin(self._route.serve(self, message))

    # --- the answer ---------------------------------------------------------------------------------------------------

    def answer(self, message: bytes) -> None:
        """Send the reply, unless the call has ended."""
        self._connection.reply(self._stream, prefix_of(message), message)
        if self._stream.is_closed:
            self._release()

    def fail(self, status: CallStatus) -> None:
        """End the call with an error, unless it has ended."""
        self._connection.answer(self._stream, failure(status))
        self._release()
