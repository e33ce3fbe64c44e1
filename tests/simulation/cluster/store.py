"""A node's way to the database: requests travel there, the database acts in its own time, and answers travel back.

So whatever happens to the node meanwhile, the database has acted or it has not: a node that is killed or frozen in the
middle of a commit learns of it later or never. Each request speaks with the claim its node held when it was sent.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Final, TypeVar, cast

import msgspec

from perdure.server.core.records import DiscardedHistory, NamespaceRecord, RunRecord, StoredRun, WorkflowKey
from perdure.server.core.shards import shard_of
from perdure.server.store.interface import (
    Backlog,
    Batch,
    Claim,
    ClosedRun,
    ClusterView,
    CommitUnknown,
    CountGroup,
    DueAlarm,
    ListPosition,
    MessagePosition,
    OutboxPage,
    PairState,
    ReadyTask,
    RunName,
    RunPosition,
    StoredEvent,
    StoreError,
    StoreUnavailable,
)
from perdure.server.store.memory import MemoryDatabase, MemoryStore
from perdure.server.store.memory.store import _taken
from perdure.server.store.visibility.filter import Filter
from tests.simulation.faults import Faults
from tests.simulation.processes import Process

T = TypeVar("T")

_PATIENCE_SECONDS: Final = 4.0
"""After so long without an answer the store gives a call up."""
_HASTY_SECONDS: Final = 1.0
"""The same for what a lease hangs on."""


class _Asked(msgspec.Struct, eq=False):
    """A call that has no answer yet."""

    answer: asyncio.Future[object]
    gives_up_at: float
    lost: type[StoreError]
    """What the node is told where it cannot know whether the database has acted."""


class Road:
    """The network between one node and the database.

    Args:
        rng: Decides on delays and losses.
        start: Runs what the database does.
    """

    def __init__(self, rng: random.Random, start: Callable[[Coroutine[object, object, None]], object]) -> None:
        self._rng = rng
        self._start = start
        # Looking the loop up costs a system call in CPython 3.11.
        self._loop = asyncio.get_running_loop()
        self._asked: dict[_Asked, None] = {}
        self._cut_until = 0.0
        self._is_silent = False

    def cut(self, seconds: float, *, in_silence: bool) -> None:
        """Let nothing through for a while; in silence nobody is told, and what is on its way may arrive after it."""
        self._cut_until = self._loop.time() + seconds
        self._is_silent = in_silence
        for asked in self._asked:
            self._watch(asked)

    def heal(self) -> None:
        """Let everything through."""
        self._cut_until = 0.0

    async def ask(
        self, node: Process, act: Callable[[], Awaitable[T]], lost: type[StoreError], patience_seconds: float
    ) -> T:
        """Have the database act.

        Args:
            node: Who asks.
            act: What it does.
            lost: What the node is told where it cannot know whether it did.
            patience_seconds: How long it waits where there is nothing to be heard.
        """
        if node.is_dead:
            raise StoreUnavailable("the process is dead")
        asked = _Asked(self._loop.create_future(), self._loop.time() + patience_seconds, lost)
        self._asked[asked] = None
        if self._loop.time() < self._cut_until:
            self._watch(asked)
        self._start(self._travel(act, asked))
        return cast(T, await asked.answer)

    def _watch(self, asked: _Asked) -> None:
        """Have a call given up when its time is over; as long as the road is open, no timer is needed for that."""
        error = asked.lost("the simulated database does not answer")
        self._loop.call_at(asked.gives_up_at, _fail, asked.answer, error)

    async def _travel(self, act: Callable[[], Awaitable[object]], asked: _Asked) -> None:
        try:
            await asyncio.sleep(self._rng.uniform(0, 0.002))
            if not await self._pass():
                _fail(asked.answer, StoreUnavailable("the simulated database cannot be reached"))
                return
            result = await act()
            if not await self._pass():
                _fail(asked.answer, asked.lost("the simulated connection broke before the answer came"))
                return
        except Exception as error:  # noqa: BLE001 - the node is told
            _fail(asked.answer, error)
        else:
            if not asked.answer.done():
                asked.answer.set_result(result)
        finally:
            del self._asked[asked]

    async def _pass(self) -> bool:
        """Get through; return False where it is known that nothing does, and never where it is lost in silence."""
        while self._loop.time() < self._cut_until:
            if not self._is_silent:
                return False
            if self._rng.random() < 0.5:
                await asyncio.Event().wait()
            await asyncio.sleep(self._cut_until - self._loop.time())
        return True


class _Session(MemoryStore):
    """What a request carries of its node: the claim and the shards that the node held when it was sent."""

    def __init__(self, node: MemoryStore) -> None:
        self.__dict__.update(node.__dict__)


class _Watch:
    """Stands around a commit: lets faults happen, and looks whether the node owns what it writes."""

    def __init__(self, database: MemoryDatabase, node: str, faults: Faults) -> None:
        self._database = database
        self._node = node
        self._faults = faults

    async def before(self, batch: Batch) -> None:
        await self._faults.before(batch)

    async def after(self, batch: Batch) -> None:
        for write in batch.writes:
            owner = self._database.members._owners[shard_of(write.key)].owner
            assert owner == self._node, f"{self._node} wrote {write.key.workflow_id}, whose shard {owner} owns"
        await self._faults.after(batch)


class NodeStore:
    """The store of one node; see `ClusterStore`.

    Args:
        database: What all nodes share.
        node: Its name.
        process: The process it is in.
        faults: What happens to its commits and reads.
        road: How it reaches the database.
    """

    def __init__(self, database: MemoryDatabase, node: str, process: Process, faults: Faults, road: Road) -> None:
        self._session = MemoryStore(database, faults=_Watch(database, node, faults))
        self._process = process
        self._faults = faults
        self._road = road

    async def _ask(
        self,
        act: Callable[[MemoryStore], Awaitable[T]],
        lost: type[StoreError] = StoreUnavailable,
        patience_seconds: float = _PATIENCE_SECONDS,
    ) -> T:
        session = _Session(self._session)
        return await self._road.ask(self._process, lambda: act(session), lost, patience_seconds)

    async def _read(self, act: Callable[[MemoryStore], Awaitable[T]], patience_seconds: float = _PATIENCE_SECONDS) -> T:
        async def read(session: MemoryStore) -> T:
            self._faults.require_readable()
            return await act(session)

        return await self._ask(read, patience_seconds=patience_seconds)

    async def open(self) -> None:
        await self._session.open()

    async def close(self) -> None:
        await self._session.close()

    async def check(self) -> None:
        await self._read(lambda db: db.check())

    async def cluster_id(self) -> str:
        return await self._read(lambda db: db.cluster_id())

    async def claim(self, node: str) -> Claim:
        raise AssertionError("nodes join, they do not claim")

    async def commit(self, batch: Batch) -> None:
        sent = Batch(batch.number, [_taken(write) for write in batch.writes], list(batch.moves))
        await self._ask(lambda db: db.commit(sent), CommitUnknown)

    async def resolve(self) -> Claim:
        held = self._session

        async def resolve(session: MemoryStore) -> Claim:
            await self._faults.resolving()
            was_held = session._claimed == held._claimed
            claim = await session.resolve()
            if was_held:
                # Where the answer is lost, the real store finds out by the number of the transaction.
                held._claimed = session._claimed
            return claim

        return await self._ask(resolve, CommitUnknown)

    async def join(self, node: str, session: str, release: str, lease_seconds: float) -> Claim:
        joined = _Session(self._session)
        claim = await self._ask(lambda _: joined.join(node, session, release, lease_seconds))
        self._session = joined
        return claim

    async def renew(self, lease_seconds: float) -> int:
        return await self._ask(lambda db: db.renew(lease_seconds), patience_seconds=_HASTY_SECONDS)

    async def read_view(self) -> ClusterView:
        return await self._read(lambda db: db.read_view(), _HASTY_SECONDS)

    async def take_over(self, node: str, session: str | None, shards: Mapping[str, Sequence[int]]) -> bool:
        return await self._ask(lambda db: db.take_over(node, session, shards), CommitUnknown)

    async def set_leaving(self) -> None:
        await self._ask(lambda db: db.set_leaving())

    async def leave(self) -> None:
        await self._ask(lambda db: db.leave())

    def limit_to(self, shards: frozenset[int]) -> None:
        self._session.limit_to(shards)

    async def load_current_runs(self, keys: Sequence[WorkflowKey]) -> list[StoredRun | None]:
        return await self._read(lambda db: db.load_current_runs(keys))

    async def load_run(self, key: WorkflowKey, run_id: str) -> StoredRun | None:
        return await self._read(lambda db: db.load_run(key, run_id))

    async def read_events(
        self, run_id: str, first_event_id: int, end_event_id: int, max_events: int, max_bytes: int
    ) -> list[StoredEvent]:
        return await self._read(lambda db: db.read_events(run_id, first_event_id, end_event_id, max_events, max_bytes))

    async def read_events_reverse(
        self, run_id: str, last_event_id: int, max_events: int, max_bytes: int
    ) -> list[StoredEvent]:
        return await self._read(lambda db: db.read_events_reverse(run_id, last_event_id, max_events, max_bytes))

    async def ready_workflow_tasks(self, namespace_id: str, task_queue: str, limit: int) -> list[ReadyTask]:
        return await self._read(lambda db: db.ready_workflow_tasks(namespace_id, task_queue, limit))

    async def ready_activity_tasks(self, namespace_id: str, task_queue: str, now: int, limit: int) -> list[ReadyTask]:
        return await self._read(lambda db: db.ready_activity_tasks(namespace_id, task_queue, now, limit))

    async def workflow_task_backlog(self, namespace_id: str, task_queue: str) -> Backlog:
        return await self._read(lambda db: db.workflow_task_backlog(namespace_id, task_queue))

    async def activity_task_backlog(self, namespace_id: str, task_queue: str, now: int) -> Backlog:
        return await self._read(lambda db: db.activity_task_backlog(namespace_id, task_queue, now))

    async def due_alarms(self, before: int, limit: int) -> list[DueAlarm]:
        return await self._read(lambda db: db.due_alarms(before, limit))

    async def closed_runs(self, namespace_id: str, limit: int, after: RunPosition | None) -> list[ClosedRun]:
        return await self._read(lambda db: db.closed_runs(namespace_id, limit, after))

    async def page_runs(self, namespace_id: str, limit: int, after: RunPosition | None) -> list[RunName]:
        return await self._read(lambda db: db.page_runs(namespace_id, limit, after))

    async def discarded_histories(self, limit: int) -> list[DiscardedHistory]:
        return await self._read(lambda db: db.discarded_histories(limit))

    async def delete_history(self, run_id: str, limit: int) -> bool:
        return await self._ask(lambda db: db.delete_history(run_id, limit))

    async def read_outbox(self, max_messages: int, max_bytes: int, after: MessagePosition | None = None) -> OutboxPage:
        return await self._read(lambda db: db.read_outbox(max_messages, max_bytes, after))

    async def read_pair(self, receiver: WorkflowKey, sender_run_id: str, number: int) -> PairState:
        return await self._read(lambda db: db.read_pair(receiver, sender_run_id, number))

    async def list_namespaces(self) -> list[NamespaceRecord]:
        return await self._read(lambda db: db.list_namespaces())

    async def save_namespace(self, namespace: NamespaceRecord, former: NamespaceRecord | None = None) -> None:
        await self._ask(lambda db: db.save_namespace(namespace, former))

    async def is_namespace_empty(self, namespace_id: str) -> bool:
        return await self._read(lambda db: db.is_namespace_empty(namespace_id))

    async def delete_namespace(self, namespace_id: str) -> bool:
        return await self._ask(lambda db: db.delete_namespace(namespace_id))

    async def list_runs(
        self, namespace_id: str, filter: Filter, limit: int, after: ListPosition | None
    ) -> list[RunRecord]:
        return await self._read(lambda db: db.list_runs(namespace_id, filter, limit, after))

    async def count_runs(self, namespace_id: str, filter: Filter) -> int:
        return await self._read(lambda db: db.count_runs(namespace_id, filter))

    async def count_runs_by_status(self, namespace_id: str, filter: Filter) -> list[CountGroup]:
        return await self._read(lambda db: db.count_runs_by_status(namespace_id, filter))


def _fail(answer: asyncio.Future[object], error: Exception) -> None:
    if not answer.done():
        answer.set_exception(error)
        # Whoever asked may have gone.
        answer.exception()
