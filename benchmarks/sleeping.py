"""Very many workflows that sleep: their memory, how soon an engine that finds them starts, how late they wake.

The engine runs alone, in one process on one core: a million runs through gRPC and an SDK would keep the machine busy
for hours and measure those. Callers take the first task of a run with its start and answer it with a timer, each a
little later than the one before. When all sleep, the engine's process ends; a second one starts on the same database,
wakes them and completes them.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence

import psutil
import uvloop
from temporalio.api.command.v1 import (
    Command,
    CompleteWorkflowExecutionCommandAttributes,
    StartTimerCommandAttributes,
)
from temporalio.api.common.v1 import WorkflowType
from temporalio.api.enums.v1 import CommandType, EventType, WorkflowIdConflictPolicy, WorkflowIdReusePolicy
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import (
    PollWorkflowTaskQueueRequest,
    PollWorkflowTaskQueueResponse,
    RespondWorkflowTaskCompletedRequest,
    StartWorkflowExecutionRequest,
)

from benchmarks._database import new_database
from benchmarks._measure import Benchmark, Conditions, Figures, Row, Subject, percentile
from perdure.server.app import make_store, spare_the_collector
from perdure.server.core import tokens
from perdure.server.core.inputs import Start
from perdure.server.core.records import WorkflowKey
from perdure.server.core.replies import StartReply
from perdure.server.engine.clock import SystemClock
from perdure.server.engine.engine import Engine
from perdure.server.engine.namespaces import DEFAULT_NAMESPACE
from perdure.server.settings import ServerSettings

_QUEUE = "sleepers"
_CALLERS = 64
_POLLERS = 64
_POLL_SECONDS = 60.0
_SLOWEST_PER_SECOND = 700
"""How many runs a second fall asleep at least: the first one must not wake before the last one sleeps."""
_WAKES_PER_SECOND = 800
_RESTART_SECONDS = 20
_MEGABYTE = 1024 * 1024


def benchmark(count: int) -> Benchmark:
    """Return the benchmark of `count` sleeping workflows."""

    async def measure(subject: Subject, conditions: Conditions) -> Figures:
        async with new_database(conditions) as db:
            asleep = await _phase("sleep", db, count)
            woken = await _phase("wake", db, count)
        return asleep | woken

    return Benchmark("sleeping", _rows(count), measure, alone=True)


def _rows(count: int) -> tuple[Row, ...]:
    return (
        Row("sleeping.some", f"memory with {(count or _FULL) // 10:,} sleeping workflows", "MiB", digits=0),
        Row("sleeping.all", f"  with {count or _FULL:,}", "MiB", target="the same", digits=0),
        Row("sleeping.start", "  engine started anew: until it serves", "s"),
        Row("sleeping.waking", "  memory while they wake, at most", "MiB", digits=0),
        Row("sleeping.late", "  how late they wake, p99", "s"),
        Row("sleeping.latest", "  the last one", "s"),
    )


_FULL = 1_000_000
NOT_RUN: Figures = {row.key: "not run" for row in _rows(0)}


async def _phase(name: str, db: str, count: int) -> dict[str, float]:
    """Run one phase in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.sleeping", name, db, str(count), stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"the process that was to {name} ended with {process.returncode}")
    figures: dict[str, float] = json.loads(output)
    return figures


# --- falling asleep -------------------------------------------------------------------------------------------------


async def _sleep(engine: Engine, count: int) -> Figures:
    namespace_id = engine.namespaces.resolve(DEFAULT_NAMESPACE).namespace_id
    first_wakes_at = time.time() + count / _SLOWEST_PER_SECOND + _RESTART_SECONDS
    numbers = iter(range(count))
    some = iter([next(numbers) for _ in range(count // 10)])
    figures = {}
    for key, part in (("sleeping.some", some), ("sleeping.all", numbers)):
        async with asyncio.TaskGroup() as callers:
            for _ in range(_CALLERS):
                callers.create_task(_put_to_sleep(engine, namespace_id, part, first_wakes_at))
        figures[key] = _resident_megabytes()
    assert time.time() < first_wakes_at, "the runs fell asleep too slowly: some woke before all slept"
    return figures


async def _put_to_sleep(engine: Engine, namespace_id: str, numbers: Iterator[int], first_wakes_at: float) -> None:
    for number in numbers:
        request = StartWorkflowExecutionRequest(
            namespace=DEFAULT_NAMESPACE,
            workflow_id=f"sleeper-{number}",
            workflow_type=WorkflowType(name="Sleep"),
            task_queue=TaskQueue(name=_QUEUE),
            request_id=f"start-{number}",
            request_eager_execution=True,
            workflow_id_reuse_policy=WorkflowIdReusePolicy.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE,
            workflow_id_conflict_policy=WorkflowIdConflictPolicy.WORKFLOW_ID_CONFLICT_POLICY_FAIL,
        )
        request.workflow_task_timeout.FromSeconds(10)
        reply = await engine.submit(WorkflowKey(namespace_id, request.workflow_id), Start("", request))
        assert isinstance(reply, StartReply) and reply.eager_task is not None, "an eager start has its task"
        wakes_at = first_wakes_at + number / _WAKES_PER_SECOND
        await _answer(engine, reply.eager_task.response, _timer(wakes_at - time.time()))


def _timer(seconds: float) -> Command:
    attributes = StartTimerCommandAttributes(timer_id="sleep")
    attributes.start_to_fire_timeout.FromNanoseconds(int(seconds * 1e9))
    return Command(command_type=CommandType.COMMAND_TYPE_START_TIMER, start_timer_command_attributes=attributes)


# --- waking ---------------------------------------------------------------------------------------------------------


async def _wake(engine: Engine, count: int) -> Figures:
    lateness: list[float] = []
    peak = _resident_megabytes()
    done = asyncio.Event()
    workers = [asyncio.create_task(_see_off(engine, lateness, count, done)) for _ in range(_POLLERS)]
    while not done.is_set():
        try:
            async with asyncio.timeout(1.0):
                await done.wait()
        except TimeoutError:
            peak = max(peak, _resident_megabytes())
    for worker in workers:
        worker.cancel()
    await asyncio.gather(*workers, return_exceptions=True)
    return {
        "sleeping.waking": peak,
        "sleeping.late": percentile(lateness, 99),
        "sleeping.latest": max(lateness),
    }


async def _see_off(engine: Engine, lateness: list[float], count: int, done: asyncio.Event) -> None:
    """Poll, note how late each run has woken, and complete it."""
    namespace_id = engine.namespaces.resolve(DEFAULT_NAMESPACE).namespace_id
    poll = PollWorkflowTaskQueueRequest(
        namespace=DEFAULT_NAMESPACE, task_queue=TaskQueue(name=_QUEUE), identity="sleepers"
    )
    loop = asyncio.get_running_loop()
    while True:
        reply = await engine.poll_workflow_task(namespace_id, poll, loop.time() + _POLL_SECONDS)
        task = PollWorkflowTaskQueueResponse.FromString(reply) if isinstance(reply, bytes) else reply
        if not task.task_token:
            continue
        lateness.append(_lateness(task))
        await _answer(engine, task, _COMPLETE)
        if len(lateness) == count:
            done.set()


def _lateness(task: PollWorkflowTaskQueueResponse) -> float:
    started = _event(task, EventType.EVENT_TYPE_TIMER_STARTED)
    fired = _event(task, EventType.EVENT_TYPE_TIMER_FIRED)
    asked = started.timer_started_event_attributes.start_to_fire_timeout.ToNanoseconds()
    return (fired.event_time.ToNanoseconds() - started.event_time.ToNanoseconds() - asked) / 1e9


def _event(task: PollWorkflowTaskQueueResponse, event_type: EventType.ValueType) -> HistoryEvent:
    return next(event for event in task.history.events if event.event_type == event_type)


_COMPLETE = Command(
    command_type=CommandType.COMMAND_TYPE_COMPLETE_WORKFLOW_EXECUTION,
    complete_workflow_execution_command_attributes=CompleteWorkflowExecutionCommandAttributes(),
)


# --- both -----------------------------------------------------------------------------------------------------------


async def _answer(engine: Engine, task: PollWorkflowTaskQueueResponse, command: Command) -> None:
    request = RespondWorkflowTaskCompletedRequest(
        namespace=DEFAULT_NAMESPACE, task_token=task.task_token, commands=[command], identity="sleepers"
    )
    await engine.complete_workflow_task(tokens.decode_workflow_task(task.task_token), request)


def _resident_megabytes() -> float:
    resident: int = psutil.Process().memory_info().rss
    return resident / _MEGABYTE


async def _alone(phase: str, db: str, count: int) -> Figures:
    """Take the figures of a phase in this process."""
    began = time.perf_counter()
    store = make_store(ServerSettings(db=db))
    await store.open()
    engine = Engine(store, SystemClock())
    await engine.start()
    started_after = time.perf_counter() - began
    try:
        if phase == "sleep":
            return await _sleep(engine, count)
        return {"sleeping.start": started_after, **await _wake(engine, count)}
    finally:
        await engine.stop()
        await store.close()


def _main(arguments: Sequence[str]) -> None:
    """Pin this process to one core, before any thread is made, and print the figures as JSON."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    phase, db, count = arguments
    spare_the_collector()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        figures = runner.run(_alone(phase, db, int(count)))
    print(json.dumps(figures))


if __name__ == "__main__":
    _main(sys.argv[1:])
