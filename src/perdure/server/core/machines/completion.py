"""The end of a workflow task with the worker's decisions: RespondWorkflowTaskCompleted.

All commands are checked first. A bad one fails the task with its cause, in one step, and is told to the worker after
that is durable. Otherwise the task's events, those of its commands and then the buffered ones are appended, in this
order, and the reply carries what the worker asked for: activities to run at once and the run's next task.
"""

from __future__ import annotations

from temporalio.api.common.v1 import WorkerVersionStamp
from temporalio.api.enums.v1 import WorkflowTaskFailedCause
from temporalio.api.failure.v1 import Failure, ServerFailureInfo
from temporalio.api.history.v1 import WorkflowTaskCompletedEventAttributes
from temporalio.api.workflowservice.v1 import RespondWorkflowTaskCompletedRequest

from perdure.server.core import registry
from perdure.server.core.checks import BadCommand, RunFacts
from perdure.server.core.command_batch import check_commands
from perdure.server.core.durations import nanos_of
from perdure.server.core.errors import InvalidArgument, NotFound
from perdure.server.core.inputs import CompleteWorkflowTask
from perdure.server.core.machines import activity, closure, held_start, query, task_failure, workflow_task
from perdure.server.core.machines.dispatch import task_reply
from perdure.server.core.replies import ActivityTaskStarted, WorkflowTaskCompleted
from perdure.server.core.transition import Transition

_UNHANDLED = WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_UNHANDLED_COMMAND


@registry.handles(CompleteWorkflowTask)
def _complete(t: Transition, completion: CompleteWorkflowTask) -> WorkflowTaskCompleted:
    run, request = t.run, completion.request
    workflow_task.require(run, completion.token)
    t.identity = request.identity
    is_heartbeat = _is_heartbeat(request)
    if is_heartbeat and _heartbeats_too_long(t):
        return _time_out_heartbeat(t)
    try:
        _check(t, request)
    except BadCommand as bad:
        return _fail(t, bad)
    run.close_attempted = False
    first_scheduled_at = run.task.first_scheduled_at
    _record_completed(t, request)
    _set_stickiness(t, request)
    for command in request.commands:
        registry.command_rules[command.command_type].record(t, command)
    if run.queries.pending:
        query.answer_attached(t, dict(request.query_results))
        query.detach(run)
    reply = WorkflowTaskCompleted(next_task=None, activities=[])
    if run.is_open:
        reply.activities = _start_eager_activities(t)
        needs_task = t.flush_buffered() or request.force_create_new_workflow_task
        if needs_task:
            _schedule_next(t, request, reply, first_scheduled_at if is_heartbeat else None)
    return reply


def _is_heartbeat(request: RespondWorkflowTaskCompletedRequest) -> bool:
    return request.force_create_new_workflow_task and not request.commands and not request.messages


def _heartbeats_too_long(t: Transition) -> bool:
    return t.now > t.run.task.first_scheduled_at + t.world.limits.workflow_task_heartbeat_timeout


def _time_out_heartbeat(t: Transition) -> WorkflowTaskCompleted:
    task_failure.end_with_timeout(t)
    workflow_task.clear_stickiness(t.run)
    workflow_task.schedule(t)
    return WorkflowTaskCompleted(None, [], NotFound("workflow task heartbeat timeout"))


def _check(t: Transition, request: RespondWorkflowTaskCompletedRequest) -> None:
    run = t.run
    events_of_task = 2 if run.task.is_held else 1
    if run.task.is_transient:
        events_of_task = 3
    facts = RunFacts(
        namespace=t.world.namespace.name,
        workflow_type=run.workflow_type,
        task_queue=run.task_queue,
        run_timeout=run.run_timeout,
        task_timeout=run.task_timeout,
        search_attribute_types=t.world.namespace.search_attributes,
        search_attributes=run.search_attributes,
        memo=run.memo,
        execution_timeout=run.execution_timeout,
        pending_activities=len(run.activities),
    )
    first_event_id = run.next_event_id + events_of_task
    check_commands(run, request.commands, facts, t.world.limits, t.now, first_event_id)


def _fail(t: Transition, bad: BadCommand) -> WorkflowTaskCompleted:
    """Fail the task for a bad command; a retry that fails again is left to time out, which spaces the attempts."""
    run = t.run
    message = bad.message
    if run.task.is_transient and bad.cause != _UNHANDLED:
        raise InvalidArgument(message)
    failure = Failure(message=message, server_failure_info=ServerFailureInfo())
    task_failure.end_with_failure(t, bad.cause, failure)
    run.close_attempted = bad.cause == _UNHANDLED
    if bad.terminate:
        closure.terminate(t, reason=message)
    else:
        workflow_task.schedule(t)
    return WorkflowTaskCompleted(None, [], InvalidArgument(message))


def _record_completed(t: Transition, request: RespondWorkflowTaskCompletedRequest) -> None:
    held_start.write_events(t)
    task = t.run.task
    attributes = WorkflowTaskCompletedEventAttributes(
        scheduled_event_id=task.scheduled_event_id,
        started_event_id=task.started_event_id,
        identity=request.identity,
        binary_checksum=request.binary_checksum,
    )
    # Looked up once, and asked before a part is touched: both cost more than what they tell.
    has = request.HasField
    if has("worker_version_stamp"):
        attributes.worker_version.CopyFrom(request.worker_version_stamp)
    elif has("deployment_options") and request.deployment_options.build_id:
        attributes.worker_version.CopyFrom(WorkerVersionStamp(build_id=request.deployment_options.build_id))
    if has("sdk_metadata"):
        attributes.sdk_metadata.CopyFrom(request.sdk_metadata)
    if has("metering_metadata"):
        attributes.metering_metadata.CopyFrom(request.metering_metadata)
    t.record(attributes)


def _set_stickiness(t: Transition, request: RespondWorkflowTaskCompletedRequest) -> None:
    workflow_task.clear_stickiness(t.run)
    if request.HasField("sticky_attributes"):
        sticky = request.sticky_attributes
        t.run.sticky_queue = sticky.worker_task_queue.name
        t.run.sticky_timeout = nanos_of(sticky.schedule_to_start_timeout) if t.run.sticky_queue else 0


def _start_eager_activities(t: Transition) -> list[ActivityTaskStarted]:
    return [
        activity.start(t, scheduled_event_id, t.identity, t.world.new_nonce())
        for scheduled_event_id in t.eager_activities
        if scheduled_event_id in t.run.activities
    ]


def _schedule_next(
    t: Transition,
    request: RespondWorkflowTaskCompletedRequest,
    reply: WorkflowTaskCompleted,
    first_scheduled_at: int | None,
) -> None:
    """Schedule the run's next task: within the reply where the worker takes it there, else for the queue."""
    if not request.return_new_workflow_task:
        workflow_task.schedule(t, first_scheduled_at=first_scheduled_at)
        return
    workflow_task.schedule_now(t, first_scheduled_at=first_scheduled_at)
    held_start.hold_start(t, request.identity, "request-from-RespondWorkflowTaskCompleted")
    reply.next_task = task_reply(t.run, only_new_events=True)
