"""Checks of ScheduleActivityTask and RequestCancelActivityTask."""

from __future__ import annotations

from typing import Final

from google.protobuf.duration_pb2 import Duration
from temporalio.api.command.v1 import (
    RequestCancelActivityTaskCommandAttributes,
    ScheduleActivityTaskCommandAttributes,
)
from temporalio.api.common.v1 import RetryPolicy
from temporalio.api.enums.v1 import WorkflowTaskFailedCause

from perdure.server.core.checks.bad_command import BadCommand
from perdure.server.core.checks.facts import RunFacts
from perdure.server.core.checks.names import (
    byte_length,
    check_priority,
    fill_in_task_queue,
    has_nul,
    is_too_long,
    refuse_internal_queue,
)
from perdure.server.core.durations import MAX_DURATION, duration_fault, nanos_of, set_duration
from perdure.server.core.errors import InvalidArgument
from perdure.server.core.limits import Limits
from perdure.server.core.retry import validate_retry_policy, with_defaults

_BAD_SCHEDULE: Final = WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_BAD_SCHEDULE_ACTIVITY_ATTRIBUTES
_BAD_CANCEL: Final = WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_BAD_REQUEST_CANCEL_ACTIVITY_ATTRIBUTES
_ID_TAKEN: Final = WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_SCHEDULE_ACTIVITY_DUPLICATE_ID
_TOO_MANY: Final = WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_PENDING_ACTIVITIES_LIMIT_EXCEEDED

_DEFAULT_POLICY: Final = with_defaults(RetryPolicy())


def normalize_schedule_activity(
    attributes: ScheduleActivityTaskCommandAttributes, facts: RunFacts, limits: Limits
) -> None:
    """Check an activity and fill in its timeouts, retry policy and task queue, in place.

    Of the three timeouts schedule-to-close or start-to-close must be set; what is unset follows from what is set and
    from the run timeout, which nothing exceeds. An unset schedule-to-close is the run timeout, 0 for none.

    Raises:
        BadCommand: If it may not be scheduled; with `terminate` if its input is too large.
    """
    try:
        _normalize(attributes, facts, limits)
    except InvalidArgument as error:
        raise BadCommand(_BAD_SCHEDULE, error.message) from error
    if attributes.HasField("input") and attributes.input.ByteSize() > limits.blob_size_error:
        raise BadCommand(
            _BAD_SCHEDULE, "ScheduleActivityTaskCommandAttributes.Input exceeds size limit.", terminate=True
        )
    if facts.pending_activities >= limits.pending_activities:
        raise BadCommand(
            _TOO_MANY,
            f"the number of pending activities, {facts.pending_activities}, "
            f"has reached the per-workflow limit of {limits.pending_activities}",
        )


def _normalize(normalized: ScheduleActivityTaskCommandAttributes, facts: RunFacts, limits: Limits) -> None:
    has = normalized.HasField
    if not has("task_queue"):
        raise InvalidArgument("taskQueue is not set")
    fill_in_task_queue(normalized.task_queue, limits)
    refuse_internal_queue(normalized.task_queue.name, parent=facts.task_queue)
    activity_id, activity_type = normalized.activity_id, normalized.activity_type.name
    if not activity_id:
        raise InvalidArgument("activityId is not set")
    if not activity_type:
        raise InvalidArgument("activityType is not set")
    policy = normalized.retry_policy
    if policy.ByteSize():
        policy.CopyFrom(with_defaults(policy))
        validate_retry_policy(policy)
    else:
        policy.CopyFrom(_DEFAULT_POLICY)
    for what, name in (("activityId", activity_id), ("activityType", activity_type)):
        if is_too_long(name, limits):
            raise InvalidArgument(f"{what} exceeds length limit. Length={byte_length(name)} Limit={limits.id_length}")
        if has_nul(name):
            raise InvalidArgument(f"{what} contains a NUL character")
    if has("priority"):
        try:
            check_priority(normalized.priority, limits)
        except InvalidArgument as error:
            raise InvalidArgument(f"invalid priorities: {error.message}") from error
    _normalize_timeouts(normalized, facts.run_timeout)
    if normalized.use_workflow_build_id and normalized.task_queue.name != facts.task_queue:
        raise InvalidArgument("Activity with UseCompatibleVersion cannot run on different task queue.")


def _normalize_timeouts(normalized: ScheduleActivityTaskCommandAttributes, run_timeout: int) -> None:
    close, start, run, beat = (
        normalized.schedule_to_close_timeout,
        normalized.schedule_to_start_timeout,
        normalized.start_to_close_timeout,
        normalized.heartbeat_timeout,
    )
    to_close = _checked("ScheduleToCloseTimeout", close)
    to_start = _checked("ScheduleToStartTimeout", start)
    run_to_close = _checked("StartToCloseTimeout", run)
    heartbeat = _checked("HeartbeatTimeout", beat)
    if not to_close and not run_to_close:
        raise InvalidArgument(
            "a valid StartToClose or ScheduleToCloseTimeout is not set on ScheduleActivityTaskCommand. "
            f"ActivityId={normalized.activity_id} ActivityType={normalized.activity_type.name}"
        )
    bound = _shorter(to_close, run_timeout)
    run_to_close = _shorter(run_to_close, bound)
    set_duration(close, bound)
    set_duration(start, _shorter(to_start, bound))
    set_duration(run, run_to_close)
    set_duration(beat, min(heartbeat, run_to_close))


def _checked(what: str, duration: Duration) -> int:
    if fault := duration_fault(duration):
        raise InvalidArgument(f"invalid {what}: {fault}")
    return min(nanos_of(duration), MAX_DURATION)


def _shorter(timeout: int, bound: int) -> int:
    """Return the shorter of two timeouts, where 0 stands for none."""
    return min(timeout, bound) if timeout and bound else timeout or bound


def check_request_cancel_activity(
    attributes: RequestCancelActivityTaskCommandAttributes, facts: RunFacts, limits: Limits
) -> None:
    """Refuse a cancel request that names no activity. Raises BadCommand."""
    if attributes.scheduled_event_id <= 0:
        raise BadCommand(_BAD_CANCEL, "ScheduledEventId is not set on RequestCancelActivityTaskCommand.")


def activity_id_taken(activity_id: str) -> BadCommand:
    """Return the refusal to schedule an activity while another of the same id is pending."""
    return BadCommand(
        _ID_TAKEN,
        f"invalid history builder state for action: add-activitytask-scheduled-event, ActivityID: {activity_id}",
    )


def no_cancellable_activity(scheduled_event_id: int) -> BadCommand:
    """Return the refusal to cancel an activity that is not pending, or whose cancel was requested before.

    An activity whose closing event is still buffered counts as pending.
    """
    return BadCommand(
        _BAD_CANCEL,
        "invalid history builder state for action: add-activitytask-cancel-requested-event, "
        f"ScheduledEventID: {scheduled_event_id}",
    )
