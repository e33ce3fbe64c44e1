"""Retry policies: what is refused, what is filled in, and when the next attempt is."""

from __future__ import annotations

import pytest
from google.protobuf.duration_pb2 import Duration
from hypothesis import given
from hypothesis import strategies as st
from temporalio.api.common.v1 import RetryPolicy
from temporalio.api.enums.v1 import RetryState, TimeoutType
from temporalio.api.failure.v1 import (
    ActivityFailureInfo,
    ApplicationFailureInfo,
    CanceledFailureInfo,
    Failure,
    ServerFailureInfo,
    TerminatedFailureInfo,
    TimeoutFailureInfo,
)

from perdure.server.core.durations import MAX_DURATION, duration_of, nanos_of
from perdure.server.core.errors import InvalidArgument
from perdure.server.core.retry import (
    NoRetry,
    Retry,
    first_task_backoff,
    is_retryable,
    next_retry,
    next_workflow_retry,
    requested_delay,
    validate_retry_policy,
    with_defaults,
)

SECOND = 1_000_000_000
NOW = 1_700_000_000 * SECOND


def seconds(count: float) -> Duration:
    return duration_of(int(count * SECOND))


def timed_out(timeout_type: TimeoutType.ValueType) -> Failure:
    return Failure(timeout_failure_info=TimeoutFailureInfo(timeout_type=timeout_type))


def application(error_type: str = "Boom", *, delay: Duration | None = None, non_retryable: bool = False) -> Failure:
    info = ApplicationFailureInfo(type=error_type, next_retry_delay=delay, non_retryable=non_retryable)
    return Failure(application_failure_info=info)


def after(
    attempt: int,
    policy: RetryPolicy | None = None,
    *,
    failure: Failure | None = None,
    expires_in: float | None = None,
) -> Retry | NoRetry:
    """The verdict on an activity's attempt; a policy is filled with the defaults first."""
    return next_retry(
        with_defaults(policy or RetryPolicy()),
        attempt=attempt,
        now=NOW,
        expires_at=None if expires_in is None else NOW + int(expires_in * SECOND),
        failure=failure,
        next_retry_delay=requested_delay(failure),
    )


# --- policies ---------------------------------------------------------------------------------------------------------


def test_an_empty_policy_gets_the_servers_defaults() -> None:
    assert with_defaults(RetryPolicy()) == RetryPolicy(
        initial_interval=seconds(1), backoff_coefficient=2.0, maximum_interval=seconds(100), maximum_attempts=0
    )


def test_what_is_set_stays_and_the_maximum_interval_follows_the_initial_one() -> None:
    policy = RetryPolicy(initial_interval=seconds(3), backoff_coefficient=1.5, non_retryable_error_types=["Fatal"])
    assert with_defaults(policy) == RetryPolicy(
        initial_interval=seconds(3),
        backoff_coefficient=1.5,
        maximum_interval=seconds(300),
        non_retryable_error_types=["Fatal"],
    )


def test_filling_in_leaves_the_original_alone() -> None:
    policy = RetryPolicy()
    with_defaults(policy)
    assert policy == RetryPolicy()


def test_intervals_are_cut_to_what_can_be_stored() -> None:
    filled = with_defaults(RetryPolicy(initial_interval=Duration(seconds=300_000_000_000)))
    assert nanos_of(filled.initial_interval) == nanos_of(filled.maximum_interval) == MAX_DURATION


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (
            RetryPolicy(initial_interval=Duration(seconds=-1), backoff_coefficient=2),
            "invalid InitialInterval set on retry policy: negative duration",
        ),
        (
            RetryPolicy(initial_interval=Duration(seconds=5, nanos=-1), backoff_coefficient=2),
            "invalid InitialInterval set on retry policy: duration has seconds and nanos with different signs",
        ),
        (RetryPolicy(backoff_coefficient=0.5), "BackoffCoefficient cannot be less than 1 on retry policy."),
        (
            RetryPolicy(maximum_interval=Duration(nanos=-1), backoff_coefficient=2),
            "invalid MaximumInterval set on retry policy: negative duration",
        ),
        (
            RetryPolicy(initial_interval=seconds(10), maximum_interval=seconds(5), backoff_coefficient=2),
            "MaximumInterval cannot be less than InitialInterval on retry policy.",
        ),
        (
            RetryPolicy(maximum_attempts=-1, backoff_coefficient=2),
            "MaximumAttempts cannot be negative on retry policy.",
        ),
        (
            RetryPolicy(non_retryable_error_types=["TemporalTimeout:Nap"], backoff_coefficient=2),
            "Invalid timeout type value: Nap.",
        ),
        (
            RetryPolicy(non_retryable_error_types=["TemporalTimeout:Unspecified"], backoff_coefficient=2),
            "Invalid timeout type value: Unspecified.",
        ),
    ],
)
def test_a_policy_that_cannot_be_meant_is_refused(policy: RetryPolicy, message: str) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        validate_retry_policy(policy)
    assert refusal.value.message == message


@pytest.mark.parametrize(
    "policy",
    [
        None,
        with_defaults(RetryPolicy()),
        RetryPolicy(maximum_attempts=1, backoff_coefficient=0.1),
        RetryPolicy(
            backoff_coefficient=1,
            non_retryable_error_types=["Any", "TemporalTimeout:Heartbeat", "TemporalTimeout:TIMEOUT_TYPE_HEARTBEAT"],
        ),
    ],
)
def test_a_proper_policy_passes(policy: RetryPolicy | None) -> None:
    validate_retry_policy(policy)


# --- activities -------------------------------------------------------------------------------------------------------


def test_the_delay_grows_by_the_coefficient_up_to_the_maximum_interval() -> None:
    delays = [after(attempt, RetryPolicy(maximum_interval=seconds(5))) for attempt in range(1, 6)]
    assert delays == [Retry(s * SECOND) for s in (1, 2, 4, 5, 5)]


@pytest.mark.parametrize("attempt", [63, 64, 65, 5_000, 2_000_000_000])
def test_an_exponential_beyond_64_bits_is_the_maximum_interval(attempt: int) -> None:
    assert after(attempt) == Retry(100 * SECOND)


@pytest.mark.parametrize("coefficient", [float("inf"), float("nan")])
def test_a_coefficient_without_a_value_is_the_maximum_interval(coefficient: float) -> None:
    assert after(2, RetryPolicy(backoff_coefficient=coefficient)) == Retry(100 * SECOND)


def test_without_any_interval_there_is_no_retry() -> None:
    verdict = next_retry(RetryPolicy(), attempt=1, now=NOW, expires_at=None, failure=None, next_retry_delay=None)
    assert verdict == NoRetry(RetryState.RETRY_STATE_TIMEOUT)


def test_the_last_attempt_is_not_followed_by_another() -> None:
    policy = RetryPolicy(maximum_attempts=2)
    assert after(1, policy) == Retry(SECOND)
    assert after(2, policy) == NoRetry(RetryState.RETRY_STATE_MAXIMUM_ATTEMPTS_REACHED)


def test_an_attempt_may_begin_at_the_deadline_but_not_after_it() -> None:
    assert after(1, expires_in=1) == Retry(SECOND)
    assert after(1, expires_in=0.999_999_999) == NoRetry(RetryState.RETRY_STATE_TIMEOUT)


def test_attempts_run_out_before_the_deadline_is_looked_at() -> None:
    verdict = after(1, RetryPolicy(maximum_attempts=1), expires_in=0)
    assert verdict == NoRetry(RetryState.RETRY_STATE_MAXIMUM_ATTEMPTS_REACHED)


@pytest.mark.parametrize(
    "failure",
    [
        None,
        Failure(message="no info"),
        application(),
        Failure(server_failure_info=ServerFailureInfo()),
        Failure(activity_failure_info=ActivityFailureInfo()),
        timed_out(TimeoutType.TIMEOUT_TYPE_START_TO_CLOSE),
        timed_out(TimeoutType.TIMEOUT_TYPE_HEARTBEAT),
    ],
)
def test_these_failures_are_retried(failure: Failure | None) -> None:
    assert after(1, failure=failure) == Retry(SECOND)


@pytest.mark.parametrize(
    "failure",
    [
        application(non_retryable=True),
        application("Fatal"),
        Failure(server_failure_info=ServerFailureInfo(non_retryable=True)),
        Failure(canceled_failure_info=CanceledFailureInfo()),
        Failure(terminated_failure_info=TerminatedFailureInfo()),
        timed_out(TimeoutType.TIMEOUT_TYPE_UNSPECIFIED),
        timed_out(TimeoutType.TIMEOUT_TYPE_HEARTBEAT),
    ],
)
def test_these_failures_are_not_retried(failure: Failure) -> None:
    policy = RetryPolicy(non_retryable_error_types=["Fatal", "TemporalTimeout:Heartbeat"])
    assert after(1, policy, failure=failure) == NoRetry(RetryState.RETRY_STATE_NON_RETRYABLE_FAILURE)


def test_a_named_timeout_does_not_stop_the_retry_of_another() -> None:
    policy = RetryPolicy(non_retryable_error_types=["TemporalTimeout:Heartbeat"])
    assert after(1, policy, failure=timed_out(TimeoutType.TIMEOUT_TYPE_START_TO_CLOSE)) == Retry(SECOND)


@pytest.mark.parametrize(
    "timeout_type", [TimeoutType.TIMEOUT_TYPE_SCHEDULE_TO_START, TimeoutType.TIMEOUT_TYPE_SCHEDULE_TO_CLOSE]
)
def test_a_passed_schedule_deadline_is_a_timeout_not_a_failure(timeout_type: TimeoutType.ValueType) -> None:
    assert after(1, failure=timed_out(timeout_type)) == NoRetry(RetryState.RETRY_STATE_TIMEOUT)


def test_a_requested_delay_takes_the_place_of_the_exponential_and_of_the_maximum_interval() -> None:
    assert after(7, failure=application(delay=seconds(500))) == Retry(500 * SECOND)
    assert after(7, failure=application(delay=seconds(0.5))) == Retry(SECOND // 2)


def test_a_requested_delay_still_ends_with_the_attempts_and_the_deadline() -> None:
    late = application(delay=seconds(50))
    assert after(1, failure=late, expires_in=49) == NoRetry(RetryState.RETRY_STATE_TIMEOUT)
    assert after(1, RetryPolicy(maximum_attempts=1), failure=late) == NoRetry(
        RetryState.RETRY_STATE_MAXIMUM_ATTEMPTS_REACHED
    )


def test_a_requested_delay_of_zero_ends_an_activity() -> None:
    assert after(1, failure=application(delay=Duration())) == NoRetry(RetryState.RETRY_STATE_TIMEOUT)


def test_a_requested_delay_below_zero_means_at_once() -> None:
    assert after(1, failure=application(delay=Duration(seconds=-5))) == Retry(0)


@given(
    attempt=st.integers(1, 2**31 - 1),
    initial=st.integers(1, 10**13),
    coefficient=st.floats(1, 1e300),
    expires_in=st.none() | st.integers(0, 10**15),
    maximum_attempts=st.integers(0, 10),
)
def test_a_retry_is_within_its_bounds(
    attempt: int, initial: int, coefficient: float, expires_in: int | None, maximum_attempts: int
) -> None:
    policy = with_defaults(
        RetryPolicy(
            initial_interval=duration_of(initial), backoff_coefficient=coefficient, maximum_attempts=maximum_attempts
        )
    )
    expires_at = None if expires_in is None else NOW + expires_in
    verdict = next_retry(policy, attempt=attempt, now=NOW, expires_at=expires_at, failure=None, next_retry_delay=None)
    if isinstance(verdict, Retry):
        assert min(initial, nanos_of(policy.maximum_interval)) <= verdict.delay_ns <= nanos_of(policy.maximum_interval)
        assert expires_at is None or NOW + verdict.delay_ns <= expires_at
        assert maximum_attempts == 0 or attempt < maximum_attempts
    else:
        assert verdict.state in (
            RetryState.RETRY_STATE_TIMEOUT,
            RetryState.RETRY_STATE_MAXIMUM_ATTEMPTS_REACHED,
        )


# --- workflows --------------------------------------------------------------------------------------------------------


def workflow_after(policy: RetryPolicy | None, failure: Failure, attempt: int = 1) -> Retry | NoRetry:
    return next_workflow_retry(policy, attempt=attempt, now=NOW, expires_at=None, failure=failure)


def test_a_workflow_without_a_policy_is_not_retried() -> None:
    assert workflow_after(None, application()) == NoRetry(RetryState.RETRY_STATE_RETRY_POLICY_NOT_SET)


def test_a_workflow_is_retried_by_its_policy() -> None:
    policy = with_defaults(RetryPolicy(maximum_attempts=3))
    assert workflow_after(policy, application(), attempt=2) == Retry(2 * SECOND)
    assert workflow_after(policy, application(non_retryable=True)) == NoRetry(
        RetryState.RETRY_STATE_NON_RETRYABLE_FAILURE
    )
    assert workflow_after(policy, application(), attempt=3) == NoRetry(RetryState.RETRY_STATE_MAXIMUM_ATTEMPTS_REACHED)


@pytest.mark.parametrize(("delay", "held"), [(5, 5), (500, 100), (0, 100)])
def test_a_workflows_requested_delay_is_cut_to_the_maximum_interval(delay: int, held: int) -> None:
    policy = with_defaults(RetryPolicy())
    assert workflow_after(policy, application(delay=seconds(delay))) == Retry(held * SECOND)


def test_a_delay_is_only_read_from_application_failures() -> None:
    assert requested_delay(None) is None
    assert requested_delay(Failure(server_failure_info=ServerFailureInfo())) is None
    assert requested_delay(application()) is None
    assert requested_delay(application(delay=seconds(2))) == 2 * SECOND


def test_is_retryable_looks_at_the_kind_of_failure_alone() -> None:
    assert is_retryable(application(), RetryPolicy(maximum_attempts=1))


@pytest.mark.parametrize(
    ("lived", "asked", "backoff"),
    [
        (0.2, 0, 0.8),
        (0.2, 0.5, 0.8),
        (0.2, 0.9, 0.9),
        (1, 0, 0),
        (60, 5, 5),
    ],
)
def test_runs_begin_at_least_a_second_apart(lived: float, asked: float, backoff: float) -> None:
    result = first_task_backoff(
        int(asked * SECOND), execution_at=NOW - int(lived * SECOND), now=NOW, run_interval_min=SECOND
    )
    assert result == int(backoff * SECOND)
