"""Reads of a run: where it stands, and everything DescribeWorkflowExecution tells. They change nothing.

Counts and positions are those of durable events: what is only held in memory is not told to clients.
"""

from __future__ import annotations

from typing import Final

from google.protobuf.message import Message
from temporalio.api.activity.v1 import ActivityOptions
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import EventType, PendingActivityState, PendingWorkflowTaskState, TaskQueueKind
from temporalio.api.failure.v1 import Failure
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflow.v1 import (
    PendingActivityInfo,
    PendingChildExecutionInfo,
    PendingWorkflowTaskInfo,
    WorkflowExecutionInfo,
)
from temporalio.api.workflowservice.v1 import DescribeWorkflowExecutionResponse

from perdure.server.core import registry
from perdure.server.core.durations import duration_of, timestamp_of
from perdure.server.core.inputs import Describe, Locate
from perdure.server.core.machines import held_start, start
from perdure.server.core.machines.activity import Activity, State
from perdure.server.core.machines.child import Child
from perdure.server.core.replies import RunPosition
from perdure.server.core.retry import exponential_interval
from perdure.server.core.run import Run
from perdure.server.core.transition import Transition


@registry.handles(Locate)
def _locate(t: Transition, locate: Locate) -> RunPosition:
    run = t.run
    return RunPosition(run.run_id, run.next_event_id, run.status, held_start.virtual_events(run))


@registry.handles(Describe)
def _describe(t: Transition, describe: Describe) -> DescribeWorkflowExecutionResponse:
    run = t.run
    response = DescribeWorkflowExecutionResponse(workflow_execution_info=execution_info(run))
    config = response.execution_config
    config.task_queue.CopyFrom(_task_queue(run))
    for name in ("workflow_execution_timeout", "workflow_run_timeout"):
        if run.start.HasField(name):
            getattr(config, name).CopyFrom(getattr(run.start, name))
    config.default_workflow_task_timeout.CopyFrom(run.start.workflow_task_timeout)
    if run.user_metadata.ByteSize():
        config.user_metadata.CopyFrom(run.user_metadata)
    extended = response.workflow_extended_info
    extended.cancel_requested = run.cancel_requested
    extended.original_start_time.CopyFrom(timestamp_of(run.started_at))
    if run.start_request_id:
        request = extended.request_id_infos[run.start_request_id]
        request.event_type = EventType.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED
        request.event_id = 1
    _set_time(extended.run_expiration_time, start.run_expires_at(run))
    _set_time(extended.execution_expiration_time, start.execution_expires_at(run))
    for pending in run.activities.values():
        response.pending_activities.append(_pending_activity(t, pending))
    if run.mail is not None:
        response.pending_children.extend(_pending_child(child) for child in run.mail.children.values())
    if run.task.is_pending and run.is_open:
        response.pending_workflow_task.CopyFrom(_pending_task(run))
    return response


def execution_info(run: Run) -> WorkflowExecutionInfo:
    """Return what listings and descriptions tell of a run."""
    info = WorkflowExecutionInfo(
        execution=WorkflowExecution(workflow_id=run.key.workflow_id, run_id=run.run_id),
        type=run.start.workflow_type,
        start_time=timestamp_of(run.started_at),
        status=run.status,  # type: ignore[arg-type]  # kept as the plain number of the enum
        history_length=run.next_event_id - 1,
        execution_time=timestamp_of(run.execution_at),
        memo=run.memo,
        search_attributes=run.search_attributes,
        task_queue=run.task_queue,
        state_transition_count=run.transition_count,
        history_size_bytes=run.history_size_bytes,
        first_run_id=run.start.first_execution_run_id,
    )
    if run.closed_at is not None:
        info.close_time.CopyFrom(timestamp_of(run.closed_at))
        info.execution_duration.CopyFrom(duration_of(run.closed_at - run.execution_at))
    if run.start.HasField("parent_workflow_execution"):
        info.parent_execution.CopyFrom(run.start.parent_workflow_execution)
        info.parent_namespace_id = run.start.parent_workflow_namespace_id
    if run.start.HasField("root_workflow_execution"):
        info.root_execution.CopyFrom(run.start.root_workflow_execution)
    else:
        info.root_execution.CopyFrom(info.execution)
    if run.start.HasField("priority"):
        info.priority.CopyFrom(run.start.priority)
    return info


def _task_queue(run: Run) -> TaskQueue:
    return TaskQueue(name=run.task_queue, kind=TaskQueueKind.TASK_QUEUE_KIND_NORMAL)


def _pending_task(run: Run) -> PendingWorkflowTaskInfo:
    task = run.task
    info = PendingWorkflowTaskInfo(
        state=PendingWorkflowTaskState.PENDING_WORKFLOW_TASK_STATE_SCHEDULED,
        scheduled_time=timestamp_of(task.scheduled_at),
        original_scheduled_time=timestamp_of(task.first_scheduled_at),
        attempt=task.attempt,
    )
    if task.is_started:
        info.state = PendingWorkflowTaskState.PENDING_WORKFLOW_TASK_STATE_STARTED
        info.started_time.CopyFrom(timestamp_of(task.started_at))
    return info


_STATES: Final = {
    State.SCHEDULED: PendingActivityState.PENDING_ACTIVITY_STATE_SCHEDULED,
    State.BACKING_OFF: PendingActivityState.PENDING_ACTIVITY_STATE_SCHEDULED,
    State.STARTED: PendingActivityState.PENDING_ACTIVITY_STATE_STARTED,
}


def _pending_activity(t: Transition, pending: Activity) -> PendingActivityInfo:
    policy = pending.retry_policy
    state = PendingActivityState.PENDING_ACTIVITY_STATE_CANCEL_REQUESTED if pending.cancel_requested else None
    info = PendingActivityInfo(
        activity_id=pending.activity_id,
        activity_type=pending.attributes.activity_type,
        state=state or _STATES[pending.state],
        scheduled_time=timestamp_of(pending.ready_at),
        attempt=pending.attempt,
        maximum_attempts=policy.maximum_attempts,
        # The last one was not kept of a started attempt by the release before.
        last_worker_identity=pending.last_identity or pending.identity,
    )
    if pending.attributes.HasField("priority"):
        info.priority.CopyFrom(pending.attributes.priority)
    to_close = pending.deadlines[0]
    if to_close:
        info.expiration_time.CopyFrom(timestamp_of(pending.scheduled_at + to_close))
    if pending.heartbeat_details:
        info.heartbeat_details.ParseFromString(pending.heartbeat_details)
    _set_time(info.last_heartbeat_time, pending.heartbeat_at or None)
    _set_time(info.last_started_time, pending.started_at or None)
    _set_time(info.last_attempt_complete_time, pending.last_attempt_at or None)
    if pending.last_failure:
        info.last_failure.CopyFrom(Failure.FromString(pending.last_failure))
    if info.state == PendingActivityState.PENDING_ACTIVITY_STATE_SCHEDULED:
        _tell_retry(info, pending, t.now)
    _tell_options(info.activity_options, pending)
    return info


def _tell_retry(info: PendingActivityInfo, pending: Activity, now: int) -> None:
    """Tell the backoff that runs; while the attempt may start already, the one that would follow it."""
    if now < pending.ready_at:
        info.next_attempt_schedule_time.CopyFrom(timestamp_of(pending.ready_at))
        interval = pending.ready_at - pending.last_attempt_at
    else:
        # Without regard to the policy's maximum, as Temporal shows it.
        interval = exponential_interval(pending.retry_policy, pending.attempt)
    info.current_retry_interval.CopyFrom(duration_of(interval))


def _tell_options(options: ActivityOptions, pending: Activity) -> None:
    attributes = pending.attributes
    options.task_queue.name = options.task_queue.normal_name = pending.task_queue
    for name in ("schedule_to_close", "schedule_to_start", "start_to_close", "heartbeat"):
        getattr(options, f"{name}_timeout").CopyFrom(getattr(attributes, f"{name}_timeout"))
    options.retry_policy.CopyFrom(pending.retry_policy)
    options.retry_policy.ClearField("non_retryable_error_types")
    if attributes.HasField("priority"):
        options.priority.CopyFrom(attributes.priority)


def _pending_child(child: Child) -> PendingChildExecutionInfo:
    return PendingChildExecutionInfo(
        workflow_id=child.workflow_id,
        run_id=child.run_id,
        workflow_type_name=child.attributes.workflow_type.name,
        initiated_id=child.initiated_event_id,
        parent_close_policy=child.attributes.parent_close_policy,
    )


def _set_time(field: Message, at: int | None) -> None:
    if at is not None:
        field.CopyFrom(timestamp_of(at))
