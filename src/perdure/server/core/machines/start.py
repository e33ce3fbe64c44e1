"""The beginning of a run: its first event, its first workflow task, and when its time is over.

A start delay, a cron schedule or a retry keeps the first workflow task back: then an alarm schedules it. The run
timeout counts from the end of that backoff; the execution timeout spans all runs of a chain, and counts from the start.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from temporalio.api.common.v1 import Link, Memo
from temporalio.api.enums.v1 import ContinueAsNewInitiator
from temporalio.api.history.v1 import HistoryEvent, WorkflowExecutionStartedEventAttributes
from temporalio.api.sdk.v1 import UserMetadata
from temporalio.api.workflowservice.v1 import (
    SignalWithStartWorkflowExecutionRequest,
    StartWorkflowExecutionRequest,
)

from perdure.server.core import registry
from perdure.server.core.checks import without_removals
from perdure.server.core.cron import next_cron_delay
from perdure.server.core.durations import nanos_of, set_duration, time_of, timestamp_of
from perdure.server.core.events import Event, event_at
from perdure.server.core.machines import workflow_task
from perdure.server.core.machines.query import Queries
from perdure.server.core.machines.workflow_task import WorkflowTask
from perdure.server.core.records import Relatives, WorkflowKey
from perdure.server.core.run import Run
from perdure.server.core.transition import Circumstances, Transition

FIRST_TASK_ALARM: Final = "first_workflow_task"
RUN_TIMEOUT_ALARM: Final = "run_timeout"
EXECUTION_TIMEOUT_ALARM: Final = "execution_timeout"

_COPIED_FROM_ANY_REQUEST: Final = (
    "input",
    "header",
    "retry_policy",
    "priority",
    "versioning_override",
    "workflow_execution_timeout",
    "workflow_run_timeout",
)
"""Parts of a request that are parts of the first event as they are, where they are set."""


def attributes_of_request(
    request: StartWorkflowExecutionRequest | SignalWithStartWorkflowExecutionRequest, run_id: str, now: int
) -> WorkflowExecutionStartedEventAttributes:
    """Return the first event's attributes for a start by a client.

    Args:
        request: Validated, with its defaults filled in.
        run_id: The new run's id.
        now: The time of the start.
    """
    # Filled in part by part: a message given to a constructor is serialised and parsed on its way in.
    attributes = WorkflowExecutionStartedEventAttributes(
        original_execution_run_id=run_id,
        first_execution_run_id=run_id,
        identity=request.identity,
        attempt=1,
        cron_schedule=request.cron_schedule,
        workflow_id=request.workflow_id,
    )
    if request.cron_schedule:
        attributes.initiator = ContinueAsNewInitiator.CONTINUE_AS_NEW_INITIATOR_CRON_SCHEDULE
    attributes.workflow_type.CopyFrom(request.workflow_type)
    attributes.task_queue.CopyFrom(request.task_queue)
    attributes.workflow_task_timeout.CopyFrom(request.workflow_task_timeout)
    # Looked up once, and asked before a part is touched: both cost more than what they tell.
    has = request.HasField
    for name in _COPIED_FROM_ANY_REQUEST:
        if has(name):
            getattr(attributes, name).CopyFrom(getattr(request, name))
    memo = without_removals(request.memo.fields) if has("memo") else None
    if memo:
        attributes.memo.CopyFrom(Memo(fields=memo))
    if has("search_attributes") and request.search_attributes.indexed_fields:
        attributes.search_attributes.CopyFrom(request.search_attributes)
    backoff = nanos_of(request.workflow_start_delay) if has("workflow_start_delay") else 0
    if request.cron_schedule:
        backoff = next_cron_delay(request.cron_schedule, now, now) or 0
    set_duration(attributes.first_workflow_task_backoff, backoff)
    if isinstance(request, StartWorkflowExecutionRequest):
        _add_what_only_a_start_has(attributes, request)
        attributes.eager_execution_accepted = request.request_eager_execution and not backoff
    execution_timeout = nanos_of(request.workflow_execution_timeout) if has("workflow_execution_timeout") else 0
    if execution_timeout:
        attributes.workflow_execution_expiration_time.CopyFrom(timestamp_of(now + execution_timeout))
    return attributes


def _add_what_only_a_start_has(
    attributes: WorkflowExecutionStartedEventAttributes, request: StartWorkflowExecutionRequest
) -> None:
    attributes.completion_callbacks.extend(request.completion_callbacks)
    if request.HasField("continued_failure"):
        attributes.continued_failure.CopyFrom(request.continued_failure)
    if request.HasField("last_completion_result"):
        attributes.last_completion_result.CopyFrom(request.last_completion_result)


def new_run(key: WorkflowKey, run_id: str, event: HistoryEvent) -> Run:
    """Return the empty state of a run from its first event, which is still to be applied."""
    attributes = WorkflowExecutionStartedEventAttributes()
    attributes.CopyFrom(event.workflow_execution_started_event_attributes)
    run = _run_of(key, run_id, attributes, event_at(event))
    if event.HasField("user_metadata"):
        run.user_metadata = _copied(event.user_metadata)
    run.links = tuple(event.links)
    return run


def _run_of(key: WorkflowKey, run_id: str, attributes: WorkflowExecutionStartedEventAttributes, at: int) -> Run:
    has = attributes.HasField
    return Run(
        key,
        run_id,
        attributes,
        at,
        at + nanos_of(attributes.first_workflow_task_backoff),
        WorkflowTask(),
        Queries(),
        attributes.workflow_type.name,
        attributes.task_queue.name,
        nanos_of(attributes.workflow_task_timeout),
        nanos_of(attributes.workflow_run_timeout) if has("workflow_run_timeout") else 0,
        nanos_of(attributes.workflow_execution_timeout) if has("workflow_execution_timeout") else 0,
        _relatives(attributes) if has("parent_workflow_execution") else None,
    )


def _relatives(attributes: WorkflowExecutionStartedEventAttributes) -> Relatives:
    parent, root = attributes.parent_workflow_execution, attributes.root_workflow_execution
    return Relatives(
        attributes.parent_workflow_namespace_id, parent.workflow_id, parent.run_id, root.workflow_id, root.run_id
    )


def begin(
    key: WorkflowKey,
    run_id: str,
    attributes: WorkflowExecutionStartedEventAttributes,
    world: Circumstances,
    *,
    user_metadata: UserMetadata | None = None,
    links: Sequence[Link] = (),
) -> Transition:
    """Make a run and record its first event; `schedule_first_task` is to follow."""
    run = _run_of(key, run_id, attributes, world.now)
    if user_metadata is not None:
        run.user_metadata = _copied(user_metadata)
    run.links = tuple(links)
    t = Transition(run, world, world.now)
    t.record(attributes, user_metadata=user_metadata, links=links)
    arm_timeouts(run)
    return t


def _copied(user_metadata: UserMetadata) -> UserMetadata:
    """Return a copy: a part of a message keeps all of it in memory."""
    copied = UserMetadata()
    copied.CopyFrom(user_metadata)
    return copied


def schedule_first_task(t: Transition) -> None:
    """Schedule the first workflow task, or leave that to the alarm at the end of the backoff."""
    workflow_task.schedule(t)


def arm_timeouts(run: Run) -> None:
    """Set the alarms that watch over the whole run."""
    if run.waits_for_first_task:
        run.arm(FIRST_TASK_ALARM, 0)
    if run.run_timeout:
        run.arm(RUN_TIMEOUT_ALARM, 0)
    if run.start.HasField("workflow_execution_expiration_time"):
        run.arm(EXECUTION_TIMEOUT_ALARM, 0)


@registry.applies(WorkflowExecutionStartedEventAttributes)
def _apply(run: Run, event: Event, attributes: WorkflowExecutionStartedEventAttributes) -> None:
    if attributes.HasField("memo"):
        run.memo = attributes.memo
    if attributes.HasField("search_attributes"):
        run.search_attributes = attributes.search_attributes


# --- alarms -----------------------------------------------------------------------------------------------------------


def _first_task_due_at(run: Run, key: int | str) -> int | None:
    return run.execution_at if run.is_open and run.waits_for_first_task else None


def _first_task(t: Transition, key: int | str) -> None:
    t.run.had_task = True
    workflow_task.schedule(t)


def run_expires_at(run: Run) -> int | None:
    """Return when the run times out, None where it has no run timeout."""
    return run.execution_at + run.run_timeout if run.run_timeout else None


def execution_expires_at(run: Run) -> int | None:
    """Return when the whole chain of runs times out, None where it has no execution timeout."""
    return time_of(run.start.workflow_execution_expiration_time) or None


registry.alarm(FIRST_TASK_ALARM, due_at=_first_task_due_at, fire=_first_task)
