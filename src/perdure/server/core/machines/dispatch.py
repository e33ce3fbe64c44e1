"""How a workflow task reaches a worker, and what workers say of it short of completing it.

The poll's reply is built here without its history: the engine adds the bytes, from memory or from the store.
"""

from __future__ import annotations

from temporalio.api.common.v1 import WorkflowExecution, WorkflowType
from temporalio.api.enums.v1 import TaskQueueKind, WorkflowTaskFailedCause
from temporalio.api.query.v1 import WorkflowQuery
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import PollWorkflowTaskQueueResponse

from perdure._machine import move
from perdure.server.core import registry
from perdure.server.core.errors import NotFound
from perdure.server.core.inputs import (
    FailWorkflowTask,
    ResetStickiness,
    ReturnWorkflowTask,
    StartWorkflowTask,
    StickyWorkerGone,
    TakeQuery,
)
from perdure.server.core.machines import closure, held_start, query, task_failure, workflow_task
from perdure.server.core.poll_replies import workflow_task_reply
from perdure.server.core.replies import HistorySlice, QueryTask, StaleTask, WorkflowTaskStarted
from perdure.server.core.run import Run
from perdure.server.core.tokens import QueryToken, WorkflowTaskToken, encode
from perdure.server.core.transition import Transition

_MESSAGE_TOO_LARGE = WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_GRPC_MESSAGE_TOO_LARGE


@registry.handles(StartWorkflowTask)
def _start(t: Transition, start: StartWorkflowTask) -> WorkflowTaskStarted:
    task = t.run.task
    if not t.run.is_open or task.state is not workflow_task.State.SCHEDULED:
        raise StaleTask("the workflow task is not ready")
    if start.sticky_queue and task.task_queue != start.sticky_queue:
        raise StaleTask("the workflow task waits in another queue")
    held_start.hold_start(t, start.identity, start.request_id)
    return task_reply(t.run, only_new_events=bool(start.sticky_queue))


def task_reply(run: Run, *, only_new_events: bool) -> WorkflowTaskStarted:
    """Build the answer that hands the started task to its worker.

    Args:
        run: The run whose task was just started.
        only_new_events: The worker has the run in its cache and needs what came since its last task.

    Asked again for the same task it builds the same answer, but for queries that came in between.
    """
    task = run.task
    token = WorkflowTaskToken(
        run.key.namespace_id,
        run.key.workflow_id,
        run.run_id,
        task.scheduled_event_id,
        task.started_event_id,
        task.attempt,
        task.nonce,
    )
    data = encode(token)
    first = run.previous_started_event_id + 1 if only_new_events else 1
    history = HistorySlice(run.run_id, first, run.next_event_id, held_start.virtual_events(run))
    return WorkflowTaskStarted(data, workflow_task_reply(run, data, query.attach(run)), history)


@registry.handles(ReturnWorkflowTask)
def _take_back(t: Transition, returned: ReturnWorkflowTask) -> None:
    workflow_task.require(t.run, returned.token)
    task = t.run.task
    if task.is_held:
        move(workflow_task.TABLE, task, workflow_task.StartReturned)
        t.run.arm(workflow_task.STICKY_ALARM, 0)
        t.effects.append(workflow_task.ready(t.run))
        return
    # The start is in history already, and nobody has the task: it has timed out, only sooner.
    task_failure.end_with_timeout(t)
    workflow_task.schedule(t)


@registry.handles(TakeQuery)
def _take_query(t: Transition, taken: TakeQuery) -> QueryTask:
    pending = query.take(t, taken.query_id)
    if pending is None:
        raise StaleTask("the query is not waiting")
    return query_reply(t.run, pending.query_id, pending.query, has_run_cached=bool(taken.sticky_queue))


def query_reply(run: Run, query_id: str, asked: WorkflowQuery, *, has_run_cached: bool) -> QueryTask:
    """Build the answer that hands a direct query to a worker; one that has the run cached needs no history."""
    response = PollWorkflowTaskQueueResponse(
        task_token=encode(QueryToken(run.key.namespace_id, run.key.workflow_id, run.run_id, query_id)),
        workflow_execution=WorkflowExecution(workflow_id=run.key.workflow_id, run_id=run.run_id),
        workflow_type=WorkflowType(name=run.workflow_type),
        previous_started_event_id=run.previous_started_event_id,
        workflow_execution_task_queue=TaskQueue(name=run.task_queue, kind=TaskQueueKind.TASK_QUEUE_KIND_NORMAL),
        query=asked,
    )
    first = run.next_event_id if has_run_cached else 1
    return QueryTask(response, HistorySlice(run.run_id, first, run.next_event_id, []))


@registry.handles(FailWorkflowTask)
def _fail(t: Transition, failed: FailWorkflowTask) -> None:
    workflow_task.require(t.run, failed.token)
    request = failed.request
    if request.cause == _MESSAGE_TOO_LARGE:
        # The worker would decide the same and fail to say it for ever.
        closure.terminate(t, reason="GrpcMessageTooLarge")
        return
    t.identity = request.identity
    failure = request.failure if request.HasField("failure") else None
    task_failure.end_with_failure(t, request.cause, failure, binary_checksum=request.binary_checksum)
    workflow_task.schedule(t)


@registry.handles(StickyWorkerGone)
def _give_up_stickiness(t: Transition, gone: StickyWorkerGone) -> None:
    run, task = t.run, t.run.task
    if run.sticky_queue == gone.sticky_queue:
        workflow_task.clear_stickiness(run)
        t.touch()
        query.reoffer_sticky(t)
    if task.state is workflow_task.State.SCHEDULED and task.task_queue == gone.sticky_queue:
        # It may wait there although the run's stickiness was reset since.
        workflow_task.offer(t)


@registry.handles(ResetStickiness)
def _reset_stickiness(t: Transition, reset: ResetStickiness) -> None:
    if not t.run.is_open:
        raise NotFound("workflow execution already completed")
    if t.run.sticky_queue:
        workflow_task.clear_stickiness(t.run)
        t.touch()
