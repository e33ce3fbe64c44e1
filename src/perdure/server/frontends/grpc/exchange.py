"""One stream as the front end serves it: its deadline, the task of its handler, and how it ends.

However it ends, whoever ends it says so on the stream first and then cancels the task; a task that ends finds the
stream closed and says nothing. The task is counted until it is really over, so that a peer which resets its calls
cannot have more handlers at work than one that waits for them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Final

from perdure.server.frontends.grpc.codes import StatusCode
from perdure.server.frontends.grpc.http2.errors import ErrorCode
from perdure.server.frontends.grpc.status import CallStatus

if TYPE_CHECKING:
    from perdure.server.frontends.grpc.http2.streams import Stream
    from perdure.server.frontends.grpc.protocol import GrpcProtocol
    from perdure.server.frontends.grpc.requests import CallHead

_TOO_MANY: Final = CallStatus(StatusCode.RESOURCE_EXHAUSTED, "too many calls are in progress", b"")
_TOO_LATE: Final = CallStatus(StatusCode.DEADLINE_EXCEEDED, "the call's deadline has passed", b"")
_TOO_MUCH_UNREAD: Final = CallStatus(
    StatusCode.RESOURCE_EXHAUSTED, "too much has arrived on this connection that is not complete or not read", b""
)
STOPPING: Final = CallStatus(StatusCode.UNAVAILABLE, "the server stops", b"")


class Exchange:
    """What unary calls and byte streams have in common. It is the owner of its stream."""

    __slots__ = ("_connection", "_head", "_is_entered", "_stream", "_task", "_timer", "_unread", "deadline")

    def __init__(self, connection: GrpcProtocol, stream: Stream, head: CallHead) -> None:
        self._connection = connection
        self._stream = stream
        self._head = head
        self._task: asyncio.Task[None] | None = None
        self._is_entered = False
        self._unread = 0
        self._timer: asyncio.TimerHandle | None = None
        self.deadline: float | None = None
        """Until when the caller waits, on the event loop's clock, in seconds; None where it set no deadline."""
        if head.timeout_seconds is not None:
            self.deadline = connection.loop.time() + head.timeout_seconds
            self._timer = connection.loop.call_at(self.deadline, self.expire)

    # --- the stream's events ------------------------------------------------------------------------------------------

    def receive(self, data: bytes, is_end: bool) -> None:
        """Take what the peer sent, and whether it has ended its side."""
        raise NotImplementedError

    def cancel(self) -> None:
        """Stop: the peer reset the stream, or its connection is gone."""
        self._release()
        self._stop_task()

    def drained(self) -> None:
        """Know that what waited for the peer's window has been sent."""
        if self._stream.is_closed:
            self._release()

    # --- ends ---------------------------------------------------------------------------------------------------------

    def fail(self, status: CallStatus) -> None:
        """End the call with an error, unless it has ended."""
        raise NotImplementedError

    def expire(self) -> None:
        """End the call because its deadline has passed."""
        self._timer = None
        self.give_up(_TOO_LATE)

    def give_up(self, status: CallStatus) -> None:
        """End the call for a reason of ours, whatever it is doing."""
        if self._stream.waiting:
            # The answer is on its way, and the peer does not take it.
            self._connection.reset(self._stream, ErrorCode.CANCEL)
        else:
            self.fail(status)
        self.cancel()

    # --- the task -----------------------------------------------------------------------------------------------------

    def _left(self) -> None:
        """Note that the task is over; a call that it has not answered, because it was cancelled, ends too."""
        self._task = None
        if not self._stream.is_closed and self._stream.trailers is None:
            self.give_up(STOPPING)
        self._connection.service.calls.discard(self)

    def _begin(self, serving: Coroutine[object, object, None]) -> None:
        connection = self._connection
        connection.service.calls.add(self)
        self._task = connection.loop.create_task(serving, name=self._head.path)

    def _has_room(self) -> bool:
        if not self._connection.service.calls.is_full:
            return True
        self.fail(_TOO_MANY)
        return False

    def _stop_task(self) -> None:
        if self._task is None:
            return
        self._task.cancel()
        if not self._is_entered:
            # It will never run a line of its own.
            self._left()

    # --- accounts -----------------------------------------------------------------------------------------------------

    def _hold(self, count: int) -> bool:
        """Count bytes that have arrived and are not read yet; return whether there is room for them."""
        self._unread += count
        connection = self._connection
        connection.unread_bytes += count
        if connection.unread_bytes <= connection.service.limits.unread_bytes:
            return True
        self.fail(_TOO_MUCH_UNREAD)
        self.cancel()
        return False

    def _unhold(self, count: int) -> None:
        self._unread -= count
        self._connection.unread_bytes -= count

    def _release(self) -> None:
        """Let go of what the stream holds once it is closed."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._unhold(self._unread)
        # Or the two would be a circle of garbage for each call.
        self._stream.owner = None
