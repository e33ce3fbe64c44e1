"""Performs effects once their transitions are durable: offers tasks, sets alarms, wakes waiters, answers queries.

Effects are hints about stored state; performing one must never fail and never wait. What it starts is owned here.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import assert_never

from perdure.server.core.effects import (
    ActivityTaskReady,
    AlarmSet,
    Effect,
    HistoryAdvanced,
    HistoryGrowsLarge,
    MessageSent,
    MessageWithdrawn,
    QueryAnswered,
    QueryReady,
    WorkflowTaskReady,
)
from perdure.server.core.errors import ServerError
from perdure.server.core.inputs import StickyWorkerGone
from perdure.server.core.records import WorkflowKey
from perdure.server.engine.alarms import Alarms
from perdure.server.engine.background import Background
from perdure.server.engine.matching import Matcher, Offer, QueueKey, QueueKind
from perdure.server.engine.outbox import Outbox, Pair
from perdure.server.engine.query_board import QueryBoard
from perdure.server.engine.waiters import Waiters
from perdure.server.store.interface import StoreError

_logger = logging.getLogger(__name__)

Submit = Callable[[WorkflowKey, StickyWorkerGone], Awaitable[object]]


class Publisher:
    """Brings effects to those they concern."""

    def __init__(
        self,
        matcher: Matcher,
        alarms: Alarms,
        outbox: Outbox,
        waiters: Waiters,
        queries: QueryBoard,
        background: Background,
        submit: Submit,
    ) -> None:
        self._matcher = matcher
        self._alarms = alarms
        self._outbox = outbox
        self._waiters = waiters
        self._queries = queries
        self._background = background
        self._submit = submit

    def publish(self, effects: Sequence[Effect]) -> None:
        """Perform effects, in order. One that fails is a bug of ours; it is logged and takes no other with it."""
        for effect in effects:
            try:
                self._perform(effect)
            except Exception:
                _logger.exception("an effect failed: %r", effect)

    def _perform(self, effect: Effect) -> None:
        # The most frequent first: the cases are tried one after the other.
        match effect:
            case AlarmSet():
                self._alarms.set(effect.key, effect.run_id, effect.due, is_stored=effect.is_stored)
            case HistoryAdvanced():
                self._waiters.wake(effect.run_id)
            case WorkflowTaskReady():
                self._offer_workflow_task(effect)
            case ActivityTaskReady():
                queue = QueueKey(effect.key.namespace_id, effect.task_queue, QueueKind.ACTIVITY)
                name = Offer(effect.key.workflow_id, effect.run_id, effect.scheduled_event_id, "", effect.ready_at)
                self._matcher.offer(queue, name)
            case QueryReady():
                self._offer_query(effect)
            case QueryAnswered():
                self._queries.answered(effect)
            case HistoryGrowsLarge():
                _logger.warning(
                    "a history has %d events and %d bytes; continue as new before it is terminated at its limit",
                    effect.events,
                    effect.size_bytes,
                    extra={"workflow_id": effect.key.workflow_id, "run_id": effect.run_id},
                )
            case MessageSent():
                self._outbox.sent(effect.message)
            case MessageWithdrawn():
                self._outbox.withdrawn(Pair(effect.sender_run_id, effect.receiver), effect.number)
            case _:
                assert_never(effect)

    def _offer_workflow_task(self, ready: WorkflowTaskReady) -> None:
        queue = QueueKey(ready.key.namespace_id, ready.task_queue, QueueKind.WORKFLOW)
        if ready.sticky and not self._matcher.has_recent_poller(queue):
            self.give_up_stickiness(ready.key, ready.run_id, ready.task_queue)
            return
        self._matcher.offer(queue, Offer(ready.key.workflow_id, ready.run_id, 0, "", ready.ready_at))

    def _offer_query(self, ready: QueryReady) -> None:
        if not self._queries.is_open(ready.query_id):
            # Its caller has gone while it waited for what it has seen to be durable.
            return
        queue = QueueKey(ready.key.namespace_id, ready.task_queue, QueueKind.WORKFLOW)
        if ready.sticky and not self._matcher.has_recent_poller(queue):
            self.give_up_stickiness(ready.key, ready.run_id, ready.task_queue)
            return
        self._queries.offered(ready.query_id, queue)
        if not self._matcher.offer(queue, Offer(ready.key.workflow_id, ready.run_id, 0, ready.query_id, 0)):
            self._queries.refuse(ready.query_id, f"too many queries wait in task queue {ready.task_queue}")

    def give_up_stickiness(self, key: WorkflowKey, run_id: str, sticky_queue: str) -> None:
        """Have a run's tasks offered in its normal queue: nobody polls the sticky one."""
        self._background.start(self._tell_sticky_worker_gone(key, run_id, sticky_queue), f"stickiness of {run_id}")

    async def _tell_sticky_worker_gone(self, key: WorkflowKey, run_id: str, sticky_queue: str) -> None:
        try:
            await self._submit(key, StickyWorkerGone(run_id, sticky_queue))
        except (ServerError, StoreError) as error:
            # The sticky queue's own timeout brings the task into the normal queue.
            _logger.info("a sticky task waits for its timeout: %s", error, extra={"run_id": run_id})
