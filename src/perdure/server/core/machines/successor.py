"""The run that follows a closing one under the same workflow id: by retry, by cron, or because the workflow said so.

A successor is planned before its predecessor closes, since the closing event names it, and begun right after.
"""

from __future__ import annotations

import msgspec
from temporalio.api.command.v1 import ContinueAsNewWorkflowExecutionCommandAttributes
from temporalio.api.common.v1 import Payloads
from temporalio.api.enums.v1 import ContinueAsNewInitiator, RetryState
from temporalio.api.failure.v1 import Failure
from temporalio.api.history.v1 import WorkflowExecutionStartedEventAttributes

from perdure.server.core.cron import next_cron_delay
from perdure.server.core.durations import duration_of, nanos_of, time_of
from perdure.server.core.machines import start
from perdure.server.core.retry import Retry, first_task_backoff, next_workflow_retry
from perdure.server.core.transition import Transition

_BY_RETRY = ContinueAsNewInitiator.CONTINUE_AS_NEW_INITIATOR_RETRY
_BY_CRON = ContinueAsNewInitiator.CONTINUE_AS_NEW_INITIATOR_CRON_SCHEDULE
_BY_WORKFLOW = ContinueAsNewInitiator.CONTINUE_AS_NEW_INITIATOR_WORKFLOW


class Plan(msgspec.Struct):
    """A run that is to follow."""

    run_id: str
    backoff: int
    """Before its first workflow task, in nanoseconds."""
    initiator: ContinueAsNewInitiator.ValueType


def plan_after_failure(t: Transition, failure: Failure) -> tuple[RetryState.ValueType, Plan | None]:
    """Decide whether a failed or timed-out run is followed by a retry, else by the next cron run."""
    run = t.run
    policy = run.start.retry_policy if run.start.HasField("retry_policy") else None
    verdict = next_workflow_retry(
        policy,
        attempt=run.start.attempt,
        now=t.now,
        expires_at=time_of(run.start.workflow_execution_expiration_time) or None,
        failure=failure,
    )
    if isinstance(verdict, Retry):
        return RetryState.RETRY_STATE_IN_PROGRESS, _plan(t, verdict.delay_ns, _BY_RETRY)
    return verdict.state, plan_by_cron(t)


def plan_by_cron(t: Transition) -> Plan | None:
    """Plan the next run of a cron schedule, None where the run has none."""
    if not t.run.start.cron_schedule:
        return None
    delay = next_cron_delay(t.run.start.cron_schedule, t.run.execution_at, t.now)
    return None if delay is None else _plan(t, delay, _BY_CRON)


def plan_to_continue(t: Transition, command: ContinueAsNewWorkflowExecutionCommandAttributes) -> Plan:
    """Plan the run that a ContinueAsNewWorkflowExecution command asks for."""
    return _plan(t, nanos_of(command.backoff_start_interval), command.initiator or _BY_WORKFLOW)


def _plan(t: Transition, backoff: int, initiator: ContinueAsNewInitiator.ValueType) -> Plan:
    spaced = first_task_backoff(
        backoff,
        execution_at=t.run.execution_at,
        now=t.now,
        run_interval_min=t.world.limits.run_interval_min,
    )
    return Plan(t.world.new_run_id(), spaced, initiator)


def begin(
    t: Transition, plan: Plan, *, last_completion_result: Payloads | None = None, failure: Failure | None = None
) -> None:
    """Begin a retry or cron run: the same start once more, with what the last run left."""
    attributes = WorkflowExecutionStartedEventAttributes()
    attributes.CopyFrom(t.run.start)
    attributes.attempt = t.run.start.attempt + 1 if plan.initiator == _BY_RETRY else 1
    attributes.ClearField("identity")
    attributes.ClearField("continued_failure")
    if failure is not None:
        attributes.continued_failure.CopyFrom(failure)
    else:
        attributes.ClearField("last_completion_result")
        if last_completion_result is not None:
            attributes.last_completion_result.CopyFrom(last_completion_result)
    _begin(t, plan, attributes)


def continue_as_new(t: Transition, plan: Plan, command: ContinueAsNewWorkflowExecutionCommandAttributes) -> None:
    """Begin the run that a ContinueAsNewWorkflowExecution command describes."""
    before = t.run.start
    attributes = WorkflowExecutionStartedEventAttributes(
        workflow_type=command.workflow_type,
        task_queue=command.task_queue,
        workflow_task_timeout=command.workflow_task_timeout,
        attempt=before.attempt + 1 if plan.initiator == _BY_RETRY else 1,
        cron_schedule=command.cron_schedule,
        workflow_id=before.workflow_id,
    )
    for name in ("input", "header", "retry_policy", "memo", "search_attributes", "last_completion_result"):
        if command.HasField(name):
            getattr(attributes, name).CopyFrom(getattr(command, name))
    if command.HasField("failure"):
        attributes.continued_failure.CopyFrom(command.failure)
    if nanos_of(command.workflow_run_timeout):
        attributes.workflow_run_timeout.CopyFrom(command.workflow_run_timeout)
    for kept in (
        "workflow_execution_timeout",
        "workflow_execution_expiration_time",
        "priority",
        "parent_workflow_execution",
        "root_workflow_execution",
    ):
        if before.HasField(kept):
            getattr(attributes, kept).CopyFrom(getattr(before, kept))
    _stay_child(attributes, before)
    attributes.completion_callbacks.extend(before.completion_callbacks)
    _begin(t, plan, attributes)


def _stay_child(
    attributes: WorkflowExecutionStartedEventAttributes, before: WorkflowExecutionStartedEventAttributes
) -> None:
    attributes.parent_workflow_namespace = before.parent_workflow_namespace
    attributes.parent_workflow_namespace_id = before.parent_workflow_namespace_id
    attributes.parent_initiated_event_id = before.parent_initiated_event_id
    attributes.parent_initiated_event_version = before.parent_initiated_event_version


def _begin(t: Transition, plan: Plan, attributes: WorkflowExecutionStartedEventAttributes) -> None:
    run = t.run
    attributes.continued_execution_run_id = run.run_id
    attributes.first_execution_run_id = run.start.first_execution_run_id or run.run_id
    attributes.original_execution_run_id = plan.run_id
    attributes.initiator = plan.initiator
    attributes.first_workflow_task_backoff.CopyFrom(duration_of(plan.backoff))
    attributes.eager_execution_accepted = False
    run.is_current = False
    following = start.begin(run.key, plan.run_id, attributes, t.world, links=run.links)
    start.schedule_first_task(following)
    t.successor = following
