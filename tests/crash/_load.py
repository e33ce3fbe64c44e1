"""The load: callers that start and signal workflows, synthetic workers that run them, and a journal of every answer.

Everybody here behaves as a good client does: a call without an answer is repeated with the same request. The journal
holds only what was really acknowledged; the audit compares it with the histories afterwards.
"""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager

import grpc
import msgspec
from temporalio.api.command.v1 import Command
from temporalio.api.common.v1 import Payload, Payloads, WorkflowExecution, WorkflowType
from temporalio.api.enums.v1 import CommandType, HistoryEventFilterType, TaskQueueKind
from temporalio.api.failure.v1 import ApplicationFailureInfo, Failure
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.taskqueue.v1 import StickyExecutionAttributes, TaskQueue
from temporalio.api.workflowservice.v1 import (
    GetWorkflowExecutionHistoryRequest,
    GetWorkflowExecutionHistoryResponse,
    PollActivityTaskQueueRequest,
    PollActivityTaskQueueResponse,
    PollWorkflowTaskQueueRequest,
    PollWorkflowTaskQueueResponse,
    RespondActivityTaskCompletedRequest,
    RespondActivityTaskCompletedResponse,
    RespondActivityTaskFailedRequest,
    RespondActivityTaskFailedResponse,
    RespondWorkflowTaskCompletedRequest,
    RespondWorkflowTaskCompletedResponse,
    SignalWorkflowExecutionRequest,
    SignalWorkflowExecutionResponse,
    StartWorkflowExecutionRequest,
    StartWorkflowExecutionResponse,
)

from tests.crash._audit import Promises
from tests.crash._calls import Calls, NoAnswer, Refused
from tests.crash._plan import START_TO_CLOSE_SECONDS, decide, payloads, random_plan

NAMESPACE = "default"
_POLL_SECONDS = 20.0
_WORKFLOW_TASK_SECONDS = 2
_OPEN_AT_MOST = 60
_PAGE_OF_EVENTS = 10
_FORGOTTEN_MARGIN_SECONDS = 1.0
"""An activity's timeout is counted on the server's clock; a refusal this close to it proves nothing."""


class Journal:
    """What the server acknowledged, and what it did that it must never do."""

    def __init__(self) -> None:
        self.promises: dict[str, Promises] = defaultdict(Promises)
        self.acknowledged: Counter[str] = Counter()
        self.finishing: set[str] = set()
        """Workflows whose completion was sent, answered or not."""
        self.faults: list[str] = []
        self._single_starts: Counter[tuple[str, str]] = Counter()

    def started_once(self, task: PollActivityTaskQueueResponse) -> None:
        """Note the start of an activity that has one attempt."""
        name = task.workflow_execution.workflow_id, task.activity_id
        self._single_starts[name] += 1
        if self._single_starts[name] > 1:
            self.faults.append(f"activity {name[1]} of {name[0]} has one attempt and was started again")

    def starts(self) -> dict[str, str]:
        """Return the run id of every acknowledged start by its workflow id."""
        return {name: promises.run_id for name, promises in self.promises.items() if promises.run_id}


class Load:
    """Callers and workers on one task queue.

    Args:
        calls: The connection.
        dice: Where everything random comes from.
        open_at_most: From how many open workflows on no more are started.
    """

    def __init__(self, calls: Calls, dice: random.Random, *, open_at_most: int = _OPEN_AT_MOST) -> None:
        self._calls = calls
        self._dice = dice
        self._open_at_most = open_at_most
        self._queue = f"crash-{uuid.uuid4()}"
        self._sticky_queue = f"{self._queue}-sticky"
        self._eager: set[asyncio.Task[None]] = set()
        self._numbers = iter(range(10**9))
        self.journal = Journal()
        self.stopping = False

    @asynccontextmanager
    async def working(self, *, workflows: int, sticky: int, activities: int) -> AsyncIterator[None]:
        """Let so many polls of each kind go on for as long as the block lasts."""
        workers = [asyncio.create_task(self.work_on_workflows(sticky=False)) for _ in range(workflows)]
        workers += [asyncio.create_task(self.work_on_workflows(sticky=True)) for _ in range(sticky)]
        workers += [asyncio.create_task(self.work_on_activities()) for _ in range(activities)]
        try:
            yield
        finally:
            for worker in workers:
                worker.cancel()
            ended = await asyncio.gather(*workers, return_exceptions=True)
            self.journal.faults += [f"a worker ended with {end!r}" for end in ended if isinstance(end, Exception)]

    # --- callers --------------------------------------------------------------------------------------------------

    async def call(self) -> None:
        """Start and signal workflows, one after the other, until the load is stopping."""
        while not self.stopping:
            if len(self.journal.promises) - len(self.journal.finishing) >= self._open_at_most:
                await asyncio.sleep(0.02)
                continue
            await self._start_and_signal(f"crash-{next(self._numbers)}-{uuid.uuid4()}")

    async def _start_and_signal(self, workflow_id: str) -> None:
        promises = self.journal.promises[workflow_id]
        plan = random_plan(self._dice)
        given = Payload(metadata={"encoding": b"json/plain"}, data=msgspec.json.encode(plan))
        request = StartWorkflowExecutionRequest(
            namespace=NAMESPACE,
            workflow_id=workflow_id,
            workflow_type=WorkflowType(name="Crash"),
            task_queue=TaskQueue(name=self._queue),
            input=Payloads(payloads=[given]),
            request_id=str(uuid.uuid4()),
        )
        request.workflow_task_timeout.FromSeconds(_WORKFLOW_TASK_SECONDS)
        reply = await self._calls.until_answered(request, StartWorkflowExecutionResponse)
        promises.run_id = reply.run_id
        self.journal.acknowledged["start"] += 1
        for number in range(plan.signals):
            await asyncio.sleep(self._dice.uniform(0, 0.1))
            await self._signal(workflow_id, f"signal-{number}", promises)

    async def _signal(self, workflow_id: str, name: str, promises: Promises) -> None:
        promises.signals_sent.add(name)
        request = SignalWorkflowExecutionRequest(
            namespace=NAMESPACE,
            workflow_execution=WorkflowExecution(workflow_id=workflow_id),
            signal_name="crash",
            input=payloads(name),
            request_id=str(uuid.uuid4()),
        )
        try:
            await self._calls.until_answered(request, SignalWorkflowExecutionResponse)
        except Refused as refusal:
            # The run has completed on an earlier attempt of this very signal, whose answer was lost.
            if refusal.first_attempt or refusal.code != grpc.StatusCode.NOT_FOUND:
                self.journal.faults.append(f"signal {name} of {workflow_id} was refused: {refusal}")
            return
        promises.signals_acknowledged.add(name)
        self.journal.acknowledged["signal"] += 1

    # --- workflow worker ------------------------------------------------------------------------------------------

    async def work_on_workflows(self, *, sticky: bool) -> None:
        """Poll one of the two workflow task queues and answer, until cancelled."""
        queue = TaskQueue(name=self._queue)
        if sticky:
            kind = TaskQueueKind.TASK_QUEUE_KIND_STICKY
            queue = TaskQueue(name=self._sticky_queue, kind=kind, normal_name=self._queue)
        poll = PollWorkflowTaskQueueRequest(namespace=NAMESPACE, task_queue=queue, identity="crash-worker")
        while True:
            try:
                task = await self._calls.once(poll, PollWorkflowTaskQueueResponse, timeout_seconds=_POLL_SECONDS)
            except NoAnswer:
                await asyncio.sleep(0.02)
                continue
            while task.task_token:
                task = await self._answer(task)

    async def _answer(self, task: PollWorkflowTaskQueueResponse) -> PollWorkflowTaskQueueResponse:
        """Answer a task; return the next one of the run, which may come with the reply."""
        workflow_id = task.workflow_execution.workflow_id
        try:
            events = await self._events_of(task)
        except Refused:
            return PollWorkflowTaskQueueResponse()
        commands = decide(events, self._queue)
        completes = _completes(commands)
        if completes:
            self.journal.finishing.add(workflow_id)
        identity = f"crash-worker-{uuid.uuid4()}"
        try:
            reply = await self._calls.until_answered(
                self._completion(task, commands, identity), RespondWorkflowTaskCompletedResponse
            )
        except Refused:
            # Timed out while the server was away, or answered by an attempt whose reply was lost, or a signal came.
            return PollWorkflowTaskQueueResponse()
        promises = self.journal.promises[workflow_id]
        promises.task_identities.add(identity)
        promises.completed |= completes
        self.journal.acknowledged["workflow task completion"] += 1
        self.journal.acknowledged["workflow completion"] += completes
        for activity in reply.activity_tasks:
            self._run_beside(self._run_activity(activity))
        return reply.workflow_task

    async def _events_of(self, task: PollWorkflowTaskQueueResponse) -> Sequence[HistoryEvent]:
        """Return the whole history up to the task; a worker asks for it when a task brings only the newest part."""
        events: Sequence[HistoryEvent] = task.history.events
        if not events or events[0].event_id != 1 or task.next_page_token:
            events = await history(self._calls, task.workflow_execution)
        return [event for event in events if event.event_id <= task.started_event_id]

    def _completion(
        self, task: PollWorkflowTaskQueueResponse, commands: Sequence[Command], identity: str
    ) -> RespondWorkflowTaskCompletedRequest:
        request = RespondWorkflowTaskCompletedRequest(
            namespace=NAMESPACE,
            task_token=task.task_token,
            commands=commands,
            identity=identity,
            return_new_workflow_task=True,
        )
        if self._dice.random() < 0.5:
            sticky = StickyExecutionAttributes(worker_task_queue=TaskQueue(name=self._sticky_queue))
            sticky.worker_task_queue.kind = TaskQueueKind.TASK_QUEUE_KIND_STICKY
            sticky.worker_task_queue.normal_name = self._queue
            sticky.schedule_to_start_timeout.FromSeconds(2)
            request.sticky_attributes.CopyFrom(sticky)
        return request

    # --- activity worker ------------------------------------------------------------------------------------------

    async def work_on_activities(self) -> None:
        """Poll the activity task queue and run what comes, until cancelled."""
        poll = PollActivityTaskQueueRequest(
            namespace=NAMESPACE, task_queue=TaskQueue(name=self._queue), identity="crash-worker"
        )
        while True:
            try:
                task = await self._calls.once(poll, PollActivityTaskQueueResponse, timeout_seconds=_POLL_SECONDS)
            except NoAnswer:
                await asyncio.sleep(0.02)
                continue
            if task.task_token:
                await self._run_activity(task)

    async def _run_activity(self, task: PollActivityTaskQueueResponse) -> None:
        began = time.monotonic()
        if task.retry_policy.maximum_attempts == 1:
            self.journal.started_once(task)
        await asyncio.sleep(self._dice.choice([0, 0, 0.01, 0.05]))
        try:
            if task.activity_type.name == "fails-first" and task.attempt == 1:
                await self._fail(task)
            else:
                await self._complete(task)
        except Refused as refusal:
            limit = START_TO_CLOSE_SECONDS - _FORGOTTEN_MARGIN_SECONDS
            if refusal.first_attempt and time.monotonic() - began < limit:
                workflow_id = task.workflow_execution.workflow_id
                self.journal.faults.append(
                    f"attempt {task.attempt} of activity {task.activity_id} of {workflow_id} was forgotten: {refusal}"
                )

    async def _complete(self, task: PollActivityTaskQueueResponse) -> None:
        result = str(uuid.uuid4())
        request = RespondActivityTaskCompletedRequest(
            namespace=NAMESPACE, task_token=task.task_token, result=payloads(result), identity="crash-worker"
        )
        await self._calls.until_answered(request, RespondActivityTaskCompletedResponse)
        self.journal.promises[task.workflow_execution.workflow_id].activity_results[task.activity_id] = result
        self.journal.acknowledged["activity completion"] += 1

    async def _fail(self, task: PollActivityTaskQueueResponse) -> None:
        failure = Failure(message="fails first", application_failure_info=ApplicationFailureInfo(type="Planned"))
        request = RespondActivityTaskFailedRequest(
            namespace=NAMESPACE, task_token=task.task_token, failure=failure, identity="crash-worker"
        )
        await self._calls.until_answered(request, RespondActivityTaskFailedResponse)
        self.journal.acknowledged["activity failure"] += 1

    def _run_beside(self, activity: Coroutine[None, None, None]) -> None:
        running = asyncio.create_task(activity)
        self._eager.add(running)
        running.add_done_callback(self._ended)

    def _ended(self, running: asyncio.Task[None]) -> None:
        self._eager.discard(running)
        if not running.cancelled() and (error := running.exception()) is not None:
            self.journal.faults.append(f"an eager activity ended with {error!r}")


async def history(calls: Calls, execution: WorkflowExecution) -> list[HistoryEvent]:
    """Read a history as it stands, all pages of it. Raises Refused where there is none."""
    events: list[HistoryEvent] = []
    request = GetWorkflowExecutionHistoryRequest(
        namespace=NAMESPACE, execution=execution, maximum_page_size=_PAGE_OF_EVENTS
    )
    while True:
        reply = await calls.until_answered(request, GetWorkflowExecutionHistoryResponse)
        events.extend(reply.history.events)
        if not reply.next_page_token:
            return events
        request.next_page_token = reply.next_page_token


async def closed(calls: Calls, execution: WorkflowExecution) -> None:
    """Wait until a run has closed, however often the server asks to wait again. Raises Refused where there is none."""
    request = GetWorkflowExecutionHistoryRequest(
        namespace=NAMESPACE,
        execution=execution,
        wait_new_event=True,
        history_event_filter_type=HistoryEventFilterType.HISTORY_EVENT_FILTER_TYPE_CLOSE_EVENT,
    )
    while True:
        try:
            reply = await calls.once(request, GetWorkflowExecutionHistoryResponse, timeout_seconds=_POLL_SECONDS)
        except NoAnswer:
            await asyncio.sleep(0.02)
            continue
        if reply.history.events:
            return
        request.next_page_token = reply.next_page_token


def _completes(commands: Sequence[Command]) -> bool:
    complete = CommandType.COMMAND_TYPE_COMPLETE_WORKFLOW_EXECUTION
    return any(command.command_type == complete for command in commands)
