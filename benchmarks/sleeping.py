"""Very many workflows that sleep: what memory they take, and how late they wake.

The worker is synthetic, because a million runs would keep a real one busy for an hour: it answers the first task of a
run with a timer and the second with the run's completion.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Iterator
from contextlib import suppress
from datetime import timedelta

from temporalio.api.command.v1 import (
    Command,
    CompleteWorkflowExecutionCommandAttributes,
    StartTimerCommandAttributes,
)
from temporalio.api.common.v1 import WorkflowType
from temporalio.api.enums.v1 import CommandType, EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import (
    PollWorkflowTaskQueueRequest,
    PollWorkflowTaskQueueResponse,
    RespondWorkflowTaskCompletedRequest,
    StartWorkflowExecutionRequest,
)
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode, WorkflowService

from benchmarks._measure import NOT_MEASURED, Benchmark, Conditions, Figures, Row, Subject, percentile, settle

_STARTERS = 32
_POLLERS = 16
_POLL_LIMIT = timedelta(seconds=30)
_SHORTEST_SLEEP_SECONDS = 30
_SLOWEST_STARTS_PER_SECOND = 400
"""Runs must not wake before the last of them sleeps: with this rate as the slowest, a sleep is long enough."""


class _Sleepers:
    """A synthetic worker for one task queue."""

    def __init__(self, service: WorkflowService, task_queue: str, count: int, sleep_seconds: int) -> None:
        self._service = service
        self._task_queue = task_queue
        self._sleep_seconds = sleep_seconds
        self._awake = count
        self._count = count
        self.all_asleep = asyncio.Event()
        self.all_woken = asyncio.Event()
        self.lateness_seconds: list[float] = []

    async def start(self, numbers: Iterator[int]) -> None:
        """Start one run after the other."""
        for number in numbers:
            request = StartWorkflowExecutionRequest(
                namespace="default",
                workflow_id=f"{self._task_queue}-{number}",
                workflow_type=WorkflowType(name="Sleep"),
                task_queue=TaskQueue(name=self._task_queue),
                request_id=str(uuid.uuid4()),
            )
            await self._service.start_workflow_execution(request, retry=True)

    async def work(self) -> None:
        """Poll and answer until cancelled."""
        poll = PollWorkflowTaskQueueRequest(
            namespace="default", task_queue=TaskQueue(name=self._task_queue), identity="sleepers"
        )
        while True:
            with suppress(_Expired):
                task = await _expiring(self._service.poll_workflow_task_queue(poll, timeout=_POLL_LIMIT))
                if task.task_token:
                    await self._answer(task)

    async def _answer(self, task: PollWorkflowTaskQueueResponse) -> None:
        fired = _time_of(task, EventType.EVENT_TYPE_TIMER_FIRED)
        command = _complete() if fired is not None else _sleep(self._sleep_seconds)
        await self._service.respond_workflow_task_completed(
            RespondWorkflowTaskCompletedRequest(namespace="default", task_token=task.task_token, commands=[command]),
            retry=True,
        )
        if fired is None:
            self._awake -= 1
            if not self._awake:
                self.all_asleep.set()
            return
        fell_asleep = _time_of(task, EventType.EVENT_TYPE_TIMER_STARTED)
        assert fell_asleep is not None, "a timer fired that was not started"
        self.lateness_seconds.append(fired - fell_asleep - self._sleep_seconds)
        if len(self.lateness_seconds) == self._count:
            self.all_woken.set()


def benchmark(count: int) -> Benchmark:
    """Return the benchmark of `count` sleeping workflows."""

    async def measure(subject: Subject, conditions: Conditions) -> Figures:
        client = await Client.connect(subject.address)
        sleep_seconds = max(_SHORTEST_SLEEP_SECONDS, count // _SLOWEST_STARTS_PER_SECOND)
        sleepers = _Sleepers(client.workflow_service, f"sleep-{uuid.uuid4()}", count, sleep_seconds)
        workers = [asyncio.create_task(sleepers.work()) for _ in range(_POLLERS)]
        numbers = iter(range(count))
        some = iter([next(numbers) for _ in range(count // 10)])
        try:
            await asyncio.gather(*(sleepers.start(some) for _ in range(_STARTERS)))
            await settle(subject)
            memory_of_some = subject.resident_megabytes()
            await asyncio.gather(*(sleepers.start(numbers) for _ in range(_STARTERS)))
            await sleepers.all_asleep.wait()
            memory_of_all = subject.resident_megabytes()
            await sleepers.all_woken.wait()
        finally:
            for worker in workers:
                worker.cancel()
        return {
            "sleeping.some": NOT_MEASURED if memory_of_some is None else memory_of_some,
            "sleeping.all": NOT_MEASURED if memory_of_all is None else memory_of_all,
            "sleeping.late": percentile(sleepers.lateness_seconds, 99),
        }

    return Benchmark("sleeping", _rows(count), measure, needs_fresh_server=True)


def _rows(count: int) -> tuple[Row, ...]:
    return (
        Row("sleeping.some", f"memory with {(count or _FULL) // 10:,} sleeping workflows", "MiB", digits=0),
        Row("sleeping.all", f"  with {count or _FULL:,}", "MiB", target="the same", digits=0),
        Row("sleeping.late", "  how late they wake, p99", "s"),
    )


_FULL = 1_000_000
NOT_RUN: Figures = {row.key: "not run" for row in _rows(0)}


class _Expired(Exception):
    """A poll ended without a task."""


async def _expiring(poll: Awaitable[PollWorkflowTaskQueueResponse]) -> PollWorkflowTaskQueueResponse:
    try:
        return await poll
    except RPCError as error:
        if error.status in (RPCStatusCode.DEADLINE_EXCEEDED, RPCStatusCode.CANCELLED):
            raise _Expired from error
        raise


def _time_of(task: PollWorkflowTaskQueueResponse, event_type: EventType.ValueType) -> float | None:
    """Return the time of the first event of a type, in seconds since the epoch."""
    found: HistoryEvent | None = next((e for e in task.history.events if e.event_type == event_type), None)
    return None if found is None else found.event_time.ToNanoseconds() / 1e9


def _sleep(seconds: int) -> Command:
    attributes = StartTimerCommandAttributes(timer_id="sleep")
    attributes.start_to_fire_timeout.FromSeconds(seconds)
    return Command(command_type=CommandType.COMMAND_TYPE_START_TIMER, start_timer_command_attributes=attributes)


def _complete() -> Command:
    return Command(
        command_type=CommandType.COMMAND_TYPE_COMPLETE_WORKFLOW_EXECUTION,
        complete_workflow_execution_command_attributes=CompleteWorkflowExecutionCommandAttributes(),
    )
