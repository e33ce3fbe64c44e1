"""A small world for tests of the matcher: an index of ready tasks, a running matcher, and polls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from perdure.server.engine.matching import Matcher, MatcherSettings, Offer, Poller, QueueKey, QueueKind, Visit
from perdure.server.store.interface import Backlog, ReadyTask, StoreUnavailable
from tests.virtual_time import EPOCH_NS, VirtualClock, settle

WORKFLOWS = QueueKey("namespace", "orders", QueueKind.WORKFLOW)
ACTIVITIES = QueueKey("namespace", "orders", QueueKind.ACTIVITY)
STICKY = QueueKey("namespace", "sticky-1", QueueKind.WORKFLOW)
WORKER = Poller("worker@host", worker_instance_key="instance-1")
STICKY_WORKER = msgspec.structs.replace(WORKER, sticky=True)


class FakeIndex:
    """The index of ready tasks, in a dictionary; a read takes `read_seconds`."""

    def __init__(self) -> None:
        self.tasks: dict[QueueKey, list[Offer]] = {}
        self.read_seconds = 0.0
        self.failures = 0
        self.reads: list[tuple[QueueKey, int]] = []
        self.reading = 0
        self.most_reading = 0

    def commit(self, key: QueueKey, *offers: Offer) -> None:
        self.tasks.setdefault(key, []).extend(offers)

    def remove(self, key: QueueKey, offer: Offer) -> None:
        self.tasks[key].remove(offer)

    async def ready_workflow_tasks(self, namespace_id: str, task_queue: str, limit: int) -> list[ReadyTask]:
        return await self._read(QueueKey(namespace_id, task_queue, QueueKind.WORKFLOW), limit, None)

    async def ready_activity_tasks(self, namespace_id: str, task_queue: str, now: int, limit: int) -> list[ReadyTask]:
        return await self._read(QueueKey(namespace_id, task_queue, QueueKind.ACTIVITY), limit, now)

    async def workflow_task_backlog(self, namespace_id: str, task_queue: str) -> Backlog:
        return self._count(QueueKey(namespace_id, task_queue, QueueKind.WORKFLOW))

    async def activity_task_backlog(self, namespace_id: str, task_queue: str, now: int) -> Backlog:
        return self._count(QueueKey(namespace_id, task_queue, QueueKind.ACTIVITY))

    async def _read(self, key: QueueKey, limit: int, now: int | None) -> list[ReadyTask]:
        self.reads.append((key, limit))
        tasks = [task for task in self.tasks.get(key, []) if now is None or task.ready_at <= now]
        self.reading += 1
        self.most_reading = max(self.most_reading, self.reading)
        await asyncio.sleep(self.read_seconds)
        self.reading -= 1
        if self.failures:
            self.failures -= 1
            raise StoreUnavailable("the database is away")
        return [
            ReadyTask(key.namespace_id, task.workflow_id, task.run_id, task.scheduled_event_id, task.ready_at)
            for task in tasks[:limit]
        ]

    def _count(self, key: QueueKey) -> Backlog:
        tasks = self.tasks.get(key, [])
        return Backlog(len(tasks), tasks[0].ready_at if tasks else None)


class FakePoll:
    """A poll that waits until a test says otherwise."""

    def __init__(self) -> None:
        self.gone = False

    def waiting(self) -> bool:
        return not self.gone


@asynccontextmanager
async def running(index: FakeIndex | None = None, settings: MatcherSettings | None = None) -> AsyncIterator[Matcher]:
    matcher = Matcher(index or FakeIndex(), VirtualClock(), settings)
    await matcher.start()
    try:
        yield matcher
    finally:
        await matcher.stop()


def task(number: int, scheduled_event_id: int = 0, ready_at: int = EPOCH_NS) -> Offer:
    return Offer(f"w{number}", f"r{number}", scheduled_event_id, "", ready_at)


def query(number: int) -> Offer:
    return Offer("w", "r", 0, f"q{number}", EPOCH_NS)


def after(seconds: float) -> float:
    return asyncio.get_running_loop().time() + seconds


def start_poll(
    matcher: Matcher, key: QueueKey = WORKFLOWS, poller: Poller = WORKER, seconds: float = 60
) -> asyncio.Task[Offer | None]:
    return asyncio.create_task(poll_once(matcher, key, poller, after(seconds)))


async def poll_once(matcher: Matcher, key: QueueKey, poller: Poller, deadline: float) -> Offer | None:
    """Poll where there is no other node."""
    offer = await matcher.poll(key, poller, deadline)
    assert not isinstance(offer, Visit)
    return offer


async def parked_poll(
    matcher: Matcher, key: QueueKey = WORKFLOWS, poller: Poller = WORKER, seconds: float = 60
) -> asyncio.Task[Offer | None]:
    parked = start_poll(matcher, key, poller, seconds)
    await settle()
    assert not parked.done()
    return parked


async def warm_up(matcher: Matcher, key: QueueKey = WORKFLOWS) -> None:
    """Poll once, so that the queue has read the index."""
    assert await matcher.poll(key, WORKER, after(0.001)) is None
