"""A server process of the simulation: one engine, its asyncio tasks, and a sudden end.

A process that dies runs no further step: all its tasks are cancelled, and its store takes nothing any more. Its callers
see the connection break, as they would.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
import time
from collections.abc import Callable, Coroutine, Generator
from typing import TypeVar, cast

from perdure.server.core.records import NamespaceRecord
from perdure.server.engine.clock import uuid7
from perdure.server.engine.engine import Engine
from perdure.server.engine.settings import EngineSettings
from perdure.server.store.interface import StoreError
from perdure.server.store.memory import MemoryDatabase
from tests.simulation.faults import Faults, FaultyStore
from tests.virtual_time import VirtualClock

T = TypeVar("T")

NAMESPACE_ID = "0190d0f0-0000-7000-8000-000000000001"

_process_of_task: contextvars.ContextVar[Process | None] = contextvars.ContextVar("process", default=None)


class ConnectionLost(Exception):
    """The process died while it was asked something."""


class SeededClock(VirtualClock):
    """Virtual time, and ids from a seeded generator."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        self._rng = rng

    def new_run_id(self) -> str:
        return uuid7(self.now() // 1_000_000, self._rng.getrandbits(74))

    def new_nonce(self) -> str:
        return f"{self._rng.getrandbits(96):024x}"


class Process:
    """One server process: the tasks that are its own.

    Args:
        number: Of this process, from 1.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.is_dead = False
        self.is_frozen = False
        """Whether nothing of it runs for now; see `freezing.py`."""
        self._tasks: dict[asyncio.Task[object], None] = {}
        self._context = contextvars.copy_context()
        self._context.run(_process_of_task.set, self)

    def kill(self) -> None:
        """End the process: nothing of it runs again."""
        if self.is_dead:
            return
        self.is_dead = True
        for task in list(self._tasks):
            task.cancel()

    def spawn(self, work: Coroutine[object, object, T]) -> asyncio.Task[T]:
        """Run something in this process."""
        return asyncio.get_running_loop().create_task(work, context=self._context.copy())

    async def call(self, request: Coroutine[object, object, T]) -> T:
        """Have the process do something; a caller that is cancelled hangs up.

        Raises:
            ConnectionLost: The process died before it was done.
        """
        if self.is_dead:
            request.close()
            raise ConnectionLost
        task = self.spawn(request)
        try:
            return await task
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if caller is not None and not caller.cancelling():
                # It was not the caller who was cancelled: the process has died.
                raise ConnectionLost from None
            raise

    def own(self, task: asyncio.Task[object]) -> None:
        """Let a task die with the process."""
        self._tasks[task] = None
        task.add_done_callback(self._tasks.pop)
        if self.is_dead:
            task.cancel()


class EngineProcess(Process):
    """A process with one engine that has its database for itself.

    Args:
        number: Of this process, from 1.
        database: What it works on; it outlives the process.
        faults: What happens in its store.
        rng: Ids come from it.
        settings: Of its engine.
    """

    def __init__(
        self, number: int, database: MemoryDatabase, faults: Faults, rng: random.Random, settings: EngineSettings
    ) -> None:
        super().__init__(number)
        self._store = FaultyStore(database, faults)
        self.engine = Engine(self._store, SeededClock(rng), settings)

    async def start(self) -> bool:
        """Start the engine; False where the database was away."""
        try:
            await self.call(self._start())
        except (StoreError, ConnectionLost):
            self.kill()
            return False
        return True

    async def _start(self) -> None:
        await self._store.open()
        await self.engine.start()

    async def stop(self) -> None:
        """Stop the engine as an operator would."""
        await self.call(self.engine.stop())
        await self._store.close()
        self.is_dead = True


def process_of(context: contextvars.Context | None) -> Process | None:
    """Return the process that a context belongs to, the present one for None."""
    return _process_of_task.get() if context is None else context.get(_process_of_task)


def task_factory(
    loop: asyncio.AbstractEventLoop,
    coro: Coroutine[object, object, T] | Generator[object, None, T],
    *,
    context: contextvars.Context | None = None,
    **_unused: object,
) -> asyncio.Task[T]:
    """Make tasks that belong to the process they were started in."""
    process = process_of(context)
    task: asyncio.Task[T] = asyncio.Task(coro, loop=loop, context=context)  # type: ignore[arg-type]  # as asyncio does
    if process is not None:
        process.own(cast("asyncio.Task[object]", task))
    return task


def new_database(now: Callable[[], int] = time.time_ns) -> MemoryDatabase:
    """Return a database with the one namespace of the simulation, and this clock."""
    database = MemoryDatabase(now=now)
    database.tables.namespaces[NAMESPACE_ID] = NamespaceRecord(
        namespace_id=NAMESPACE_ID,
        name="default",
        state=1,
        description="",
        owner_email="",
        data={},
        retention_seconds=30 * 86_400,
        created_at=0,
    )
    return database
