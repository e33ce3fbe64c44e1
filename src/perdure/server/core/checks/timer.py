"""Checks of StartTimer and CancelTimer."""

from __future__ import annotations

from typing import Final

from temporalio.api.command.v1 import CancelTimerCommandAttributes, StartTimerCommandAttributes
from temporalio.api.enums.v1 import WorkflowTaskFailedCause

from perdure.server.core.checks.bad_command import BadCommand
from perdure.server.core.checks.facts import RunFacts
from perdure.server.core.checks.names import byte_length, has_nul, is_too_long
from perdure.server.core.durations import cap_duration, duration_fault
from perdure.server.core.limits import Limits

_BAD_START: Final = WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_BAD_START_TIMER_ATTRIBUTES
_BAD_CANCEL: Final = WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_BAD_CANCEL_TIMER_ATTRIBUTES
_ID_TAKEN: Final = WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_START_TIMER_DUPLICATE_ID


def normalize_start_timer(
    attributes: StartTimerCommandAttributes, facts: RunFacts, limits: Limits
) -> StartTimerCommandAttributes:
    """Check a timer and return a copy with its duration cut to what can be stored. A duration of zero is right.

    Raises:
        BadCommand: If it has no proper id or no proper duration.
    """
    _check_id(attributes.timer_id, "StartTimerCommand", _BAD_START, limits)
    if fault := duration_fault(attributes.start_to_fire_timeout):
        raise BadCommand(
            _BAD_START,
            f"An invalid StartToFireTimeout is set on StartTimerCommand: {fault}. TimerId={attributes.timer_id}",
        )
    normalized = StartTimerCommandAttributes()
    normalized.CopyFrom(attributes)
    cap_duration(normalized.start_to_fire_timeout)
    return normalized


def check_cancel_timer(attributes: CancelTimerCommandAttributes, facts: RunFacts, limits: Limits) -> None:
    """Refuse to cancel a timer without a proper id. Raises BadCommand."""
    _check_id(attributes.timer_id, "CancelTimerCommand", _BAD_CANCEL, limits)


def timer_id_taken(timer_id: str) -> BadCommand:
    """Return the refusal to start a timer while another of the same id is running."""
    return BadCommand(
        _ID_TAKEN, f"invalid history builder state for action: add-timer-started-event, TimerID: {timer_id}"
    )


def no_running_timer(timer_id: str) -> BadCommand:
    """Return the refusal to cancel a timer that is not running."""
    return BadCommand(
        _BAD_CANCEL, f"invalid history builder state for action: add-timer-canceled-event, TimerID: {timer_id}"
    )


def _check_id(timer_id: str, command: str, cause: WorkflowTaskFailedCause.ValueType, limits: Limits) -> None:
    if not timer_id:
        raise BadCommand(cause, f"TimerId is not set on {command}.")
    if is_too_long(timer_id, limits):
        raise BadCommand(
            cause,
            f"TimerId on {command} exceeds length limit. "
            f"TimerId={timer_id} Length={byte_length(timer_id)} Limit={limits.id_length}",
        )
    if has_nul(timer_id):
        raise BadCommand(cause, f"TimerId on {command} contains a NUL character.")
