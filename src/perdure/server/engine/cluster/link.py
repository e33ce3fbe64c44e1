"""One stream to one other node: calls and their answers, and news, many of them in flight at once.

Frames that are sent in one turn of the event loop leave together. A call whose caller goes away is cancelled on the
other side; if its answer was on the way already, whoever asked for that is given it, to undo what it hands out.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol, assert_never

import msgspec

from perdure.server.core.errors import ResourceExhausted, ServerError, Unavailable
from perdure.server.engine.client_software import UNKNOWN, ClientSoftware
from perdure.server.engine.cluster.errors import LinkDown, LinkLost, error_of, failed_frame
from perdure.server.engine.cluster.frames import (
    BadFrame,
    Call,
    Cancel,
    Cast,
    Failed,
    Frame,
    FrameReader,
    Hello,
    Moved,
    Proof,
    Reply,
    encode_frame,
)
from perdure.server.engine.cluster.ownership import Elsewhere
from perdure.server.engine.cluster.settings import ClusterSettings
from perdure.server.engine.cluster.stream import ByteStream
from perdure.server.store.interface import StoreError

_logger = logging.getLogger(__name__)

Late = Callable[["Link", bytes], None]
"""What is done with the answer to a call whose caller has gone, given with the link it came over."""

_MESSAGE_BYTES = 1024 * 1024
"""About how much is written to a stream at once."""


class Services(Protocol):
    """What a node does for others."""

    async def answer(self, peer: str, call: Call) -> bytes:
        """Answer a call. Raises ServerError, and Elsewhere where another node owns what it touches."""

    def news(self, peer: str, cast: Cast) -> None:
        """Take in news."""


class _Waiting(msgspec.Struct):
    future: asyncio.Future[bytes]
    late: Late | None


class Link:
    """A stream to a peer that has said who it is.

    Args:
        peer: The other node.
        stream: The connection.
        services: Who answers its calls.
        settings: Limits.
    """

    def __init__(self, peer: str, stream: ByteStream, services: Services, settings: ClusterSettings) -> None:
        self.peer = peer
        self._stream = stream
        self._services = services
        self._bytes_max = settings.link_bytes_max
        self._calls_max = settings.link_calls_max
        self._loop = asyncio.get_running_loop()
        self._outgoing: list[bytes] = []
        self._outgoing_bytes = 0
        self._is_flush_due = False
        self._must_wait = asyncio.Event()
        """Set while frames wait for the other side to keep up."""
        self._count = 0
        self._waiting: dict[int, _Waiting] = {}
        self._late: dict[int, Late] = {}
        self._serving: dict[int, asyncio.Task[None]] = {}
        self._is_down = False

    async def run(self, reader: FrameReader) -> None:
        """Carry frames until the stream ends. Then every call in progress has failed, on both sides.

        Args:
            reader: What puts frames together, with what came behind the peer's greeting.
        """
        halves = [
            asyncio.create_task(self._write_for_ever(), name=f"link to {self.peer}"),
            asyncio.create_task(self._carry(reader), name=f"link from {self.peer}"),
        ]
        try:
            await asyncio.wait(halves, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._end()
            for half in halves:
                half.cancel()
            ends = await asyncio.gather(*halves, return_exceptions=True)
            await asyncio.gather(*self._serving.values(), return_exceptions=True)
        for end in ends:
            if isinstance(end, Exception):
                _logger.warning("the link with node %s broke: %s", self.peer, end)

    # --- asking -------------------------------------------------------------------------------------------------------

    async def call(
        self,
        service: str,
        body: bytes,
        *,
        deadline: float | None = None,
        client: ClientSoftware = UNKNOWN,
        late: Late | None = None,
    ) -> bytes:
        """Have the peer answer a call.

        Args:
            service: Which of its services.
            body: The question.
            deadline: Until when the caller waits, as `loop.time()`; the peer is told, and ends the call itself.
            client: Which software the caller uses.
            late: What to do with an answer that comes when this call was cancelled.

        Raises:
            ServerError: What the peer answers instead.
            Elsewhere: The peer does not own what the call touches.
            LinkDown: There is no connection, or too much waits to be sent over it; the peer has seen nothing.
            LinkLost: The connection broke meanwhile.
        """
        if self._is_down or self._outgoing_bytes > self._bytes_max:
            raise LinkDown(f"node {self.peer} cannot be reached now; try again")
        self._count += 1
        number = self._count
        waiting = self._waiting[number] = _Waiting(self._loop.create_future(), late)
        seconds = None if deadline is None else max(deadline - self._loop.time(), 0.0)
        self._send(Call(number, service, body, seconds, *client))
        try:
            return await waiting.future
        except asyncio.CancelledError:
            self._abandon(number, waiting)
            raise
        finally:
            self._waiting.pop(number, None)

    def in_progress(self) -> list[asyncio.Future[bytes] | asyncio.Task[None]]:
        """Return the calls in progress, both ways."""
        return [*(waiting.future for waiting in self._waiting.values()), *self._serving.values()]

    def tell(self, service: str, body: bytes) -> None:
        """Make a call whose answer nobody waits for."""
        if not self._is_down:
            self._count += 1
            self._send(Call(self._count, service, body, None))

    def cast(self, topic: str, body: bytes) -> None:
        """Tell the peer news. What is said while the link is down is not heard."""
        if not self._is_down:
            self._send(Cast(topic, body))

    def _abandon(self, number: int, waiting: _Waiting) -> None:
        if self._waiting.pop(number, None) is None:
            # The answer came in the same turn as the cancellation, and maybe before it.
            future = waiting.future
            if waiting.late is not None and not future.cancelled() and future.exception() is None:
                self._undo(waiting.late, future.result())
            return
        if self._is_down:
            return
        if waiting.late is not None:
            self._late[number] = waiting.late
        self._send(Cancel(number))

    # --- being asked --------------------------------------------------------------------------------------------------

    def _take(self, frame: Frame) -> None:
        match frame:
            case Reply() | Failed() | Moved():
                self._take_answer(frame)
            case Call():
                self._take_call(frame)
            case Cast():
                self._hear(frame)
            case Cancel():
                serving = self._serving.get(frame.number)
                if serving is not None:
                    serving.cancel()
            case Hello() | Proof():
                raise BadFrame("a node introduced itself twice")
            case _:
                assert_never(frame)

    def _hear(self, cast: Cast) -> None:
        try:
            self._services.news(self.peer, cast)
        except Exception:
            # The link and the calls over it are not to suffer for it.
            _logger.exception("news of node %s could not be taken in: %s", self.peer, cast.topic)

    def _undo(self, late: Late, answer: bytes) -> None:
        try:
            late(self, answer)
        except Exception:
            _logger.exception("an answer of node %s that came too late could not be undone", self.peer)

    def _take_answer(self, frame: Reply | Failed | Moved) -> None:
        waiting = self._waiting.pop(frame.number, None)
        if waiting is None or waiting.future.done():
            late = self._late.pop(frame.number, None) if waiting is None else waiting.late
            if late is not None and isinstance(frame, Reply):
                self._undo(late, frame.body)
        elif isinstance(frame, Reply):
            waiting.future.set_result(frame.body)
        else:
            waiting.future.set_exception(Elsewhere(frame.shard) if isinstance(frame, Moved) else error_of(frame))

    def _take_call(self, call: Call) -> None:
        if len(self._serving) >= self._calls_max:
            refusal = ResourceExhausted(f"{self._calls_max} calls of node {self.peer} are in progress; try again later")
            self._send(failed_frame(call.number, refusal))
            return
        task = asyncio.create_task(self._serve(call), name=f"{call.service} for {self.peer}")
        self._serving[call.number] = task
        task.add_done_callback(lambda task: self._served(call.number, task))

    def _served(self, number: int, task: asyncio.Task[None]) -> None:
        del self._serving[number]
        if task.cancelled() and not self._is_down:
            # Before it began; whoever asked waits for an answer all the same.
            self._send(failed_frame(number, Unavailable("the call was cancelled")))

    async def _serve(self, call: Call) -> None:
        answer: Frame
        try:
            answer = Reply(call.number, await self._services.answer(self.peer, call))
        except Elsewhere as elsewhere:
            answer = Moved(call.number, elsewhere.shard)
        except ServerError as error:
            answer = failed_frame(call.number, error)
        except asyncio.CancelledError:
            answer = failed_frame(call.number, Unavailable("the call was cancelled"))
        except StoreError as error:
            _logger.warning("a call of node %s failed: %s: %s", self.peer, call.service, error)
            answer = failed_frame(call.number, Unavailable(f"the other node cannot do that now, try again: {error}"))
        except Exception:
            _logger.exception("a call of node %s failed: %s", self.peer, call.service)
            answer = failed_frame(call.number, Unavailable("the other node met an error; its log says more"))
        if not self._is_down:
            self._send(answer)

    # --- the stream ---------------------------------------------------------------------------------------------------

    def _send(self, frame: Frame) -> None:
        data = encode_frame(frame)
        self._outgoing.append(data)
        self._outgoing_bytes += len(data)
        if not self._is_flush_due:
            self._is_flush_due = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Send what was collected in this turn of the loop, or have it wait where the other side does not keep up."""
        self._is_flush_due = False
        if self._must_wait.is_set() or self._is_down:
            return
        if self._outgoing_bytes <= _MESSAGE_BYTES and self._stream.send(b"".join(self._outgoing)):
            self._outgoing.clear()
            self._outgoing_bytes = 0
        else:
            self._must_wait.set()

    async def _write_for_ever(self) -> None:
        while True:
            await self._must_wait.wait()
            while self._outgoing:
                frames, self._outgoing = self._outgoing, []
                for piece in _pieces(frames):
                    await self._stream.write(piece)
                    self._outgoing_bytes -= len(piece)
            self._must_wait.clear()

    async def _carry(self, reader: FrameReader) -> None:
        def take(data: bytes) -> None:
            for frame in reader.feed(data):
                if self._is_down:
                    return
                self._take(frame)

        take(b"")
        await self._stream.carry(take)

    def _end(self) -> None:
        self._is_down = True
        for waiting in self._waiting.values():
            if not waiting.future.done():
                waiting.future.set_exception(
                    LinkLost(f"the connection to node {self.peer} broke; the call may have been carried out")
                )
        for serving in self._serving.values():
            serving.cancel()


def _pieces(frames: list[bytes]) -> list[bytes]:
    """Put small frames together, and cut large ones."""
    data = b"".join(frames)
    return [data[start : start + _MESSAGE_BYTES] for start in range(0, len(data), _MESSAGE_BYTES)]
