"""Activity commands: what is refused with which words, and how timeouts follow from each other."""

from __future__ import annotations

import pytest
from google.protobuf.duration_pb2 import Duration
from hypothesis import given
from hypothesis import strategies as st
from temporalio.api.command.v1 import (
    RequestCancelActivityTaskCommandAttributes,
    ScheduleActivityTaskCommandAttributes,
)
from temporalio.api.common.v1 import ActivityType, Payload, Payloads, Priority, RetryPolicy
from temporalio.api.enums.v1 import TaskQueueKind, WorkflowTaskFailedCause
from temporalio.api.taskqueue.v1 import TaskQueue

from perdure.server.core.checks import (
    BadCommand,
    RunFacts,
    activity_id_taken,
    check_request_cancel_activity,
    no_cancellable_activity,
    normalize_schedule_activity,
)
from perdure.server.core.durations import MAX_DURATION, duration_of, nanos_of
from perdure.server.core.limits import Limits

SECOND = 1_000_000_000
BAD = WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_BAD_SCHEDULE_ACTIVITY_ATTRIBUTES
LIMITS = Limits()
INTERNAL_QUEUE = "temporal-sys-per-ns-tq"


def facts(*, run_timeout: int = 0, pending_activities: int = 0) -> RunFacts:
    return RunFacts(
        namespace="default",
        workflow_type="Order",
        task_queue="orders",
        run_timeout=run_timeout * SECOND,
        pending_activities=pending_activities,
    )


def command(
    *,
    activity_id: str = "1",
    activity_type: str = "charge",
    task_queue: TaskQueue | None = None,
    to_close: Duration | None = None,
    to_start: Duration | None = None,
    run_to_close: Duration | None = None,
    heartbeat: Duration | None = None,
    retry_policy: RetryPolicy | None = None,
    priority: Priority | None = None,
    activity_input: Payloads | None = None,
    use_workflow_build_id: bool = False,
) -> ScheduleActivityTaskCommandAttributes:
    return ScheduleActivityTaskCommandAttributes(
        activity_id=activity_id,
        activity_type=ActivityType(name=activity_type),
        task_queue=task_queue or TaskQueue(name="payments"),
        schedule_to_close_timeout=to_close,
        schedule_to_start_timeout=to_start,
        start_to_close_timeout=run_to_close,
        heartbeat_timeout=heartbeat,
        retry_policy=retry_policy,
        priority=priority,
        input=activity_input,
        use_workflow_build_id=use_workflow_build_id,
    )


FIVE = Duration(seconds=5)


def normalized_by(
    attributes: ScheduleActivityTaskCommandAttributes, run: RunFacts, limits: Limits
) -> ScheduleActivityTaskCommandAttributes:
    normalized = ScheduleActivityTaskCommandAttributes()
    normalized.CopyFrom(attributes)
    normalize_schedule_activity(normalized, run, limits)
    return normalized


def refusal(attributes: ScheduleActivityTaskCommandAttributes, run: RunFacts | None = None) -> BadCommand:
    with pytest.raises(BadCommand) as caught:
        normalize_schedule_activity(attributes, run or facts(), LIMITS)
    return caught.value


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        (ScheduleActivityTaskCommandAttributes(activity_id="1"), "taskQueue is not set"),
        (command(task_queue=TaskQueue(kind=TaskQueueKind.TASK_QUEUE_KIND_NORMAL)), "missing task queue name"),
        (command(task_queue=TaskQueue(name="q" * 1001)), "taskQueue length exceeds limit"),
        (
            command(task_queue=TaskQueue(name="/_sys/q/1")),
            "task queue name cannot start with reserved prefix /_sys/",
        ),
        (
            command(task_queue=TaskQueue(name=INTERNAL_QUEUE)),
            f"cannot use internal per-namespace task queue:{INTERNAL_QUEUE} (in parent component task queue: orders)",
        ),
        (command(task_queue=TaskQueue(name="q\0")), "taskQueue contains a NUL character"),
        (command(activity_id=""), "activityId is not set"),
        (command(activity_type=""), "activityType is not set"),
        (command(activity_id="é" * 501), "activityId exceeds length limit. Length=1002 Limit=1000"),
        (command(activity_type="x" * 1001), "activityType exceeds length limit. Length=1001 Limit=1000"),
        (command(activity_id="\0"), "activityId contains a NUL character"),
        (
            command(retry_policy=RetryPolicy(backoff_coefficient=0.5)),
            "BackoffCoefficient cannot be less than 1 on retry policy.",
        ),
        (command(priority=Priority(priority_key=-1)), "invalid priorities: priority key can't be negative"),
        (command(priority=Priority(fairness_key="k" * 65)), "invalid priorities: fairness key length exceeds limit"),
        (command(priority=Priority(fairness_weight=-1)), "invalid priorities: must be greater than zero"),
        (
            command(),
            "a valid StartToClose or ScheduleToCloseTimeout is not set on ScheduleActivityTaskCommand. "
            "ActivityId=1 ActivityType=charge",
        ),
        (command(to_close=Duration(seconds=-1)), "invalid ScheduleToCloseTimeout: negative duration"),
        (command(to_close=FIVE, to_start=Duration(nanos=-1)), "invalid ScheduleToStartTimeout: negative duration"),
        (
            command(run_to_close=Duration(seconds=5, nanos=-5)),
            "invalid StartToCloseTimeout: duration has seconds and nanos with different signs",
        ),
        (command(to_close=FIVE, heartbeat=Duration(seconds=-1)), "invalid HeartbeatTimeout: negative duration"),
        (
            command(to_close=FIVE, use_workflow_build_id=True),
            "Activity with UseCompatibleVersion cannot run on different task queue.",
        ),
    ],
)
def test_a_wrong_activity_fails_the_task(attributes: ScheduleActivityTaskCommandAttributes, reason: str) -> None:
    bad = refusal(attributes)
    assert (bad.cause, bad.reason, bad.terminate) == (BAD, reason, False)
    assert bad.message == f"BadScheduleActivityAttributes: {reason}"


def test_too_large_an_input_ends_the_run() -> None:
    large = Payloads(payloads=[Payload(data=bytes(LIMITS.blob_size_error))])
    bad = refusal(command(run_to_close=FIVE, activity_input=large))
    assert bad.terminate
    assert bad.message == (
        "BadScheduleActivityAttributes: ScheduleActivityTaskCommandAttributes.Input exceeds size limit."
    )


def test_an_input_of_just_the_limit_passes() -> None:
    payloads = Payloads(payloads=[Payload(data=bytes(LIMITS.blob_size_error - 16))])
    payloads.payloads[0].data = bytes(LIMITS.blob_size_error - (payloads.ByteSize() - len(payloads.payloads[0].data)))
    assert payloads.ByteSize() == LIMITS.blob_size_error
    normalize_schedule_activity(command(run_to_close=FIVE, activity_input=payloads), facts(), LIMITS)


def test_too_many_pending_activities_fail_the_task() -> None:
    normalize_schedule_activity(command(run_to_close=FIVE), facts(pending_activities=1999), LIMITS)
    bad = refusal(command(run_to_close=FIVE), facts(pending_activities=2000))
    assert bad.message == (
        "PendingActivitiesLimitExceeded: the number of pending activities, 2000, "
        "has reached the per-workflow limit of 2000"
    )
    assert not bad.terminate


@pytest.mark.parametrize(
    ("attributes", "run_timeout", "expected"),
    [
        (command(run_to_close=FIVE), 0, (0, 0, 5, 0)),
        (command(run_to_close=FIVE), 100, (100, 100, 5, 0)),
        (command(run_to_close=FIVE), 3, (3, 3, 3, 0)),
        (command(run_to_close=FIVE, to_start=Duration(seconds=9)), 0, (0, 9, 5, 0)),
        (command(run_to_close=FIVE, to_start=Duration(seconds=9)), 7, (7, 7, 5, 0)),
        (command(to_close=FIVE), 0, (5, 5, 5, 0)),
        (command(to_close=FIVE), 3, (3, 3, 3, 0)),
        (command(to_close=FIVE, heartbeat=Duration(seconds=50)), 0, (5, 5, 5, 5)),
        (command(run_to_close=FIVE, heartbeat=Duration(seconds=2)), 0, (0, 0, 5, 2)),
        (
            command(to_close=FIVE, run_to_close=Duration(seconds=9), to_start=Duration(seconds=11)),
            0,
            (5, 5, 5, 0),
        ),
        (
            command(to_close=FIVE, run_to_close=Duration(seconds=2), to_start=Duration(seconds=1)),
            10,
            (5, 1, 2, 0),
        ),
    ],
)
def test_unset_timeouts_follow_from_what_is_set(
    attributes: ScheduleActivityTaskCommandAttributes, run_timeout: int, expected: tuple[int, int, int, int]
) -> None:
    normalized = normalized_by(attributes, facts(run_timeout=run_timeout), LIMITS)
    timeouts = (
        normalized.schedule_to_close_timeout,
        normalized.schedule_to_start_timeout,
        normalized.start_to_close_timeout,
        normalized.heartbeat_timeout,
    )
    assert tuple(timeout.seconds for timeout in timeouts) == expected


def test_all_four_timeouts_are_set_even_where_they_are_none() -> None:
    normalized = normalized_by(command(run_to_close=FIVE), facts(), LIMITS)
    for field in ("schedule_to_close_timeout", "schedule_to_start_timeout", "heartbeat_timeout"):
        assert normalized.HasField(field)


def test_a_timeout_of_ages_is_cut_to_what_can_be_stored() -> None:
    normalized = normalized_by(command(run_to_close=Duration(seconds=9_000_000_000)), facts(), LIMITS)
    assert nanos_of(normalized.start_to_close_timeout) == MAX_DURATION


timeouts = st.integers(0, 20)


@given(to_close=timeouts, to_start=timeouts, run_to_close=timeouts, heartbeat=timeouts, run=timeouts)
def test_normalised_timeouts_bound_each_other(
    to_close: int, to_start: int, run_to_close: int, heartbeat: int, run: int
) -> None:
    attributes = command(
        to_close=duration_of(to_close),
        to_start=duration_of(to_start),
        run_to_close=duration_of(run_to_close),
        heartbeat=duration_of(heartbeat),
    )
    if not to_close and not run_to_close:
        assert "is not set" in refusal(attributes).reason
        return
    run_facts = RunFacts(namespace="default", workflow_type="Order", task_queue="orders", run_timeout=run)
    once = normalized_by(attributes, run_facts, LIMITS)
    assert normalized_by(once, run_facts, LIMITS) == once
    whole = nanos_of(once.schedule_to_close_timeout)
    parts = (nanos_of(once.schedule_to_start_timeout), nanos_of(once.start_to_close_timeout))
    assert not whole or all(0 < part <= whole for part in parts)
    assert not run or 0 < whole <= run
    assert nanos_of(once.heartbeat_timeout) <= parts[1]


def test_an_activity_is_retried_by_default() -> None:
    normalized = normalized_by(command(run_to_close=FIVE), facts(), LIMITS)
    assert normalized.retry_policy == RetryPolicy(
        initial_interval=Duration(seconds=1), backoff_coefficient=2, maximum_interval=Duration(seconds=100)
    )
    assert normalized.task_queue == TaskQueue(name="payments", kind=TaskQueueKind.TASK_QUEUE_KIND_NORMAL)


@pytest.mark.parametrize("scheduled_event_id", [0, -1])
def test_a_cancel_request_must_name_an_activity(scheduled_event_id: int) -> None:
    attributes = RequestCancelActivityTaskCommandAttributes(scheduled_event_id=scheduled_event_id)
    with pytest.raises(BadCommand) as caught:
        check_request_cancel_activity(attributes, facts(), LIMITS)
    assert caught.value.message == (
        "BadRequestCancelActivityAttributes: ScheduledEventId is not set on RequestCancelActivityTaskCommand."
    )
    check_request_cancel_activity(RequestCancelActivityTaskCommandAttributes(scheduled_event_id=5), facts(), LIMITS)


def test_refusals_that_need_the_state_of_the_run_have_temporals_words() -> None:
    assert activity_id_taken("a").message == (
        "ScheduleActivityDuplicateId: invalid history builder state for action: "
        "add-activitytask-scheduled-event, ActivityID: a"
    )
    assert no_cancellable_activity(55).message == (
        "BadRequestCancelActivityAttributes: invalid history builder state for action: "
        "add-activitytask-cancel-requested-event, ScheduledEventID: 55"
    )
