"""The simulated world: one database, the server processes on it one after the other, and those who call them.

All randomness comes from one seed, all time from the loop, so a seed is a whole history of crashes that can be lived
through again.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections.abc import Callable, Coroutine, Iterable
from typing import Protocol, TypeVar

from perdure.server.core.errors import InvalidArgument, Retryable
from perdure.server.engine.engine import Engine
from perdure.server.engine.matching import MatcherSettings
from perdure.server.engine.settings import EngineSettings
from tests.simulation.faults import FaultRates, Faults
from tests.simulation.ledger import Ledger
from tests.simulation.processes import ConnectionLost, Process, new_database, task_factory

T = TypeVar("T")

Request = Callable[[Engine], Coroutine[object, object, T]]


class Startable(Protocol):
    """A worker."""

    def start(self) -> None:
        """Begin to poll."""


class CallFailed(Exception):
    """A call led to nothing its caller could know: the same one may be made again."""


class World:
    """The world of one seed.

    Args:
        seed: Decides everything.
        rates: How often faults happen.
    """

    def __init__(self, seed: int, rates: FaultRates | None = None) -> None:
        asyncio.get_running_loop().set_task_factory(task_factory)
        self.seed = seed
        self._context = contextvars.copy_context()
        self.ledger = Ledger()
        self.database = new_database()
        self.faults = Faults(self.rng("faults"), rates or FaultRates())
        self.faults.crash = self._crash
        self.faults.replace = self._replace
        self.faults.drop_polls = lambda: self._hang_up(self._open_polls)
        self.faults.drop_calls = lambda: self._hang_up(self._open_calls)
        self._rng = self.rng("world")
        self._settings = _settings(self.rng("settings"))
        self._processes: list[Process] = []
        self._up = asyncio.Event()
        self._open_polls: dict[asyncio.Task[object], None] = {}
        self._open_calls: dict[asyncio.Task[object], None] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def rng(self, purpose: str) -> random.Random:
        """Return a generator of its own for a part of the world."""
        return random.Random(f"{self.seed} {purpose}")

    async def begin(self) -> None:
        """Start the first process, and let faults happen."""
        await self._start_process()
        self.start(self.faults.happen_at_any_time())

    def start(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        """Run a part of the world; it ends with the world."""
        task = asyncio.get_running_loop().create_task(work, context=self._context.copy())
        self._tasks.append(task)
        task.add_done_callback(self._look_at)
        return task

    def _look_at(self, task: asyncio.Task[None]) -> None:
        """Break the world off where a part of it has found something wrong."""
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self.break_off(error)

    def break_off(self, error: BaseException) -> None:
        """End the world: something is wrong."""
        if not self._broken.done():
            self._broken.set_exception(error)
            self._broken.exception()

    def begin_workers(self, workers: Iterable[Startable]) -> None:
        """Begin to poll."""
        for worker in workers:
            worker.start()

    async def until_quiet(self, clients: list[asyncio.Task[None]], *, faults_last: float) -> None:
        """Let faults happen for so many seconds, then wait until all clients have what they wanted."""
        await asyncio.wait([self._broken], timeout=faults_last)
        await self.end_faults()
        done: asyncio.Future[object] = asyncio.ensure_future(asyncio.gather(*clients))
        broken: asyncio.Future[object] = asyncio.ensure_future(asyncio.shield(self._broken))
        await asyncio.wait([broken, done], return_when=asyncio.FIRST_COMPLETED)
        if self._broken.done():
            self._broken.result()

    async def end_faults(self) -> None:
        """Let nothing go wrong any more, and wait for a process that serves."""
        self.faults.stop()
        await self._up.wait()
        for process in self._processes[:-1]:
            process.kill()

    async def end(self) -> None:
        """Stop everything; the last process stops gracefully."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.process.stop()
        if self._broken.done():
            self._broken.result()

    @property
    def process(self) -> Process:
        """The newest process."""
        return self._processes[-1]

    # --- calls ----------------------------------------------------------------------------------------------------

    async def call(self, request: Request[T]) -> T:
        """Ask the newest process.

        Raises:
            CallFailed: It could not, or died, or the caller hung up: whether it was done is not known.
            Refusal: As the engine says.
        """
        return await self._call(request, self._open_calls)

    async def poll(self, request: Request[T]) -> T:
        """Ask the newest process for work, which may take a while."""
        return await self._call(request, self._open_polls)

    async def _call(self, request: Request[T], open_calls: dict[asyncio.Task[object], None]) -> T:
        await self._up.wait()
        process = self.process
        task = asyncio.create_task(process.call(request(process.engine)))
        open_calls[task] = None
        try:
            return await task
        except (Retryable, ConnectionLost) as error:
            raise CallFailed(str(error)) from error
        except InvalidArgument as error:
            if "the simulated database refuses" in error.message:
                raise CallFailed(error.message) from error
            raise
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if caller is not None and caller.cancelling():
                raise
            raise CallFailed("hung up") from None
        finally:
            del open_calls[task]

    async def until_done(self, request: Request[T]) -> T:
        """Make a call again and again until its outcome is known."""
        while True:
            try:
                return await self.call(request)
            except CallFailed:
                await asyncio.sleep(self._rng.uniform(0.05, 1))

    def _hang_up(self, calls: dict[asyncio.Task[object], None]) -> None:
        for task in list(calls):
            if self._rng.random() < 0.5:
                task.cancel()

    # --- processes ------------------------------------------------------------------------------------------------

    async def _start_process(self) -> None:
        while True:
            number = len(self._processes) + 1
            process = Process(number, self.database, self.faults, self.rng(f"process {number}"), self._settings)
            self._processes.append(process)
            if await process.start():
                self._up.set()
                self.start(self._bury_when_fenced(process))
                return
            await asyncio.sleep(0.2)

    async def _bury_when_fenced(self, process: Process) -> None:
        await process.engine.fenced_event.wait()
        process.kill()
        assert process is not self.process, "the newest process is fenced by nobody"

    def _crash(self) -> None:
        if not self._up.is_set():
            # The newest is starting already: it is the others that crash.
            for process in self._processes[:-1]:
                process.kill()
            return
        self._up.clear()
        for process in self._processes:
            process.kill()
        self.start(self._restart())

    async def _restart(self) -> None:
        await asyncio.sleep(self._rng.uniform(0.01, 2))
        await self._start_process()

    def _replace(self) -> None:
        """Start a process beside the present one, as after a split: the old one does not know yet."""
        if self._up.is_set():
            self._up.clear()
            self.start(self._replace_and_kill(self.process))

    async def _replace_and_kill(self, old: Process) -> None:
        await self._start_process()
        await asyncio.sleep(self._rng.uniform(0, 8))
        old.kill()


def _settings(rng: random.Random) -> EngineSettings:
    """Return small limits, so that everything that happens at a limit happens here."""
    return EngineSettings(
        node="simulated",
        cache_bytes=rng.choice((1, 20_000, 10_000_000)),
        batch_entities=rng.choice((1, 2, 500)),
        load_keys=rng.choice((1, 200)),
        alarm_horizon_seconds=rng.choice((0.5, 5.0, 60.0)),
        alarms_in_memory=rng.choice((2, 20_000)),
        alarms_at_once=rng.choice((1, 500)),
        outbox_messages=rng.choice((1, 2, 10_000)),
        outbox_rescan_seconds=rng.choice((2.0, 60.0)),
        messages_at_once=rng.choice((1, 2, 500)),
        task_history_events=rng.choice((3, 1_000)),
        history_page_bytes=rng.choice((300, 1_000_000)),
        matcher=MatcherSettings(
            window_offers=rng.choice((2, 1_000)),
            refill_offers=rng.choice((1, 2)),
            rescan_seconds=rng.choice((3.0, 30.0)),
            answered_seconds=rng.choice((1.0, 10.0)),
        ),
    )
