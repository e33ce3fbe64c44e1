"""The faults of the simulated world, each with a name, and the store they happen in.

What is decided here is decided by a seeded generator, so the same seed meets the same faults at the same moments.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from enum import Enum, auto

import msgspec

from perdure.server.core.records import StoredRun, WorkflowKey
from perdure.server.store.interface import (
    Batch,
    BatchRejected,
    Claim,
    CommitUnknown,
    DueAlarm,
    MessagePosition,
    OutboxPage,
    PairState,
    ReadyTask,
    StoredEvent,
    StoreUnavailable,
)
from perdure.server.store.memory import MemoryDatabase, MemoryStore


class Fault(Enum):
    """What can go wrong, by name."""

    COMMIT_FAILS = auto()
    """The database refuses the transaction as a whole: nothing was written."""
    COMMIT_UNKNOWN_AND_VOID = auto()
    COMMIT_UNKNOWN_BUT_DURABLE = auto()
    SLOW_COMMIT = auto()
    SLOW_REPLY_TO_COMMIT = auto()
    STORE_UNREADABLE = auto()
    """Every read fails for a while."""
    STORE_AWAY = auto()
    """Every read and every commit fails for a while."""
    ENTITY_REJECTED = auto()
    """The database refuses whatever is written for one workflow, for a while."""
    CRASH_BEFORE_COMMIT = auto()
    CRASH_AFTER_COMMIT = auto()
    """The batch is durable, and nobody is told."""
    CRASH = auto()
    """The process ends at any moment."""
    FENCED = auto()
    """Another process takes the node's place while this one still runs."""
    POLLERS_GONE_BEFORE_COMMIT = auto()
    """Workers go away between the match and the reply, before the start is durable."""
    POLLERS_GONE_AFTER_COMMIT = auto()
    CALLERS_GONE = auto()
    """Clients and workers hang up in the middle of a call that changes something."""


BEFORE_COMMIT = (
    Fault.COMMIT_FAILS,
    Fault.COMMIT_UNKNOWN_AND_VOID,
    Fault.SLOW_COMMIT,
    Fault.STORE_AWAY,
    Fault.ENTITY_REJECTED,
    Fault.CRASH_BEFORE_COMMIT,
    Fault.POLLERS_GONE_BEFORE_COMMIT,
    Fault.CALLERS_GONE,
)
AFTER_COMMIT = (
    Fault.COMMIT_UNKNOWN_BUT_DURABLE,
    Fault.SLOW_REPLY_TO_COMMIT,
    Fault.CRASH_AFTER_COMMIT,
    Fault.POLLERS_GONE_AFTER_COMMIT,
)
AT_ANY_TIME = (Fault.STORE_UNREADABLE, Fault.CRASH, Fault.FENCED)


class FaultRates(msgspec.Struct, frozen=True):
    """How often faults happen while there are any: per commit, and per second."""

    per_commit: float = 0.06
    mean_pause_seconds: float = 12.0


class Faults:
    """What stands between the engines and their database, and between workers and the engines.

    Args:
        rng: Decides everything.
        rates: How often.
    """

    def __init__(self, rng: random.Random, rates: FaultRates) -> None:
        self._rng = rng
        self._rates = rates
        self.is_on = True
        self.seen: dict[Fault, int] = {}
        self._unreadable_until = 0.0
        self._away_until = 0.0
        self._rejected: dict[WorkflowKey, float] = {}
        self.crash: Callable[[], None] = _nothing
        self.replace: Callable[[], None] = _nothing
        self.drop_polls: Callable[[], None] = _nothing
        self.drop_calls: Callable[[], None] = _nothing

    def stop(self) -> None:
        """End all faults, those under way included."""
        self.is_on = False
        self._unreadable_until = self._away_until = 0.0
        self._rejected.clear()

    def count(self, fault: Fault) -> None:
        """Note that a fault happened."""
        self.seen[fault] = self.seen.get(fault, 0) + 1

    async def happen_at_any_time(self) -> None:
        """Bring about those faults that no call brings about."""
        while True:
            await asyncio.sleep(self._rng.expovariate(1 / self._rates.mean_pause_seconds))
            if not self.is_on:
                return
            fault = self._rng.choice(AT_ANY_TIME)
            self.count(fault)
            match fault:
                case Fault.STORE_UNREADABLE:
                    self._unreadable_until = _loop_time() + self._rng.uniform(0.1, 4)
                case Fault.CRASH:
                    self.crash()
                case _:
                    self.replace()

    # --- in the store ---------------------------------------------------------------------------------------------

    async def reading(self) -> None:
        """Called before every read."""
        await asyncio.sleep(self._rng.uniform(0, 0.002))
        self.require_readable()

    def require_readable(self) -> None:
        """Raise where reads fail now."""
        if _loop_time() < max(self._unreadable_until, self._away_until):
            raise StoreUnavailable("the simulated database cannot be read")

    async def resolving(self) -> None:
        """Called before the fate of a batch is asked for."""
        await self.reading()
        if self.is_on and self._rng.random() < 0.3:
            raise StoreUnavailable("the simulated database cannot tell yet")

    async def before(self, batch: Batch) -> None:
        """Called before the batch is looked at; raising leaves nothing written."""
        await asyncio.sleep(self._rng.uniform(0.0005, 0.004))
        if _loop_time() < self._away_until:
            raise StoreUnavailable("the simulated database is away")
        fault = self._draw(BEFORE_COMMIT)
        if fault is not None:
            await self._before(fault, batch)
        for write in batch.writes:
            if _loop_time() < self._rejected.get(write.key, 0.0):
                raise BatchRejected("the simulated database refuses a row")

    async def _before(self, fault: Fault, batch: Batch) -> None:
        match fault:
            case Fault.COMMIT_FAILS:
                raise StoreUnavailable("the simulated commit failed")
            case Fault.COMMIT_UNKNOWN_AND_VOID:
                raise CommitUnknown("the simulated connection broke before the commit")
            case Fault.SLOW_COMMIT:
                await asyncio.sleep(self._rng.uniform(0.05, 3))
            case Fault.STORE_AWAY:
                self._away_until = _loop_time() + self._rng.uniform(0.1, 6)
                raise StoreUnavailable("the simulated database goes away")
            case Fault.ENTITY_REJECTED if batch.writes:
                key = self._rng.choice(batch.writes).key
                self._rejected[key] = _loop_time() + self._rng.uniform(0, 3)
            case Fault.CRASH_BEFORE_COMMIT:
                await self._crash_here()
            case Fault.POLLERS_GONE_BEFORE_COMMIT:
                self.drop_polls()
            case _:
                self.drop_calls()
                await asyncio.sleep(0.001)

    async def after(self, batch: Batch) -> None:
        """Called once the batch is durable; raising keeps it so."""
        await asyncio.sleep(self._rng.uniform(0, 0.001))
        match self._draw(AFTER_COMMIT):
            case Fault.COMMIT_UNKNOWN_BUT_DURABLE:
                raise CommitUnknown("the simulated connection broke after the commit")
            case Fault.SLOW_REPLY_TO_COMMIT:
                await asyncio.sleep(self._rng.uniform(0.05, 3))
            case Fault.CRASH_AFTER_COMMIT:
                await self._crash_here()
            case Fault.POLLERS_GONE_AFTER_COMMIT:
                self.drop_polls()
            case _:
                return

    def _draw(self, faults: Sequence[Fault]) -> Fault | None:
        if not self.is_on or self._rng.random() >= self._rates.per_commit:
            return None
        fault = self._rng.choice(faults)
        self.count(fault)
        return fault

    async def _crash_here(self) -> None:
        asyncio.get_running_loop().call_soon(self.crash)
        await asyncio.Event().wait()


class FaultyStore(MemoryStore):
    """The store in memory with faults before its reads too."""

    def __init__(self, database: MemoryDatabase, faults: Faults) -> None:
        super().__init__(database, faults=faults)
        self._reads = faults

    async def claim(self, node: str) -> Claim:
        await self._reads.reading()
        return await super().claim(node)

    async def resolve(self) -> Claim:
        await self._reads.resolving()
        return await super().resolve()

    async def load_current_runs(self, keys: Sequence[WorkflowKey]) -> list[StoredRun | None]:
        await self._reads.reading()
        return await super().load_current_runs(keys)

    async def load_run(self, key: WorkflowKey, run_id: str) -> StoredRun | None:
        await self._reads.reading()
        return await super().load_run(key, run_id)

    async def read_events(
        self, run_id: str, first_event_id: int, end_event_id: int, max_events: int, max_bytes: int
    ) -> list[StoredEvent]:
        await self._reads.reading()
        return await super().read_events(run_id, first_event_id, end_event_id, max_events, max_bytes)

    async def ready_workflow_tasks(self, namespace_id: str, task_queue: str, limit: int) -> list[ReadyTask]:
        await self._reads.reading()
        return await super().ready_workflow_tasks(namespace_id, task_queue, limit)

    async def ready_activity_tasks(self, namespace_id: str, task_queue: str, now: int, limit: int) -> list[ReadyTask]:
        await self._reads.reading()
        return await super().ready_activity_tasks(namespace_id, task_queue, now, limit)

    async def due_alarms(self, before: int, limit: int) -> list[DueAlarm]:
        await self._reads.reading()
        return await super().due_alarms(before, limit)

    async def read_outbox(self, max_messages: int, max_bytes: int, after: MessagePosition | None = None) -> OutboxPage:
        head = await super().read_outbox(max_messages, max_bytes, after)
        await self._reads.reading()
        return head

    async def read_pair(self, receiver: WorkflowKey, sender_run_id: str, number: int) -> PairState:
        await self._reads.reading()
        return await super().read_pair(receiver, sender_run_id, number)


def _loop_time() -> float:
    return asyncio.get_running_loop().time()


def _nothing() -> None:
    """What happens before the world is put together."""
