"""Simulated workers. They answer, twice, late, with an old token or never; they go away while they poll, or are killed.

What they receive and what they are told goes into the ledger.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TypeVar

from temporalio.api.enums.v1 import QueryResultType, TaskQueueKind, WorkflowTaskFailedCause
from temporalio.api.failure.v1 import Failure
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.query.v1 import WorkflowQueryResult
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import (
    GetWorkflowExecutionHistoryRequest,
    GetWorkflowExecutionHistoryResponse,
    PollActivityTaskQueueRequest,
    PollActivityTaskQueueResponse,
    PollWorkflowTaskQueueRequest,
    PollWorkflowTaskQueueResponse,
    RespondWorkflowTaskCompletedRequest,
    RespondWorkflowTaskCompletedResponse,
    RespondWorkflowTaskFailedRequest,
)

from perdure.server.core.durations import duration_of
from perdure.server.core.errors import InvalidArgument, NotFound
from perdure.server.core.inputs import (
    AnswerQuery,
    FailWorkflowTask,
)
from perdure.server.core.records import WorkflowKey
from perdure.server.core.tokens import decode_activity, decode_query, decode_workflow_task
from tests.simulation.activity_work import ActivityWork, Habits
from tests.simulation.ledger import Answer, Fate
from tests.simulation.processes import NAMESPACE_ID
from tests.simulation.programs import ACTIVITIES, WORKFLOWS, View, decide, payloads
from tests.simulation.world import CallFailed, Door, World

T = TypeVar("T")


class Worker:
    """One worker process with a few polls of each kind.

    Args:
        world: Where it lives.
        name: Unlike any other's.
        habits: How reliable it is.
    """

    def __init__(self, world: World, name: str, habits: Habits) -> None:
        self._world = world
        self.name = name
        self._habits = habits
        self._rng = world.rng(f"worker {name}")
        self._answers = 0
        self._old_tokens: list[bytes] = []
        self._activities = ActivityWork(world, self._rng, self._identity, habits)
        self._cache: dict[str, list[HistoryEvent]] = {}
        self._running: dict[asyncio.Task[None], None] = {}
        self.sticky_queue = f"sticky of {name}" if habits.is_sticky else ""

    def start(self) -> None:
        """Begin to poll."""
        for _ in range(2):
            self._run(self._poll_workflow_tasks(""))
            self._run(self._poll_activities())
        if self.sticky_queue:
            self._run(self._poll_workflow_tasks(self.sticky_queue))

    async def kill(self) -> None:
        """End at once; what it was doing stays unanswered, its cache is lost."""
        tasks = list(self._running)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._cache.clear()

    def _run(self, work: Coroutine[object, object, None]) -> None:
        task = self._world.start(work)
        self._running[task] = None
        task.add_done_callback(self._running.pop)

    def _happens(self, share: float) -> bool:
        return self._world.faults.is_on and self._rng.random() < share

    def _identity(self) -> str:
        self._answers += 1
        return f"{self.name}, answer {self._answers}"

    # --- workflow tasks -------------------------------------------------------------------------------------------

    async def _poll_workflow_tasks(self, sticky_queue: str) -> None:
        queue = TaskQueue(name=sticky_queue or WORKFLOWS, kind=TaskQueueKind.TASK_QUEUE_KIND_NORMAL)
        if sticky_queue:
            queue.kind = TaskQueueKind.TASK_QUEUE_KIND_STICKY
            queue.normal_name = WORKFLOWS
        request = PollWorkflowTaskQueueRequest(namespace="default", task_queue=queue, identity=self.name)
        while True:
            try:
                reply = await self._poll(
                    lambda engine, deadline: engine.poll_workflow_task(NAMESPACE_ID, request, deadline)
                )
            except CallFailed:
                await asyncio.sleep(self._rng.uniform(0, 0.5))
                continue
            if isinstance(reply, bytes):
                self._run(self._work_on(PollWorkflowTaskQueueResponse.FromString(reply)))

    async def _poll(self, request: Callable[[Door, float], Coroutine[object, object, T]]) -> T:
        """Poll; a worker that goes away hangs up and gets nothing."""
        loop = asyncio.get_running_loop()
        seconds = self._habits.poll_seconds
        poll = self._world.poll(lambda engine: request(engine, loop.time() + seconds))
        if not self._happens(self._habits.leaves_while_polling):
            return await poll
        try:
            async with asyncio.timeout(self._rng.uniform(0, 3)):
                return await poll
        except TimeoutError:
            raise CallFailed("went away") from None

    async def _work_on(self, task: PollWorkflowTaskQueueResponse) -> None:
        """Do a workflow task or a query, with all the ways to do it badly."""
        try:
            if task.HasField("query"):
                await self._answer_query(task)
            else:
                await self._do_workflow_task(task)
        except (CallFailed, NotFound):
            # What went wrong is in the ledger; the server is to sort it out.
            return

    async def _do_workflow_task(self, task: PollWorkflowTaskQueueResponse) -> None:
        habits = self._habits
        events = await self._history(task)
        assert events[-1].event_id == task.started_event_id, "a task's history ends with its start"
        if self._happens(habits.never_answers):
            return
        if self._happens(habits.answers_late):
            await asyncio.sleep(self._rng.uniform(0, 14))
        if self._old_tokens and self._happens(habits.answers_with_old_token):
            await self._answer_with(self._rng.choice(self._old_tokens), task, events, must_be_refused=True)
        if self._happens(habits.fails_task):
            await self._fail(task)
            return
        await self._answer_with(task.task_token, task, events)
        self._old_tokens.append(task.task_token)
        if self._happens(habits.answers_twice):
            await self._answer_with(task.task_token, task, events, must_be_refused=True)

    async def _history(self, task: PollWorkflowTaskQueueResponse) -> list[HistoryEvent]:
        """Return the whole history of a task: what came, what is cached, and the pages that are still to be fetched."""
        events = list(task.history.events)
        run_id = task.workflow_execution.run_id
        cached = self._cache.get(run_id, [])[: task.previous_started_event_id]
        if events and events[0].event_id == 1:
            cached = []
        elif not events or events[0].event_id != len(cached) + 1:
            cached, events = [], await self._fetch(task, b"")
            if len(events) < task.started_event_id:
                # The start was only in memory, and the process that held it has lost it since.
                raise CallFailed("the task is gone")
        if task.next_page_token and (cached or events[0].event_id == 1) and events[-1].event_id < task.started_event_id:
            events += await self._fetch(task, task.next_page_token)
        whole = [event for event in cached + events if event.event_id <= task.started_event_id]
        assert [event.event_id for event in whole] == list(range(1, task.started_event_id + 1)), (
            f"{run_id} up to {task.started_event_id}: {[event.event_id for event in whole]}"
        )
        return whole

    async def _fetch(self, task: PollWorkflowTaskQueueResponse, page_token: bytes) -> list[HistoryEvent]:
        execution = task.workflow_execution
        key = WorkflowKey(NAMESPACE_ID, execution.workflow_id)
        request = GetWorkflowExecutionHistoryRequest(
            namespace="default", execution=execution, maximum_page_size=256, next_page_token=page_token
        )
        events: list[HistoryEvent] = []
        while True:
            reply = await self._world.call(lambda engine: engine.read_history(key, request, 0.0, for_worker=True))
            page = GetWorkflowExecutionHistoryResponse.FromString(reply) if isinstance(reply, bytes) else reply
            events.extend(page.history.events)
            if not page.next_page_token:
                return events
            request.next_page_token = page.next_page_token

    async def _answer_with(
        self,
        token: bytes,
        task: PollWorkflowTaskQueueResponse,
        events: list[HistoryEvent],
        *,
        must_be_refused: bool = False,
    ) -> None:
        decision = decide(events)
        identity = self._identity()
        request = RespondWorkflowTaskCompletedRequest(
            namespace="default",
            task_token=token,
            identity=identity,
            commands=decision.commands,
            force_create_new_workflow_task=decision.force_new_task,
            return_new_workflow_task=self._rng.random() < 0.5,
        )
        for query_id in task.queries:
            request.query_results[query_id].CopyFrom(_answered(events))
        if self.sticky_queue:
            request.sticky_attributes.worker_task_queue.name = self.sticky_queue
            request.sticky_attributes.schedule_to_start_timeout.CopyFrom(duration_of(3_000_000_000))
        decoded = decode_workflow_task(token)
        answer = Answer(decoded.run_id, "workflow_task_completed", history=events)
        self._world.ledger.answers[identity] = answer
        # Where the outcome stays unknown, what is cached may be of the past.
        self._cache.pop(decoded.run_id, None)
        try:
            reply = await self._world.call(lambda engine: engine.complete_workflow_task(decoded, request))
        except NotFound:
            answer.fate = Fate.REFUSED
            if not must_be_refused:
                raise
            return
        except InvalidArgument:
            # Events came in while it was closing the run (UnhandledCommand): the task failed, another one follows.
            answer.fate = Fate.REFUSED
            return
        assert not must_be_refused, f"a second answer to a workflow task of {decoded.run_id} was taken"
        answer.fate = Fate.ACKNOWLEDGED
        if self.sticky_queue:
            self._cache[decoded.run_id] = events
        self._take_reply(reply)

    def _take_reply(self, reply: RespondWorkflowTaskCompletedResponse | bytes) -> None:
        if isinstance(reply, bytes):
            reply = RespondWorkflowTaskCompletedResponse.FromString(reply)
        for activity in reply.activity_tasks:
            self._receive(activity)
        if reply.HasField("workflow_task"):
            self._run(self._work_on(reply.workflow_task))

    async def _fail(self, task: PollWorkflowTaskQueueResponse) -> None:
        token = decode_workflow_task(task.task_token)
        request = RespondWorkflowTaskFailedRequest(
            task_token=task.task_token,
            identity=self._identity(),
            cause=WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_WORKFLOW_WORKER_UNHANDLED_FAILURE,
            failure=Failure(message="the simulated worker has a bug"),
        )
        key = WorkflowKey(token.namespace_id, token.workflow_id)
        given = FailWorkflowTask(token.run_id, token, request)
        await self._world.call(lambda engine: engine.submit(key, given))

    async def _answer_query(self, task: PollWorkflowTaskQueueResponse) -> None:
        token = decode_query(task.task_token)
        key = WorkflowKey(token.namespace_id, token.workflow_id)
        events = list(task.history.events) or self._cache.get(token.run_id, [])
        if task.next_page_token:
            events += await self._fetch(task, task.next_page_token)
        if self._happens(self._habits.never_answers):
            return
        if events:
            given = AnswerQuery(token.run_id, token.query_id, _answered(events))
        else:
            failed = WorkflowQueryResult(
                result_type=QueryResultType.QUERY_RESULT_TYPE_FAILED, error_message="the run is not cached"
            )
            given = AnswerQuery(token.run_id, token.query_id, failed)
        await self._world.call(lambda engine: engine.submit(key, given))

    # --- activities -----------------------------------------------------------------------------------------------

    async def _poll_activities(self) -> None:
        request = PollActivityTaskQueueRequest(
            namespace="default", task_queue=TaskQueue(name=ACTIVITIES), identity=self.name
        )
        while True:
            try:
                reply = await self._poll(
                    lambda engine, deadline: engine.poll_activity_task(NAMESPACE_ID, request, deadline)
                )
            except CallFailed:
                await asyncio.sleep(self._rng.uniform(0, 0.5))
                continue
            if isinstance(reply, bytes):
                self._receive(PollActivityTaskQueueResponse.FromString(reply))

    def _receive(self, task: PollActivityTaskQueueResponse) -> None:
        self._world.ledger.give_activity(
            task.workflow_execution.run_id, decode_activity(task.task_token).scheduled_event_id, task.attempt, self.name
        )
        if not self._happens(self._habits.never_answers):
            self._run(self._activities.work_on(task))


def _answered(events: list[HistoryEvent]) -> WorkflowQueryResult:
    """Answer a query: how many signals the workflow has seen."""
    return WorkflowQueryResult(
        result_type=QueryResultType.QUERY_RESULT_TYPE_ANSWERED, answer=payloads(str(View(events).signals).encode())
    )
