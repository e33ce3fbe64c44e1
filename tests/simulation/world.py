"""The simulated world: one database, the server processes on it, and those who call them.

All randomness comes from one seed, all time from the loop, so a seed is a whole history of crashes that can be lived
through again. There are two worlds: here the one of a server that has its database for itself, whose processes follow
each other, and in `cluster/world.py` the one of several nodes. Workloads are the same in both.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections.abc import Callable, Coroutine, Iterable
from typing import Protocol, TypeVar

from temporalio.api.workflowservice.v1 import (
    GetWorkflowExecutionHistoryRequest,
    GetWorkflowExecutionHistoryResponse,
    PollActivityTaskQueueRequest,
    PollActivityTaskQueueResponse,
    PollWorkflowTaskQueueRequest,
    PollWorkflowTaskQueueResponse,
    QueryWorkflowRequest,
    QueryWorkflowResponse,
    RespondWorkflowTaskCompletedRequest,
    RespondWorkflowTaskCompletedResponse,
    ShutdownWorkerRequest,
)

from perdure.server.core.errors import InvalidArgument, ResourceExhausted, Retryable
from perdure.server.core.inputs import Input
from perdure.server.core.records import WorkflowKey
from perdure.server.core.tokens import WorkflowTaskToken
from perdure.server.engine.matching import MatcherSettings
from perdure.server.engine.settings import EngineSettings
from perdure.server.store.memory import MemoryDatabase
from tests.simulation.faults import FaultRates, Faults
from tests.simulation.ledger import Ledger
from tests.simulation.processes import ConnectionLost, EngineProcess, new_database, task_factory

T = TypeVar("T")


class Door(Protocol):
    """What those outside may ask of a server: the engine of a lone one, any node of a cluster."""

    async def submit(self, key: WorkflowKey, given: Input) -> object: ...

    async def poll_workflow_task(
        self, namespace_id: str, request: PollWorkflowTaskQueueRequest, deadline: float
    ) -> PollWorkflowTaskQueueResponse | bytes: ...

    async def poll_activity_task(
        self, namespace_id: str, request: PollActivityTaskQueueRequest, deadline: float
    ) -> PollActivityTaskQueueResponse | bytes: ...

    async def complete_workflow_task(
        self, token: WorkflowTaskToken, request: RespondWorkflowTaskCompletedRequest
    ) -> RespondWorkflowTaskCompletedResponse | bytes: ...

    async def query(
        self, namespace_id: str, request: QueryWorkflowRequest, deadline: float
    ) -> QueryWorkflowResponse: ...

    async def read_history(
        self, key: WorkflowKey, request: GetWorkflowExecutionHistoryRequest, deadline: float, *, for_worker: bool
    ) -> GetWorkflowExecutionHistoryResponse | bytes: ...

    async def shutdown_worker(self, namespace_id: str, request: ShutdownWorkerRequest) -> None: ...


Request = Callable[[Door], Coroutine[object, object, T]]


class Startable(Protocol):
    """A worker."""

    def start(self) -> None:
        """Begin to poll."""


class CallFailed(Exception):
    """A call led to nothing its caller could know: the same one may be made again."""


class FaultSwitch(Protocol):
    """The faults of a world, as those who live in it know them."""

    is_on: bool


class World:
    """The world of one seed, whatever serves it.

    Args:
        seed: Decides everything.
        database: What there is in the end.
        faults: Whether things go wrong.
    """

    def __init__(self, seed: int, database: MemoryDatabase, faults: FaultSwitch) -> None:
        asyncio.get_running_loop().set_task_factory(task_factory)
        self.seed = seed
        self.ledger = Ledger()
        self.database = database
        self.faults = faults
        self._context = contextvars.copy_context()
        self._rng = self.rng("world")
        self._open_polls: dict[asyncio.Task[object], None] = {}
        self._open_calls: dict[asyncio.Task[object], None] = {}
        self._tasks: dict[asyncio.Task[None], None] = {}
        self._broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def rng(self, purpose: str) -> random.Random:
        """Return a generator of its own for a part of the world."""
        return seeded(self.seed, purpose)

    # --- what a world is --------------------------------------------------------------------------------------------

    async def begin(self) -> None:
        """Start what serves, and let faults happen."""
        raise NotImplementedError

    async def end_faults(self) -> None:
        """Let nothing go wrong any more, and wait for something that serves."""
        raise NotImplementedError

    async def end(self) -> None:
        """Stop everything; what serves stops gracefully."""
        raise NotImplementedError

    def seen_faults(self) -> dict[str, int]:
        """Return which faults happened how often."""
        raise NotImplementedError

    def era(self) -> object:
        """Return something that changes when what was read before may be of the past."""
        raise NotImplementedError

    def check_step(self, key: WorkflowKey) -> None:
        """Called at every step of a workflow: raises where it should not be taken."""

    async def _ask(self, request: Request[T], open_calls: dict[asyncio.Task[object], None]) -> T:
        """Have something that serves do what is asked. Raises CallFailed, or what it says."""
        raise NotImplementedError

    # --- life -------------------------------------------------------------------------------------------------------

    def start(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        """Run a part of the world; it ends with the world."""
        task = asyncio.get_running_loop().create_task(work, context=self._context.copy())
        self._tasks[task] = None
        task.add_done_callback(self._look_at)
        return task

    def _look_at(self, task: asyncio.Task[None]) -> None:
        """Break the world off where a part of it has found something wrong."""
        del self._tasks[task]
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
        self.check()

    async def end_tasks(self) -> None:
        """End all who call."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def check(self) -> None:
        """Raise what has broken the world, if anything has."""
        if self._broken.done():
            self._broken.result()

    # --- calls ------------------------------------------------------------------------------------------------------

    async def call(self, request: Request[T]) -> T:
        """Ask what serves.

        Raises:
            CallFailed: It could not, or died, or the caller hung up: whether it was done is not known.
            Refusal: As the engine says.
        """
        return await self._call(request, self._open_calls)

    async def poll(self, request: Request[T]) -> T:
        """Ask for work, which may take a while."""
        return await self._call(request, self._open_polls)

    async def _call(self, request: Request[T], open_calls: dict[asyncio.Task[object], None]) -> T:
        try:
            return await self._ask(request, open_calls)
        except (Retryable, ConnectionLost, ResourceExhausted) as error:
            # What SDKs make again: too much at once is refused for a while, too.
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

    async def until_done(self, request: Request[T]) -> T:
        """Make a call again and again until its outcome is known."""
        while True:
            try:
                return await self.call(request)
            except CallFailed:
                await asyncio.sleep(self._rng.uniform(0.05, 1))

    def hang_up_on_polls(self) -> None:
        """Let some workers go away while they poll."""
        self._hang_up(self._open_polls)

    def hang_up_on_calls(self) -> None:
        """Let some callers go away."""
        self._hang_up(self._open_calls)

    def _hang_up(self, calls: dict[asyncio.Task[object], None]) -> None:
        for task in list(calls):
            if self._rng.random() < 0.5:
                task.cancel()


class LoneWorld(World):
    """The world of a server that has its database for itself.

    Args:
        seed: Decides everything.
        rates: How often faults happen.
    """

    def __init__(self, seed: int, rates: FaultRates | None = None) -> None:
        faults = Faults(seeded(seed, "faults"), rates or FaultRates())
        super().__init__(seed, new_database(), faults)
        self._faults = faults
        faults.crash = self._crash
        faults.replace = self._replace
        faults.drop_polls = self.hang_up_on_polls
        faults.drop_calls = self.hang_up_on_calls
        self._settings = small_settings(self.rng("settings"))
        self._processes: list[EngineProcess] = []
        self._up = asyncio.Event()

    async def begin(self) -> None:
        await self._start_process()
        self.start(self._faults.happen_at_any_time())

    async def end_faults(self) -> None:
        self._faults.stop()
        await self._up.wait()
        for process in self._processes[:-1]:
            process.kill()

    async def end(self) -> None:
        await self.end_tasks()
        await self.process.stop()
        self.check()

    def seen_faults(self) -> dict[str, int]:
        return {fault.name: count for fault, count in self._faults.seen.items()}

    def era(self) -> object:
        """Return the newest process: one that was replaced and does not know it yet may answer from the past."""
        return self.process

    @property
    def process(self) -> EngineProcess:
        """The newest process."""
        return self._processes[-1]

    async def _ask(self, request: Request[T], open_calls: dict[asyncio.Task[object], None]) -> T:
        await self._up.wait()
        process = self.process
        task = asyncio.create_task(process.call(request(process.engine)))
        open_calls[task] = None
        try:
            return await task
        finally:
            del open_calls[task]

    # --- processes ------------------------------------------------------------------------------------------------

    async def _start_process(self) -> None:
        while True:
            number = len(self._processes) + 1
            process = EngineProcess(number, self.database, self._faults, self.rng(f"process {number}"), self._settings)
            self._processes.append(process)
            if await process.start():
                self._up.set()
                self.start(self._bury_when_fenced(process))
                return
            await asyncio.sleep(0.2)

    async def _bury_when_fenced(self, process: EngineProcess) -> None:
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

    async def _replace_and_kill(self, old: EngineProcess) -> None:
        await self._start_process()
        await asyncio.sleep(self._rng.uniform(0, 8))
        old.kill()


def seeded(seed: int, purpose: str) -> random.Random:
    """Return a generator for one purpose in the world of a seed."""
    return random.Random(f"{seed} {purpose}")


def small_settings(rng: random.Random) -> EngineSettings:
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
