"""Alarms: wakes runs when something of theirs is due.

A heap over a near horizon, refilled from the store's index of alarms. The horizon moves before the refill reads, and
alarms below it that come with commits go straight into the heap, so none falls between. An alarm may be early: the run
finds nothing due and says when it wants to be woken next. It is never late.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections.abc import Awaitable, Callable, Container
from typing import Final

from perdure.server.core.errors import DataLoss, Refusal, ServerError
from perdure.server.core.records import WorkflowKey
from perdure.server.core.shards import shard_of
from perdure.server.engine.background import run_for_ever
from perdure.server.engine.clock import Clock
from perdure.server.engine.cluster.ownership import Elsewhere
from perdure.server.engine.settings import EngineSettings
from perdure.server.store.interface import Store, StoreError

_logger = logging.getLogger(__name__)

_NANOS: Final = 1_000_000_000
_RETRY_NANOS: Final = 1 * _NANOS

Ring = Callable[[WorkflowKey, str], Awaitable[object]]


class Alarms:
    """The alarms of this node.

    Args:
        store: Where the index of alarms is.
        clock: The wall clock.
        settings: Horizon and limits.
        ring: What is done for a run that is due.
    """

    def __init__(self, store: Store, clock: Clock, settings: EngineSettings, ring: Ring) -> None:
        self._store = store
        self._clock = clock
        self._ring = ring
        self._span = int(settings.alarm_horizon_seconds * _NANOS)
        self._page = settings.alarms_in_memory
        self._places = asyncio.Semaphore(settings.alarms_at_once)
        self._heap: list[tuple[int, WorkflowKey, str]] = []
        self._armed: dict[str, int] = {}
        """Run id to when it wants to be woken; an entry of the heap with another time is void."""
        self._horizon = 0
        self._refill_at = 0
        self._releases = 0
        self._look_again = False
        self._wake = asyncio.Event()
        self._refill_wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._ringing: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Read what is due soon, and begin to wake runs."""
        await self._refill()
        self._tasks.append(run_for_ever(self._ring_for_ever(), "alarms"))
        self._tasks.append(run_for_ever(self._refill_for_ever(), "refill of alarms"))

    async def stop(self) -> None:
        """Stop waking; what is being worked on is let finish."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*self._ringing, return_exceptions=True)

    def set(self, key: WorkflowKey, run_id: str, due: int | None, *, is_stored: bool) -> None:
        """Wake a run at `due`, not when it said before.

        Args:
            key: The workflow.
            run_id: Its run.
            due: When, in nanoseconds since the epoch; None for not at all.
            is_stored: Whether the index of alarms has one as early: then one beyond the horizon will be found there.
        """
        if due is None or (is_stored and due >= self._horizon):
            self._armed.pop(run_id, None)
            return
        if self._armed.get(run_id) == due:
            return
        self._armed[run_id] = due
        heapq.heappush(self._heap, (due, key, run_id))
        if self._heap[0][2] == run_id:
            self._wake.set()

    def look_again(self) -> None:
        """Read the index at once: this node has come to own more of it. What is being read now may not show it."""
        self._look_again = True
        self._refill_at = 0
        self._refill_wake.set()

    def release(self, shards: Container[int]) -> None:
        """Forget the alarms of shards that are another node's from now on: it may set earlier ones."""
        self._releases += 1
        for _, key, run_id in self._heap:
            if run_id in self._armed and shard_of(key) in shards:
                del self._armed[run_id]

    def forget_everything(self) -> None:
        """Forget all alarms; those that are still this node's are in the index."""
        self._armed.clear()
        self._heap.clear()

    async def _ring_for_ever(self) -> None:
        while True:
            await self._ring_due(self._clock.now())
            self._drop_void()
            if not self._heap:
                await self._wake.wait()
                self._wake.clear()
            elif (delay := (self._heap[0][0] - self._clock.now()) / _NANOS) > 0:
                await self._sleep(delay)

    async def _sleep(self, seconds: float) -> None:
        """Wait for the next alarm, or until an earlier one is set."""
        timer = asyncio.get_running_loop().call_later(seconds, self._wake.set)
        try:
            await self._wake.wait()
            self._wake.clear()
        finally:
            timer.cancel()

    async def _ring_due(self, now: int) -> None:
        while self._heap and self._heap[0][0] <= now:
            due, key, run_id = heapq.heappop(self._heap)
            if self._armed.get(run_id) != due:
                continue
            del self._armed[run_id]
            await self._places.acquire()
            task = asyncio.create_task(self._ring_one(key, run_id), name=f"alarm of {run_id}")
            self._ringing.add(task)
            task.add_done_callback(self._rung)

    def _drop_void(self) -> None:
        """Drop the void entries at the head: to wake up for them would be for nothing."""
        heap, armed = self._heap, self._armed
        while heap and armed.get(heap[0][2]) != heap[0][0]:
            heapq.heappop(heap)

    def _rung(self, task: asyncio.Task[None]) -> None:
        self._ringing.discard(task)
        self._places.release()

    async def _ring_one(self, key: WorkflowKey, run_id: str) -> None:
        try:
            await self._ring(key, run_id)
        except (Refusal, Elsewhere):
            # The run is gone, or another node's: an alarm for nobody here.
            return
        except DataLoss:
            # Nobody can tell what is due; the index brings it back with the next look, should the rows be mended.
            return
        except (ServerError, StoreError) as error:
            _logger.warning(
                "an alarm could not be handled, trying again: %s",
                error,
                extra={"namespace_id": key.namespace_id, "workflow_id": key.workflow_id, "run_id": run_id},
            )
            self.set(key, run_id, self._clock.now() + _RETRY_NANOS, is_stored=False)

    async def _refill_for_ever(self) -> None:
        """Look into the index again and again, beside the ringing: a slow look makes no alarm in memory late."""
        while True:
            delay = (self._refill_at - self._clock.now()) / _NANOS
            if delay > 0:
                await self._sleep_until_refill(delay)
                # The wall clock may have been set meanwhile: what is due is looked up anew.
                self._wake.set()
            else:
                await self._refill_or_wait()

    async def _sleep_until_refill(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._refill_wake.wait()
        except TimeoutError:
            return
        self._refill_wake.clear()

    async def _refill_or_wait(self) -> None:
        try:
            await self._refill()
        except StoreError as error:
            _logger.warning("the index of alarms cannot be read, trying again: %s", error)
            self._refill_at = self._clock.now() + _RETRY_NANOS

    async def _refill(self) -> None:
        """Read the alarms of the next span; where there are too many, the horizon ends with the last one read."""
        self._look_again = False
        began_at = self._clock.now()
        horizon = self._horizon = began_at + self._span
        releases = self._releases
        rows = await self._store.due_alarms(horizon, self._page)
        if releases != self._releases:
            # Some of them are another node's by now, and must not be taken for what is known here.
            self._refill_at = 0
            return
        for row in rows:
            if row.run_id in self._armed and (len(rows) < self._page or row.alarm_at > began_at):
                # Memory knows better: a stored alarm may be early. But one that is over is rung all the same where the
                # page is full: ringing raises it in the index, else those behind it would never be read.
                continue
            self.set(WorkflowKey(row.namespace_id, row.workflow_id), row.run_id, row.alarm_at, is_stored=True)
        if len(rows) == self._page:
            horizon = rows[-1].alarm_at
        # Read again well before the horizon is reached, or at once when that many are due now.
        now = self._clock.now()
        self._refill_at = 0 if self._look_again else now + max(0, horizon - now) // 2 + _RETRY_NANOS // 100
