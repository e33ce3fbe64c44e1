"""A task queue in memory with its waiting polls, and what is known around it. Must never look at another queue."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from perdure.server.engine.matching.poller_history import Poller, PollerHistory
from perdure.server.engine.matching.settings import MatcherSettings
from perdure.server.engine.matching.task_queue import Offer, QueueKey, TaskQueue
from perdure.server.engine.matching.task_rate import TaskRate


class Visit(NamedTuple):
    """What a poll is given instead of an offer: go to this node, which has tasks for it."""

    node: str


class ParkedPoll:
    """A poll that waits; its future is resolved with None where it gets nothing."""

    __slots__ = ("deadline", "future", "poller", "worker_gone")

    def __init__(self, poller: Poller, deadline: float, future: asyncio.Future[Offer | Visit | None]) -> None:
        self.poller = poller
        self.deadline = deadline
        self.future = future
        self.worker_gone = False

    def waiting(self) -> bool:
        """Return whether it still waits."""
        return not self.future.done()

    def end_empty(self) -> None:
        """Let it have nothing, unless it has something."""
        if not self.future.done():
            self.future.set_result(None)


class LoadedQueue:
    """A queue in memory with what is known around it."""

    __slots__ = ("added", "alarm", "alarm_at", "dispatched", "key", "last_poll_at", "pollers", "sticky", "tasks")

    def __init__(self, key: QueueKey, settings: MatcherSettings, now: float) -> None:
        self.key = key
        self.tasks: TaskQueue[ParkedPoll] = TaskQueue(
            window_offers=settings.window_offers,
            refill_offers=settings.refill_offers,
            max_queries=settings.max_queries,
            answered_seconds=settings.answered_seconds,
            max_answered=settings.max_answered,
        )
        self.pollers = PollerHistory(seconds=settings.poller_history_seconds, limit=settings.max_pollers_shown)
        self.added = TaskRate(now)
        self.dispatched = TaskRate(now)
        self.last_poll_at = now
        self.sticky = False
        self.alarm: asyncio.TimerHandle | None = None
        self.alarm_at = 0.0

    def watch(self, deadline: float, loop: asyncio.AbstractEventLoop) -> None:
        """Have parked polls end at their deadline: one timer for all, at the first one it was told of."""
        if self.alarm is not None:
            if self.alarm_at <= deadline:
                return
            self.alarm.cancel()
        self.alarm_at = deadline
        self.alarm = loop.call_at(deadline, self._end_overdue, loop)

    def unwatch(self) -> None:
        """Stop the timer."""
        if self.alarm is not None:
            self.alarm.cancel()
            self.alarm = None

    def _end_overdue(self, loop: asyncio.AbstractEventLoop) -> None:
        self.alarm = None
        now = loop.time()
        for poll in self.tasks.parked:
            # The timer may have fired a moment early, or for a poll that had an offer long ago.
            if poll.deadline <= now:
                poll.end_empty()
            else:
                self.watch(poll.deadline, loop)
