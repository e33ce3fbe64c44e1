"""The end of a run: completed, failed, cancelled, terminated, timed out, or continued as a new run.

Exactly one closing event, and it is the last. What is pending is dropped with the run. A retry, a cron schedule or
continue-as-new makes the successor in the same transition, so there is no moment without a current run. Terminate and
timeouts do not wait for a started workflow task: they fail it first, which puts buffered events into history.

A closed run waits for nothing and has no alarm: who looks for runs whose retention is over finds it by the time of its
end, and the rule here decides, by what the namespace says now.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from temporalio.api.command.v1 import Command
from temporalio.api.common.v1 import Link, Payloads
from temporalio.api.enums.v1 import (
    CommandType,
    RetryState,
    WorkflowExecutionStatus,
    WorkflowTaskFailedCause,
)
from temporalio.api.failure.v1 import Failure
from temporalio.api.history.v1 import (
    WorkflowExecutionCanceledEventAttributes,
    WorkflowExecutionCompletedEventAttributes,
    WorkflowExecutionContinuedAsNewEventAttributes,
    WorkflowExecutionFailedEventAttributes,
    WorkflowExecutionTerminatedEventAttributes,
    WorkflowExecutionTimedOutEventAttributes,
)
from temporalio.api.sdk.v1 import UserMetadata

from perdure.server.core import registry
from perdure.server.core.checks import (
    check_cancel_workflow,
    check_complete_workflow,
    check_fail_workflow,
    normalize_continue_as_new,
)
from perdure.server.core.command_batch import CommandBatch, metadata_of
from perdure.server.core.durations import duration_of
from perdure.server.core.errors import NotFound
from perdure.server.core.events import NANOS_PER_SECOND, Event
from perdure.server.core.inputs import Delete, EndRetention, Terminate
from perdure.server.core.machines import farewell, successor, task_failure, workflow_task
from perdure.server.core.run import Run
from perdure.server.core.transition import Transition

SERVER_IDENTITY: Final = "history-service"
"""The name under which Temporal's own decisions appear in histories; tools look for it."""

_Status = WorkflowExecutionStatus
_COMPLETED = WorkflowExecutionStatus.WORKFLOW_EXECUTION_STATUS_COMPLETED
_FORCE_CLOSE = WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_FORCE_CLOSE_COMMAND

_Completed = WorkflowExecutionCompletedEventAttributes
_Failed = WorkflowExecutionFailedEventAttributes
_Canceled = WorkflowExecutionCanceledEventAttributes
_Terminated = WorkflowExecutionTerminatedEventAttributes
_TimedOut = WorkflowExecutionTimedOutEventAttributes
_ContinuedAsNew = WorkflowExecutionContinuedAsNewEventAttributes
_Closing = _Completed | _Failed | _Canceled | _Terminated | _TimedOut | _ContinuedAsNew


def close(
    t: Transition, closing: _Closing, user_metadata: UserMetadata | None = None, links: Sequence[Link] = ()
) -> None:
    """Record the closing event, last of its run, and drop what is pending."""
    run = t.run
    children = farewell.children_of(run)
    run.changes.leaves_pending = run.may_have_pending_rows()
    closing_event = t.record(closing, user_metadata=user_metadata, links=links)
    # What a command of the closing task brought about, such as the end of an activity it cancels, is told to nobody.
    run.buffered.clear()
    run.changes.closed = True
    run.drop_dead_alarms()
    run.alarm_at = None
    farewell.part(t, closing_event, children)


def terminate(
    t: Transition,
    *,
    reason: str,
    details: Payloads | None = None,
    identity: str = SERVER_IDENTITY,
    links: Sequence[Link] = (),
) -> None:
    """Close the run at once, without asking the workflow."""
    _fail_started_task(t)
    attributes = _Terminated(reason=reason, identity=identity)
    if details is not None:
        attributes.details.CopyFrom(details)
    close(t, attributes, links=links)


def time_out(t: Transition, failure: Failure | None) -> None:
    """Close the run because its time is over.

    Args:
        t: The step.
        failure: The run's timeout as a failure, by which it may be retried; None for the execution timeout, which ends
            the chain of runs.
    """
    retry_state: RetryState.ValueType = RetryState.RETRY_STATE_TIMEOUT
    plan = None
    if failure is not None:
        retry_state, plan = successor.plan_after_failure(t, failure)
    _fail_started_task(t)
    close(t, _TimedOut(retry_state=retry_state, new_execution_run_id=plan.run_id if plan else ""))
    if plan is not None:
        successor.begin(t, plan, failure=failure)


def _fail_started_task(t: Transition) -> None:
    if t.run.task.is_started:
        t.identity = SERVER_IDENTITY
        task_failure.end_with_failure(t, _FORCE_CLOSE, None)


@registry.handles(Terminate)
def _terminate(t: Transition, terminate_run: Terminate) -> None:
    run, request = t.run, terminate_run.request
    if not run.is_open:
        raise NotFound("workflow execution already completed")
    first_run_id = request.first_execution_run_id
    if first_run_id and run.start.first_execution_run_id != first_run_id:
        raise NotFound("workflow execution not found")
    details = request.details if request.HasField("details") else None
    terminate(t, reason=request.reason, details=details, identity=request.identity, links=request.links)


@registry.handles(Delete)
def _delete(t: Transition, delete: Delete) -> None:
    if t.run.is_open:
        terminate(t, reason="Delete workflow execution")
    t.run.changes.deleted = True
    t.touch()


# --- commands ---------------------------------------------------------------------------------------------------------


def _check_complete(batch: CommandBatch, command: Command) -> None:
    check_complete_workflow(command.complete_workflow_execution_command_attributes, batch.facts, batch.limits)


def _complete(t: Transition, command: Command) -> None:
    attributes = command.complete_workflow_execution_command_attributes
    plan = successor.plan_by_cron(t)
    completed = _Completed(
        workflow_task_completed_event_id=t.run.last_task_completed_event_id,
        new_execution_run_id=plan.run_id if plan else "",
    )
    result = attributes.result if attributes.HasField("result") else None
    if result is not None:
        completed.result.CopyFrom(result)
    close(t, completed, metadata_of(command))
    if plan is not None:
        successor.begin(t, plan, last_completion_result=result)


def _check_fail(batch: CommandBatch, command: Command) -> None:
    check_fail_workflow(command.fail_workflow_execution_command_attributes, batch.facts, batch.limits)


def _fail(t: Transition, command: Command) -> None:
    failure = command.fail_workflow_execution_command_attributes.failure
    retry_state, plan = successor.plan_after_failure(t, failure)
    failed = _Failed(
        failure=failure,
        retry_state=retry_state,
        workflow_task_completed_event_id=t.run.last_task_completed_event_id,
        new_execution_run_id=plan.run_id if plan else "",
    )
    close(t, failed, metadata_of(command))
    if plan is not None:
        successor.begin(t, plan, failure=failure)


def _check_cancel(batch: CommandBatch, command: Command) -> None:
    check_cancel_workflow(command.cancel_workflow_execution_command_attributes, batch.facts, batch.limits)


def _cancel(t: Transition, command: Command) -> None:
    attributes = command.cancel_workflow_execution_command_attributes
    canceled = _Canceled(workflow_task_completed_event_id=t.run.last_task_completed_event_id)
    if attributes.HasField("details"):
        canceled.details.CopyFrom(attributes.details)
    close(t, canceled, metadata_of(command))


def _check_continue(batch: CommandBatch, command: Command) -> None:
    attributes = command.continue_as_new_workflow_execution_command_attributes
    attributes.CopyFrom(normalize_continue_as_new(attributes, batch.facts, batch.limits))


def _continue_as_new(t: Transition, command: Command) -> None:
    attributes = command.continue_as_new_workflow_execution_command_attributes
    plan = successor.plan_to_continue(t, attributes)
    continued = _ContinuedAsNew(
        new_execution_run_id=plan.run_id,
        workflow_type=attributes.workflow_type,
        task_queue=attributes.task_queue,
        workflow_run_timeout=attributes.workflow_run_timeout,
        workflow_task_timeout=attributes.workflow_task_timeout,
        workflow_task_completed_event_id=t.run.last_task_completed_event_id,
        backoff_start_interval=duration_of(plan.backoff),
        initiator=plan.initiator,
    )
    for name in ("input", "failure", "last_completion_result", "header", "memo", "search_attributes"):
        if attributes.HasField(name):
            getattr(continued, name).CopyFrom(getattr(attributes, name))
    close(t, continued, metadata_of(command))
    successor.continue_as_new(t, plan, attributes)


registry.command(
    CommandType.COMMAND_TYPE_COMPLETE_WORKFLOW_EXECUTION, check=_check_complete, record=_complete, closes_run=True
)
registry.command(CommandType.COMMAND_TYPE_FAIL_WORKFLOW_EXECUTION, check=_check_fail, record=_fail, closes_run=True)
registry.command(
    CommandType.COMMAND_TYPE_CANCEL_WORKFLOW_EXECUTION, check=_check_cancel, record=_cancel, closes_run=True
)
registry.command(
    CommandType.COMMAND_TYPE_CONTINUE_AS_NEW_WORKFLOW_EXECUTION,
    check=_check_continue,
    record=_continue_as_new,
    closes_run=True,
)


# --- retention --------------------------------------------------------------------------------------------------------


@registry.handles(EndRetention)
def _end_retention(t: Transition, end: EndRetention) -> bool:
    closed_at = t.run.closed_at
    if closed_at is None or t.now < closed_at + t.world.namespace.retention_seconds * NANOS_PER_SECOND:
        return False
    t.run.changes.deleted = True
    t.touch()
    return True


# --- events -----------------------------------------------------------------------------------------------------------


def _closed(run: Run, event: Event, status: WorkflowExecutionStatus.ValueType) -> None:
    run.status = status
    run.closed_at = event.at
    workflow_task.drop(run)
    run.activities.clear()
    run.activity_ids.clear()
    run.timers.clear()
    if run.mail is not None:
        run.mail.drop_pending()


@registry.applies(_Completed)
def _apply_completed(run: Run, event: Event, attributes: _Completed) -> None:
    run.successor_run_id = attributes.new_execution_run_id
    _closed(run, event, _COMPLETED)


@registry.applies(_Failed)
def _apply_failed(run: Run, event: Event, attributes: _Failed) -> None:
    run.successor_run_id = attributes.new_execution_run_id
    _closed(run, event, _Status.WORKFLOW_EXECUTION_STATUS_FAILED)


@registry.applies(_Canceled)
def _apply_canceled(run: Run, event: Event, attributes: _Canceled) -> None:
    _closed(run, event, _Status.WORKFLOW_EXECUTION_STATUS_CANCELED)


@registry.applies(_Terminated)
def _apply_terminated(run: Run, event: Event, attributes: _Terminated) -> None:
    _closed(run, event, _Status.WORKFLOW_EXECUTION_STATUS_TERMINATED)


@registry.applies(_TimedOut)
def _apply_timed_out(run: Run, event: Event, attributes: _TimedOut) -> None:
    run.successor_run_id = attributes.new_execution_run_id
    _closed(run, event, _Status.WORKFLOW_EXECUTION_STATUS_TIMED_OUT)


@registry.applies(_ContinuedAsNew)
def _apply_continued(run: Run, event: Event, attributes: _ContinuedAsNew) -> None:
    run.successor_run_id = attributes.new_execution_run_id
    _closed(run, event, _Status.WORKFLOW_EXECUTION_STATUS_CONTINUED_AS_NEW)
