"""Whether something failed is tried again, and when: retry policies of activities and of workflows.

Attempts count from 1 and include the first; `attempt` is always the one that has just failed. A delay is never
randomised. A policy that has been through `with_defaults` always has a maximum interval, so the exponential can be
cut where it leaves the range of 64 bits. Must never read a clock: `now` is passed in.
"""

from __future__ import annotations

import msgspec
from temporalio.api.common.v1 import RetryPolicy
from temporalio.api.enums.v1 import RetryState, TimeoutType
from temporalio.api.failure.v1 import Failure

from perdure.server.core.durations import MAX_DURATION, cap_duration, duration_fault, duration_of, nanos_of
from perdure.server.core.errors import InvalidArgument

TIMEOUT_TYPE_PREFIX = "TemporalTimeout:"
"""A non-retryable error type with this prefix names a kind of timeout, as in `TemporalTimeout:StartToClose`."""

_TIMEOUT_NAMES = {
    TimeoutType.TIMEOUT_TYPE_START_TO_CLOSE: "StartToClose",
    TimeoutType.TIMEOUT_TYPE_SCHEDULE_TO_START: "ScheduleToStart",
    TimeoutType.TIMEOUT_TYPE_SCHEDULE_TO_CLOSE: "ScheduleToClose",
    TimeoutType.TIMEOUT_TYPE_HEARTBEAT: "Heartbeat",
}
_ACCEPTED_TIMEOUT_NAMES = frozenset(_TIMEOUT_NAMES.values()) | {
    TimeoutType.Name(timeout_type) for timeout_type in _TIMEOUT_NAMES
}
_RETRYABLE_TIMEOUTS = (TimeoutType.TIMEOUT_TYPE_START_TO_CLOSE, TimeoutType.TIMEOUT_TYPE_HEARTBEAT)
_SCHEDULE_TIMEOUTS = (TimeoutType.TIMEOUT_TYPE_SCHEDULE_TO_START, TimeoutType.TIMEOUT_TYPE_SCHEDULE_TO_CLOSE)
_INT64_END = 2**63


class Retry(msgspec.Struct, frozen=True):
    """Try again after this delay."""

    delay_ns: int


class NoRetry(msgspec.Struct, frozen=True):
    """Do not try again, for this reason."""

    state: RetryState.ValueType


class RetryDefaults(msgspec.Struct, frozen=True, kw_only=True):
    """What fills the unset fields of a retry policy. The same for activities and for workflows."""

    initial_interval: int = 1_000_000_000
    """Nanoseconds before the second attempt."""
    backoff_coefficient: float = 2.0
    maximum_interval_coefficient: int = 100
    """The maximum interval, as a multiple of the initial one."""
    maximum_attempts: int = 0
    """0 means unlimited."""


DEFAULTS = RetryDefaults()


def validate_retry_policy(policy: RetryPolicy | None) -> None:
    """Refuse a retry policy that cannot be meant.

    Args:
        policy: The policy, as a rule after `with_defaults`. None is right: no retries.

    Raises:
        InvalidArgument: With the field that is wrong.
    """
    if policy is None or policy.maximum_attempts == 1:
        # With a single attempt nothing else of the policy is ever used.
        return
    if fault := duration_fault(policy.initial_interval):
        raise InvalidArgument(f"invalid InitialInterval set on retry policy: {fault}")
    if policy.backoff_coefficient < 1:
        raise InvalidArgument("BackoffCoefficient cannot be less than 1 on retry policy.")
    if fault := duration_fault(policy.maximum_interval):
        raise InvalidArgument(f"invalid MaximumInterval set on retry policy: {fault}")
    if 0 < nanos_of(policy.maximum_interval) < nanos_of(policy.initial_interval):
        raise InvalidArgument("MaximumInterval cannot be less than InitialInterval on retry policy.")
    if policy.maximum_attempts < 0:
        raise InvalidArgument("MaximumAttempts cannot be negative on retry policy.")
    for error_type in policy.non_retryable_error_types:
        _validate_error_type(error_type)


def _validate_error_type(error_type: str) -> None:
    if not error_type.startswith(TIMEOUT_TYPE_PREFIX):
        return
    timeout_name = error_type.removeprefix(TIMEOUT_TYPE_PREFIX)
    if timeout_name not in _ACCEPTED_TIMEOUT_NAMES:
        raise InvalidArgument(f"Invalid timeout type value: {timeout_name}.")


def with_defaults(policy: RetryPolicy, defaults: RetryDefaults = DEFAULTS) -> RetryPolicy:
    """Return a copy of the policy with its unset fields filled and its intervals cut to what can be stored.

    A workflow without a policy is not retried: fill one in only where the caller sent one. An activity without a
    policy is retried: pass an empty one.

    Args:
        policy: The policy as sent.
        defaults: What fills the unset fields.
    """
    filled = RetryPolicy()
    filled.CopyFrom(policy)
    if filled.maximum_attempts == 0:
        filled.maximum_attempts = defaults.maximum_attempts
    if nanos_of(filled.initial_interval) == 0:
        filled.initial_interval.CopyFrom(duration_of(defaults.initial_interval))
    cap_duration(filled.initial_interval)
    if nanos_of(filled.maximum_interval) == 0:
        interval = max(0, nanos_of(filled.initial_interval)) * defaults.maximum_interval_coefficient
        filled.maximum_interval.CopyFrom(duration_of(min(interval, MAX_DURATION)))
    cap_duration(filled.maximum_interval)
    if filled.backoff_coefficient == 0:
        filled.backoff_coefficient = defaults.backoff_coefficient
    return filled


def requested_delay(failure: Failure | None) -> int | None:
    """Return the delay in nanoseconds that the failure asks for before the next attempt, None if it asks for none."""
    if failure is None or not failure.HasField("application_failure_info"):
        return None
    info = failure.application_failure_info
    return nanos_of(info.next_retry_delay) if info.HasField("next_retry_delay") else None


def next_retry(
    policy: RetryPolicy,
    *,
    attempt: int,
    now: int,
    expires_at: int | None,
    failure: Failure | None,
    next_retry_delay: int | None,
) -> Retry | NoRetry:
    """Decide whether an activity is tried again.

    Args:
        policy: The activity's policy, filled by `with_defaults`.
        attempt: The attempt that failed, from 1.
        now: The time in nanoseconds.
        expires_at: The schedule-to-close deadline in nanoseconds, None for none.
        failure: Why the attempt failed, None where no failure is known.
        next_retry_delay: The delay in nanoseconds the failure asks for (`requested_delay`), which takes the place of
            the exponential and of the maximum interval.
    """
    if failure is not None and _is_schedule_timeout(failure):
        # The deadline has passed: that is no verdict about the attempts made before it.
        return NoRetry(RetryState.RETRY_STATE_TIMEOUT)
    if not is_retryable(failure, policy):
        return NoRetry(RetryState.RETRY_STATE_NON_RETRYABLE_FAILURE)
    if next_retry_delay is None:
        interval, maximum = exponential_interval(policy, attempt), nanos_of(policy.maximum_interval)
    else:
        interval, maximum = next_retry_delay, next_retry_delay
    return _within_bounds(policy, attempt, now, expires_at, interval, maximum)


def next_workflow_retry(
    policy: RetryPolicy | None, *, attempt: int, now: int, expires_at: int | None, failure: Failure | None
) -> Retry | NoRetry:
    """Decide whether a failed run is followed by another attempt.

    Unlike for an activity, a delay the failure asks for is cut to the maximum interval.

    Args:
        policy: The run's policy, filled by `with_defaults`; None if it was started without one.
        attempt: The attempt that failed, from 1.
        now: The time in nanoseconds.
        expires_at: The execution timeout's deadline in nanoseconds, None for none.
        failure: Why the run failed; for a run that timed out, a timeout failure of type start-to-close.
    """
    if policy is None:
        return NoRetry(RetryState.RETRY_STATE_RETRY_POLICY_NOT_SET)
    if not is_retryable(failure, policy):
        return NoRetry(RetryState.RETRY_STATE_NON_RETRYABLE_FAILURE)
    delay = requested_delay(failure)
    interval = exponential_interval(policy, attempt) if delay is None else delay
    return _within_bounds(policy, attempt, now, expires_at, interval, nanos_of(policy.maximum_interval))


def is_retryable(failure: Failure | None, policy: RetryPolicy) -> bool:
    """Whether the kind of failure allows another attempt at all, deadlines and counts aside."""
    if failure is None:
        return True
    info = failure.WhichOneof("failure_info")
    if info in ("terminated_failure_info", "canceled_failure_info"):
        return False
    if info == "timeout_failure_info":
        timeout_type = failure.timeout_failure_info.timeout_type
        if timeout_type not in _RETRYABLE_TIMEOUTS:
            return False
        return TIMEOUT_TYPE_PREFIX + _TIMEOUT_NAMES[timeout_type] not in policy.non_retryable_error_types
    if info == "server_failure_info":
        return not failure.server_failure_info.non_retryable
    if info == "application_failure_info":
        application = failure.application_failure_info
        return not application.non_retryable and application.type not in policy.non_retryable_error_types
    return True


def first_task_backoff(backoff: int, *, execution_at: int, now: int, run_interval_min: int) -> int:
    """Return the backoff of a successor's first task, lengthened where runs would follow each other too closely.

    Args:
        backoff: The backoff in nanoseconds that retry, cron or the worker asks for; 0 for none.
        execution_at: When the closing run began to execute (its start plus its own first backoff), in nanoseconds.
        now: The time in nanoseconds.
        run_interval_min: The shortest time from one run's beginning to the next's, in nanoseconds.
    """
    lifetime = now - execution_at
    if lifetime + backoff < run_interval_min:
        return run_interval_min - lifetime
    return backoff


def _is_schedule_timeout(failure: Failure) -> bool:
    if failure.WhichOneof("failure_info") != "timeout_failure_info":
        return False
    return failure.timeout_failure_info.timeout_type in _SCHEDULE_TIMEOUTS


def exponential_interval(policy: RetryPolicy, attempt: int) -> int:
    """Return the exponential interval in nanoseconds; 0 where it leaves the range of 64 bits."""
    try:
        interval = nanos_of(policy.initial_interval) * policy.backoff_coefficient ** (max(attempt, 1) - 1)
    except OverflowError:
        return 0
    # Written so that a coefficient that is not a number ends here as well.
    return int(interval) if interval < _INT64_END else 0


def _within_bounds(
    policy: RetryPolicy, attempt: int, now: int, expires_at: int | None, interval: int, maximum: int
) -> Retry | NoRetry:
    if 0 < policy.maximum_attempts <= max(attempt, 1):
        return NoRetry(RetryState.RETRY_STATE_MAXIMUM_ATTEMPTS_REACHED)
    if maximum == 0 and interval <= 0:
        return NoRetry(RetryState.RETRY_STATE_TIMEOUT)
    if maximum != 0 and not 0 < interval <= maximum:
        interval = maximum
    if expires_at is not None and now + interval > expires_at:
        return NoRetry(RetryState.RETRY_STATE_TIMEOUT)
    # A failure may ask for a delay below zero; for an activity that means at once.
    return Retry(max(interval, 0))
