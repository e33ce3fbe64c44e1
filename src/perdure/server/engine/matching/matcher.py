"""The matcher: brings offers and polls together, in memory, on one node.

`task_queue.py` decides; this module does: it lets polls wait, reads the index of ready tasks, and forgets what nobody
uses. All of it is soft state. Whoever is given an offer asks the owner of the run and then tells the matcher, exactly
once, what became of it:

- `started`: the owner started the task (or handed out the query), and the poll's reply is on its way;
- `stale`: the owner says there is no such task (any more), and the poll goes on;
- `give_back`: nobody got it, and it may still be there.

A poll costs one future, and neither a timer nor a task. An idle matcher does nothing but look through its queues twice
a minute. It must never write to the store, and never hold up a commit: `offer` returns at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Protocol

import msgspec

from perdure.server.core.errors import ResourceExhausted
from perdure.server.engine.background import run_for_ever
from perdure.server.engine.matching.loaded_queue import LoadedQueue, ParkedPoll, Visit
from perdure.server.engine.matching.neighbours import Neighbours
from perdure.server.engine.matching.poller_history import Poller, PollerInfo
from perdure.server.engine.matching.settings import MatcherSettings
from perdure.server.engine.matching.task_queue import Handover, Offer, QueueKey, QueueKind
from perdure.server.store.interface import Backlog, ReadyTask, StoreError

STICKY_WORKER_GONE_SECONDS = 10.0
"""Temporal takes a sticky worker for gone when its queue was not polled for so long."""

_logger = logging.getLogger(__name__)


class Clock(Protocol):
    """What this module needs of a clock."""

    def now(self) -> int:
        """Return the time in nanoseconds since the epoch."""


class ReadyTaskIndex(Protocol):
    """What this module needs of a store; see `store/interface.py`."""

    async def ready_workflow_tasks(self, namespace_id: str, task_queue: str, limit: int) -> list[ReadyTask]:
        """Return the head of the index of ready workflow tasks in a queue."""

    async def ready_activity_tasks(self, namespace_id: str, task_queue: str, now: int, limit: int) -> list[ReadyTask]:
        """Return the head of the index of activities in a queue that are ready by `now`."""

    async def workflow_task_backlog(self, namespace_id: str, task_queue: str) -> Backlog:
        """Count the ready workflow tasks of a queue."""

    async def activity_task_backlog(self, namespace_id: str, task_queue: str, now: int) -> Backlog:
        """Count the activities of a queue that are ready by `now`."""


class BacklogStats(msgspec.Struct, array_like=True, frozen=True):
    """What DescribeTaskQueue tells of a queue, also to other nodes. The rates leave queries out."""

    approximate_backlog_count: int
    approximate_backlog_age_seconds: float
    tasks_add_rate: float
    tasks_dispatch_rate: float


class Matcher:
    """All task queues of this node.

    Args:
        store: Where the index of ready tasks is read.
        clock: The wall clock, for what people see and for which activities are due. All waiting is in loop time.
        settings: Limits and times.
        neighbours: The other nodes; None where there are none.
    """

    def __init__(
        self,
        store: ReadyTaskIndex,
        clock: Clock,
        settings: MatcherSettings | None = None,
        neighbours: Neighbours | None = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._neighbours = neighbours
        self._settings = settings or MatcherSettings()
        self._queues: dict[QueueKey, LoadedQueue] = {}
        self._refills_due: asyncio.Queue[LoadedQueue] = asyncio.Queue()
        self._shut_down_workers: OrderedDict[tuple[str, str], float] = OrderedDict()
        self._tasks: list[asyncio.Task[None]] = []
        self._stopped = False
        self._loop: asyncio.AbstractEventLoop | None = None

    async def start(self) -> None:
        """Begin to read the index for queues that need it. Offers and polls before this call wait for it."""
        assert not self._tasks and not self._stopped, "a matcher is started once"
        for _ in range(self._settings.concurrent_refills):
            self._tasks.append(run_for_ever(self._refill_for_ever(), "matcher refill"))
        self._tasks.append(run_for_ever(self._look_through_for_ever(), "matcher look-through"))

    async def stop(self) -> None:
        """End all parked polls empty, and every later poll at once, and stop reading."""
        self._stopped = True
        for loaded in self._queues.values():
            loaded.unwatch()
            for poll in loaded.tasks.parked:
                poll.end_empty()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- offers ---------------------------------------------------------------------------------------------------

    def offer(self, key: QueueKey, offer: Offer) -> bool:
        """Hand an offer to a parked poll, or hold it, or leave it on disk where it is.

        A task must be durable before it is offered.

        Returns:
            False for a query that is refused because too many wait already; True in all other cases.
        """
        loaded = self._queues.get(key)
        if loaded is None:
            if not offer.query_id and len(self._queues) >= self._settings.max_unpolled_queues:
                return True
            loaded = self._load(key)
        if not offer.query_id:
            loaded.added.count(self._loop_time())
            self._hand_over(loaded.tasks.add(offer))
        elif loaded.tasks.has_room_for_query():
            self._hand_over(loaded.tasks.add_query(offer))
        else:
            return False
        self._report(loaded)
        return True

    def withdraw_query(self, key: QueueKey, query_id: str) -> None:
        """Forget a query whose caller has gone or has its answer."""
        loaded = self._queues.get(key)
        if loaded is not None:
            loaded.tasks.withdraw_query(query_id)

    def started(self, key: QueueKey, offer: Offer) -> None:
        """Note that the owner started the task of an offer that a poll was given."""
        loaded = self._queues.get(key)
        if loaded is None:
            return
        now = self._loop_time()
        if not offer.query_id:
            loaded.dispatched.count(now)
        self._hand_over(loaded.tasks.done(offer, now))
        self._report(loaded)

    def stale(self, key: QueueKey, offer: Offer) -> None:
        """Note that the owner had no such task as a poll was given."""
        loaded = self._queues.get(key)
        if loaded is not None:
            self._hand_over(loaded.tasks.done(offer, self._loop_time()))
            self._report(loaded)

    def give_back(self, key: QueueKey, offer: Offer) -> None:
        """Take an offer back that a poll was given but nobody got: the next poll gets it."""
        loaded = self._queues.get(key)
        if loaded is not None:
            self._hand_over(loaded.tasks.give_back(offer))
            self._report(loaded)

    def offers(self, key: QueueKey) -> list[Offer]:
        """Return the task offers held for a queue, as when they have to go to another one."""
        loaded = self._queues.get(key)
        return loaded.tasks.held() if loaded is not None else []

    # --- polls ----------------------------------------------------------------------------------------------------

    async def poll(self, key: QueueKey, poller: Poller, deadline: float) -> Offer | Visit | None:
        """Wait for an offer. A poll that is cancelled loses none: what it was given goes to the next one.

        Args:
            key: The queue.
            poller: Who polls.
            deadline: The loop time at which the poll ends empty.

        Returns:
            The offer, or which other node has tasks, or None at the deadline, when the worker was shut down, or when
            the matcher stops. Who makes the visit tells the neighbours how it ended.

        Raises:
            ResourceExhausted: Too many polls are parked in this queue.
        """
        now = self._loop_time()
        if self._stopped or self._is_shut_down(key.namespace_id, poller.worker_instance_key, now):
            return None
        loaded = self._queues.get(key) or self._load(key)
        loaded.last_poll_at = now
        loaded.sticky = poller.sticky
        loaded.pollers.see(poller, now, self._clock.now())
        if self._neighbours is not None:
            self._neighbours.polled(key, is_sticky=poller.sticky)
            node = self._neighbours.source(key, has_local=loaded.tasks.offer_count > 0)
            if node is not None:
                self._refill_soon(loaded)
                return Visit(node)
        offer = loaded.tasks.take()
        self._refill_soon(loaded)
        if offer is not None or deadline <= now:
            return offer
        return await self._park(loaded, poller, deadline)

    def take(self, key: QueueKey) -> Offer | None:
        """Return an offer for a poll that another node has sent over, None where there is none now."""
        loaded = self._queues.get(key)
        if loaded is None:
            return None
        offer = loaded.tasks.take()
        self._refill_soon(loaded)
        return offer

    def has_recent_poller(self, key: QueueKey) -> bool:
        """Return whether the queue was polled lately, on this node or on another one."""
        if self.has_recent_local_poller(key):
            return True
        return self._neighbours is not None and self._neighbours.polls(key)

    def has_recent_local_poller(self, key: QueueKey, within_seconds: float = STICKY_WORKER_GONE_SECONDS) -> bool:
        """Return whether a poll of the queue is parked, or one began or ended in the last `within_seconds`."""
        loaded = self._queues.get(key)
        if loaded is None:
            return False
        return loaded.tasks.parked_count > 0 or loaded.pollers.seen_since(self._loop_time() - within_seconds)

    def shutdown_worker(
        self,
        namespace_id: str,
        worker_instance_key: str,
        *,
        task_queue: str = "",
        kinds: Iterable[QueueKind] = QueueKind,
        sticky_queue: str = "",
    ) -> int:
        """End a worker's parked polls empty, and its later ones at once, and forget that it polled.

        The server's part of ShutdownWorker: the worker is stopping, and must not be given what it will not do.

        Args:
            namespace_id: Where the worker polls.
            worker_instance_key: The worker; empty where its SDK sends none, then only its sticky queue is known.
            task_queue: The queue it polls; empty where its SDK does not say.
            kinds: The kinds of tasks it polls there, all by default.
            sticky_queue: The sticky queue, which only this worker polls; empty where it has none.

        Returns:
            How many parked polls were ended.
        """
        ended = 0
        sticky = self._queues.get(QueueKey(namespace_id, sticky_queue, QueueKind.WORKFLOW))
        if sticky is not None:
            sticky.pollers.forget_all()
            ended += _end_polls(sticky, lambda _: True)
        if not worker_instance_key:
            return ended
        self._remember_shutdown(namespace_id, worker_instance_key)
        for kind in kinds:
            loaded = self._queues.get(QueueKey(namespace_id, task_queue, kind))
            if loaded is not None:
                loaded.pollers.forget_worker(worker_instance_key)
                ended += _end_polls(loaded, lambda poller: poller.worker_instance_key == worker_instance_key)
        return ended

    # --- other nodes ------------------------------------------------------------------------------------------------

    def look_for_tasks(self, key: QueueKey, *, is_sticky: bool) -> None:
        """See whether there are tasks of this node's shards in a queue that another node polls."""
        loaded = self._queues.get(key) or self._load(key)
        loaded.sticky = is_sticky
        self._refill_soon(loaded)
        self._report(loaded)

    def look_everywhere(self) -> None:
        """Compare every polled queue with the index at once: this node has come to own more of it."""
        for loaded in self._queues.values():
            loaded.tasks.begin_anew()
            if self._is_polled(loaded, self._loop_time()):
                self._refill_soon(loaded)

    def send_over(self, key: QueueKey, node: str) -> bool:
        """Have the poll that waits longest visit a node; return False where none waits."""
        loaded = self._queues.get(key)
        poll = loaded.tasks.release() if loaded is not None else None
        if poll is None:
            return False
        poll.future.set_result(Visit(node))
        return True

    def offer_count(self, key: QueueKey) -> int:
        """Return how many offers for a queue are held."""
        loaded = self._queues.get(key)
        return loaded.tasks.offer_count if loaded is not None else 0

    # --- what people see ------------------------------------------------------------------------------------------

    def pollers(self, key: QueueKey) -> list[PollerInfo]:
        """Return who polled the queue in the last minutes, one entry per identity, the latest first."""
        loaded = self._queues.get(key)
        return loaded.pollers.infos(self._loop_time()) if loaded is not None else []

    async def backlog(self, key: QueueKey) -> BacklogStats:
        """Return how many tasks wait in the queue, since when, and how fast they come and go.

        A short backlog is exact but for what has just moved. In a long one a task that a worker has and whose start is
        not written yet is counted too.
        """
        loaded = self._queues.get(key)
        limit = self._settings.refill_offers
        rows = await self._ready_tasks(key, limit)
        waiting = _waiting(rows, loaded)
        count = len(waiting)
        if len(rows) >= limit:
            count = (await self._count_in_store(key)).count
        age = self._clock.now() - waiting[0].ready_at if waiting else 0
        now = self._loop_time()
        return BacklogStats(
            count,
            max(age, 0) / 1e9,
            loaded.added.per_second(now) if loaded is not None else 0.0,
            loaded.dispatched.per_second(now) if loaded is not None else 0.0,
        )

    # --- within ---------------------------------------------------------------------------------------------------

    def _loop_time(self) -> float:
        """Return the loop's time. The loop is looked up once: a look-up costs a system call in CPython 3.11."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        return self._loop.time()

    def _load(self, key: QueueKey) -> LoadedQueue:
        loaded = self._queues[key] = LoadedQueue(key, self._settings, self._loop_time())
        return loaded

    def _report(self, loaded: LoadedQueue) -> None:
        """Tell the neighbours of offers that no poll waits for here, or see whether there are more on the disk."""
        if self._neighbours is None:
            return
        count = loaded.tasks.offer_count
        if count:
            self._neighbours.left_over(loaded.key, count)
        elif self._neighbours.polls(loaded.key):
            self._refill_soon(loaded)

    def _hand_over(self, handover: Handover[ParkedPoll] | None) -> None:
        if handover is not None:
            handover.poll.future.set_result(handover.offer)

    async def _park(self, loaded: LoadedQueue, poller: Poller, deadline: float) -> Offer | Visit | None:
        assert self._loop is not None, "the time of the poll was looked up"
        if loaded.tasks.parked_count >= self._settings.max_parked_polls:
            raise ResourceExhausted(
                f"task queue {loaded.key.name} has {self._settings.max_parked_polls} waiting polls, "
                "as many as it may have: run fewer pollers per worker"
            )
        poll = ParkedPoll(poller, deadline, self._loop.create_future())
        loaded.tasks.park(poll)
        loaded.watch(deadline, self._loop)
        try:
            offer = await poll.future
        except asyncio.CancelledError:
            # The cancel may have come in the same tick as an offer.
            if poll.future.done() and not poll.future.cancelled():
                self._pass_on(loaded.key, poll.future.result())
            raise
        finally:
            loaded.tasks.unpark(poll)
        if not poll.worker_gone:
            loaded.last_poll_at = self._loop.time()
            loaded.pollers.see(poller, loaded.last_poll_at, self._clock.now())
        return offer

    def _pass_on(self, key: QueueKey, given: Offer | Visit | None) -> None:
        """Give what a poll got that has gone to the next one."""
        if isinstance(given, Offer):
            self.give_back(key, given)
        elif given is not None and self._neighbours is not None:
            self._neighbours.stays(key, given.node)

    def _is_shut_down(self, namespace_id: str, worker_instance_key: str, now: float) -> bool:
        if not self._shut_down_workers or not worker_instance_key:
            return False
        return self._shut_down_workers.get((namespace_id, worker_instance_key), now) > now

    def _remember_shutdown(self, namespace_id: str, worker_instance_key: str) -> None:
        worker = (namespace_id, worker_instance_key)
        self._shut_down_workers[worker] = self._loop_time() + self._settings.worker_shutdown_seconds
        self._shut_down_workers.move_to_end(worker)
        if len(self._shut_down_workers) > self._settings.max_shut_down_workers:
            self._shut_down_workers.popitem(last=False)

    def _refill_soon(self, loaded: LoadedQueue) -> None:
        if loaded.tasks.refill_due():
            self._refills_due.put_nowait(loaded)

    async def _refill_for_ever(self) -> None:
        while True:
            loaded = await self._refills_due.get()
            try:
                await self._refill(loaded)
                continue
            except StoreError as error:
                _logger.warning("cannot read the ready tasks of %s, trying again: %s", loaded.key, error)
            except Exception:
                _logger.exception("reading the ready tasks of %s failed, trying again", loaded.key)
            await asyncio.sleep(self._settings.refill_retry_seconds)
            self._refills_due.put_nowait(loaded)

    async def _refill(self, loaded: LoadedQueue) -> None:
        limit = loaded.tasks.begin_refill(self._loop_time())
        rows = await self._ready_tasks(loaded.key, limit)
        for handover in loaded.tasks.end_refill(map(_offer_of, rows), limit):
            self._hand_over(handover)
        if loaded.tasks.parked_count:
            self._refill_soon(loaded)
        self._report(loaded)

    async def _ready_tasks(self, key: QueueKey, limit: int) -> list[ReadyTask]:
        if key.kind is QueueKind.NEXUS:
            # Nexus tasks are answered while their caller waits: they are never stored.
            return []
        if key.kind is QueueKind.WORKFLOW:
            return await self._store.ready_workflow_tasks(key.namespace_id, key.name, limit)
        return await self._store.ready_activity_tasks(key.namespace_id, key.name, self._clock.now(), limit)

    async def _count_in_store(self, key: QueueKey) -> Backlog:
        if key.kind is QueueKind.WORKFLOW:
            return await self._store.workflow_task_backlog(key.namespace_id, key.name)
        return await self._store.activity_task_backlog(key.namespace_id, key.name, self._clock.now())

    async def _look_through_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._settings.rescan_seconds)
            self._look_through(self._loop_time())

    def _look_through(self, now: float) -> None:
        """Have every polled queue compared with the index, and forget queues that nobody uses.

        A sticky queue needs no such net: its tasks go to the normal queue after seconds.
        """
        for loaded in list(self._queues.values()):
            loaded.pollers.forget_old(now)
            is_polled = self._is_polled(loaded, now)
            unpolled_seconds = now - loaded.last_poll_at
            if not is_polled and unpolled_seconds >= self._settings.idle_queue_seconds and loaded.tasks.is_idle():
                loaded.unwatch()
                del self._queues[loaded.key]
            elif is_polled and not loaded.sticky:
                loaded.tasks.doubt()
                self._refill_soon(loaded)

    def _is_polled(self, loaded: LoadedQueue, now: float) -> bool:
        if loaded.tasks.parked_count or now - loaded.last_poll_at < self._settings.rescan_seconds:
            return True
        return self._neighbours is not None and self._neighbours.polls(loaded.key)


def _offer_of(row: ReadyTask) -> Offer:
    return Offer(row.workflow_id, row.run_id, row.scheduled_event_id, "", row.ready_at)


def _end_polls(loaded: LoadedQueue, of_whom: Callable[[Poller], bool]) -> int:
    polls = [poll for poll in loaded.tasks.parked if poll.waiting() and of_whom(poll.poller)]
    for poll in polls:
        poll.worker_gone = True
        poll.end_empty()
        loaded.tasks.unpark(poll)
    return len(polls)


def _waiting(rows: list[ReadyTask], loaded: LoadedQueue | None) -> list[ReadyTask]:
    if loaded is None:
        return rows
    return [row for row in rows if not loaded.tasks.is_under_way(row.run_id, row.scheduled_event_id)]
