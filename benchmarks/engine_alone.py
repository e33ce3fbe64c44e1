"""The engine alone, in one process on one core, on an SQLite file with full durability: no server, no SDK.

The worker is synthetic and calls the engine as a handler does. It answers the first task of a run with an activity, the
next ones with another activity or the run's completion. Every start, task and completion passes through the same rules
and the same durable batches as in a server; what is missing is gRPC and the handlers.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TypeVar

import uvloop
from google.protobuf.message import Message
from temporalio.api.command.v1 import (
    Command,
    CompleteWorkflowExecutionCommandAttributes,
    ScheduleActivityTaskCommandAttributes,
)
from temporalio.api.common.v1 import ActivityType, Payload, Payloads, RetryPolicy, WorkflowType
from temporalio.api.enums.v1 import CommandType, WorkflowIdConflictPolicy, WorkflowIdReusePolicy
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import (
    PollActivityTaskQueueRequest,
    PollActivityTaskQueueResponse,
    PollWorkflowTaskQueueRequest,
    PollWorkflowTaskQueueResponse,
    RespondActivityTaskCompletedRequest,
    RespondWorkflowTaskCompletedRequest,
    RespondWorkflowTaskCompletedResponse,
    StartWorkflowExecutionRequest,
)

from benchmarks._database import new_database
from benchmarks._measure import Benchmark, Conditions, Figures, Row, Subject
from perdure.server.app import make_store, spare_the_collector
from perdure.server.core import tokens
from perdure.server.core.inputs import CompleteActivity, Start
from perdure.server.core.records import WorkflowKey
from perdure.server.engine.clock import SystemClock
from perdure.server.engine.engine import Engine
from perdure.server.engine.namespaces import DEFAULT_NAMESPACE
from perdure.server.settings import ServerSettings

_WORKFLOWS = 6000
_SEQUENCES = 800
_STEPS = 10
_WARM_UP = 300
_STARTERS = 32
_WORKFLOW_POLLERS = 64
_ACTIVITY_POLLERS = 64
_OPEN_AT_MOST = 200
_POLL_SECONDS = 60.0

_FIRST_STARTED = 3
_EVENTS_PER_ACTIVITY = 6
# The worker is part of what is measured, and should be as little of it as possible: it parses most of what it sends.
_GREETING = Payloads(payloads=[Payload(metadata={"encoding": b"json/plain"}, data=b'"Hello, user!"')])
_RESULT = RespondActivityTaskCompletedRequest(
    namespace=DEFAULT_NAMESPACE, result=_GREETING, identity="a"
).SerializeToString()


async def measure(subject: Subject, conditions: Conditions) -> Figures:
    """Run one round in a process of its own, so that nothing else shares its core or its interpreter."""
    counts = [str(conditions.count(_WORKFLOWS)), str(conditions.count(_SEQUENCES))]
    async with new_database(conditions) as db:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "benchmarks.engine_alone", db, *counts, stdout=asyncio.subprocess.PIPE
        )
        output, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"the engine's process ended with {process.returncode}")
    figures: dict[str, float] = json.loads(output)
    return figures


BENCHMARK = Benchmark(
    "engine",
    (
        Row(
            "engine.eager_workflows",
            "engine alone, one core, FULL sync: one-activity workflows, the activity taken eagerly",
            "/s",
            target="2,000",
            more_is_better=True,
            digits=0,
        ),
        Row("engine.eager_workflow_cpu", "  CPU per workflow, start and synthetic worker included", "ms"),
        Row("engine.workflows", "  the same, the activity polled for", "/s", "2,000", more_is_better=True, digits=0),
        Row("engine.workflow_cpu", "  CPU per workflow", "ms"),
        Row("engine.activities", "  activities of ten-activity workflows", "/s", more_is_better=True, digits=0),
        Row("engine.activity_cpu", "  CPU per activity", "ms"),
    ),
    measure,
    alone=True,
)


class _SyntheticWorker:
    """Callers and workers of one kind of workflow: `steps` activities one after the other.

    Args:
        engine: What is measured.
        steps: How many activities a workflow has.
        asks_eagerly: Whether its workers ask for activities in the reply to the workflow task, as the SDKs do.
    """

    def __init__(self, engine: Engine, steps: int, *, asks_eagerly: bool) -> None:
        self._engine = engine
        self._steps = steps
        self._asks_eagerly = asks_eagerly
        self._namespace_id = engine.namespaces.resolve(DEFAULT_NAMESPACE).namespace_id
        self._queue = f"bench-{uuid.uuid4()}"
        self._room = asyncio.Semaphore(_OPEN_AT_MOST)
        self._closed = 0

    async def run(self, count: int) -> None:
        """Start `count` workflows and run all of them to their end."""
        self._closed = 0
        done = asyncio.Event()
        workers = [asyncio.create_task(self._work_on_workflows(count, done)) for _ in range(_WORKFLOW_POLLERS)]
        workers += [asyncio.create_task(self._work_on_activities()) for _ in range(_ACTIVITY_POLLERS)]
        numbers = iter(range(count))
        try:
            async with asyncio.TaskGroup() as starters:
                for _ in range(_STARTERS):
                    starters.create_task(self._start(numbers))
            await done.wait()
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    async def _start(self, numbers: Iterator[int]) -> None:
        for number in numbers:
            await self._room.acquire()
            request = StartWorkflowExecutionRequest.FromString(_start_of(self._queue))
            request.workflow_id = f"{self._queue}-{number}"
            request.request_id = f"start-{number}"
            await self._engine.submit(WorkflowKey(self._namespace_id, request.workflow_id), Start("", request))

    async def _work_on_workflows(self, count: int, done: asyncio.Event) -> None:
        poll = PollWorkflowTaskQueueRequest(
            namespace=DEFAULT_NAMESPACE, task_queue=TaskQueue(name=self._queue), identity="w"
        )
        loop = asyncio.get_running_loop()
        while True:
            deadline = loop.time() + _POLL_SECONDS
            task = _parsed(
                await self._engine.poll_workflow_task(self._namespace_id, poll, deadline), PollWorkflowTaskQueueResponse
            )
            if not task.task_token:
                continue
            is_last, answer = self._decide(task)
            request = RespondWorkflowTaskCompletedRequest.FromString(answer)
            request.task_token = task.task_token
            reply = _parsed(
                await self._engine.complete_workflow_task(tokens.decode_workflow_task(task.task_token), request),
                RespondWorkflowTaskCompletedResponse,
            )
            for activity_task in reply.activity_tasks:
                await self._complete_activity(activity_task)
            if is_last:
                self._room.release()
                self._closed += 1
                if self._closed == count:
                    done.set()

    def _decide(self, task: PollWorkflowTaskQueueResponse) -> tuple[bool, bytes]:
        """Return whether this is the workflow's last task, and the answer, which lacks only the token.

        Decides by where the task stands: its history is read, as a worker must, but there is no code to replay.
        """
        completed = (task.started_event_id - _FIRST_STARTED) // _EVENTS_PER_ACTIVITY
        if completed == self._steps:
            return True, _completion()
        return False, _schedule(str(completed), self._queue, self._asks_eagerly)

    async def _work_on_activities(self) -> None:
        poll = PollActivityTaskQueueRequest(
            namespace=DEFAULT_NAMESPACE, task_queue=TaskQueue(name=self._queue), identity="a"
        )
        loop = asyncio.get_running_loop()
        while True:
            deadline = loop.time() + _POLL_SECONDS
            task = _parsed(
                await self._engine.poll_activity_task(self._namespace_id, poll, deadline), PollActivityTaskQueueResponse
            )
            if not task.task_token:
                continue
            await self._complete_activity(task)

    async def _complete_activity(self, task: PollActivityTaskQueueResponse) -> None:
        request = RespondActivityTaskCompletedRequest.FromString(_RESULT)
        request.task_token = task.task_token
        token = tokens.decode_activity(task.task_token)
        key = WorkflowKey(token.namespace_id, token.workflow_id)
        await self._engine.submit(key, CompleteActivity(token.run_id, token, request))


_ReplyT = TypeVar("_ReplyT", bound=Message)


def _parsed(reply: _ReplyT | bytes, kind: type[_ReplyT]) -> _ReplyT:
    """Read a reply that the engine may have serialised already."""
    return kind.FromString(reply) if isinstance(reply, bytes) else reply


@lru_cache
def _start_of(task_queue: str) -> bytes:
    """Return a start that lacks only its ids."""
    request = StartWorkflowExecutionRequest(
        namespace=DEFAULT_NAMESPACE,
        workflow_type=WorkflowType(name="Bench"),
        task_queue=TaskQueue(name=task_queue),
        input=_GREETING,
        workflow_id_reuse_policy=WorkflowIdReusePolicy.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE,
        workflow_id_conflict_policy=WorkflowIdConflictPolicy.WORKFLOW_ID_CONFLICT_POLICY_FAIL,
    )
    request.workflow_task_timeout.FromSeconds(10)
    return request.SerializeToString()


@lru_cache
def _schedule(activity_id: str, task_queue: str, is_eager: bool) -> bytes:
    attributes = ScheduleActivityTaskCommandAttributes(
        activity_id=activity_id,
        activity_type=ActivityType(name="greet"),
        task_queue=TaskQueue(name=task_queue),
        input=_GREETING,
        retry_policy=RetryPolicy(),
        request_eager_execution=is_eager,
    )
    attributes.start_to_close_timeout.FromSeconds(60)
    return _answer(
        Command(
            command_type=CommandType.COMMAND_TYPE_SCHEDULE_ACTIVITY_TASK,
            schedule_activity_task_command_attributes=attributes,
        )
    )


@lru_cache
def _completion() -> bytes:
    return _answer(
        Command(
            command_type=CommandType.COMMAND_TYPE_COMPLETE_WORKFLOW_EXECUTION,
            complete_workflow_execution_command_attributes=CompleteWorkflowExecutionCommandAttributes(result=_GREETING),
        )
    )


def _answer(command: Command) -> bytes:
    return RespondWorkflowTaskCompletedRequest(
        namespace=DEFAULT_NAMESPACE, commands=[command], identity="w"
    ).SerializeToString()


async def _alone(db: str, workflows: int, sequences: int) -> Figures:
    """Take the figures in this process."""
    store = make_store(ServerSettings(db=db))
    await store.open()
    engine = Engine(store, SystemClock())
    await engine.start()
    try:
        await _SyntheticWorker(engine, 1, asks_eagerly=True).run(_WARM_UP)
        eager_seconds, eager_cpu_seconds = await _timed(_SyntheticWorker(engine, 1, asks_eagerly=True), workflows)
        seconds, cpu_seconds = await _timed(_SyntheticWorker(engine, 1, asks_eagerly=False), workflows)
        steps_seconds, steps_cpu_seconds = await _timed(_SyntheticWorker(engine, _STEPS, asks_eagerly=False), sequences)
    finally:
        await engine.stop()
        await store.close()
    return {
        "engine.eager_workflows": workflows / eager_seconds,
        "engine.eager_workflow_cpu": eager_cpu_seconds * 1000 / workflows,
        "engine.workflows": workflows / seconds,
        "engine.workflow_cpu": cpu_seconds * 1000 / workflows,
        "engine.activities": sequences * _STEPS / steps_seconds,
        "engine.activity_cpu": steps_cpu_seconds * 1000 / (sequences * _STEPS),
    }


async def _timed(worker: _SyntheticWorker, count: int) -> tuple[float, float]:
    began, cpu_before = time.perf_counter(), time.process_time()
    await worker.run(count)
    return time.perf_counter() - began, time.process_time() - cpu_before


def _main(arguments: Sequence[str]) -> None:
    """Pin this process to one core, before any thread is made, and print the figures as JSON."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    db, workflows, sequences = arguments
    spare_the_collector()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        figures = runner.run(_alone(db, int(workflows), int(sequences)))
    print(json.dumps(figures))


if __name__ == "__main__":
    _main(sys.argv[1:])
