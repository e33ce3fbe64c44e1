"""Activities of the official SDK: retries, timeouts, heartbeats and cancellation."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import pytest
from temporalio import activity, workflow
from temporalio.api.enums.v1 import PendingActivityState
from temporalio.api.workflow.v1 import PendingActivityInfo
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError, RetryState, TimeoutType
from temporalio.exceptions import TimeoutError as TemporalTimeoutError

from tests.interop.python.harness import (
    event_name,
    event_names,
    events_of,
    eventually,
    fresh_id,
    only_event,
    worker,
)

pytestmark = pytest.mark.process


@dataclass
class Call:
    """How to call an activity; times in seconds, 0 for none."""

    name: str
    argument: str = ""
    task_queue: str = ""
    attempts: int = 0
    start_to_close: float = 0
    schedule_to_start: float = 0
    schedule_to_close: float = 0
    heartbeat: float = 0
    non_retryable: str = ""


def seconds(value: float) -> timedelta | None:
    return timedelta(seconds=value) if value else None


@workflow.defn
class Caller:
    """Calls an activity as it is told to."""

    @workflow.run
    async def run(self, call: Call) -> str:
        result: str = await workflow.execute_activity(
            call.name,
            call.argument,
            task_queue=call.task_queue or None,
            start_to_close_timeout=seconds(call.start_to_close),
            schedule_to_start_timeout=seconds(call.schedule_to_start),
            schedule_to_close_timeout=seconds(call.schedule_to_close),
            heartbeat_timeout=seconds(call.heartbeat),
            retry_policy=RetryPolicy(
                initial_interval=timedelta(milliseconds=20),
                backoff_coefficient=1.0,
                maximum_attempts=call.attempts,
                non_retryable_error_types=[call.non_retryable] if call.non_retryable else None,
            ),
        )
        return result


@workflow.defn
class Canceller:
    """Cancels an activity once it is told that the activity runs."""

    def __init__(self) -> None:
        self.running = False

    @workflow.run
    async def run(self, wait: bool) -> str:
        kind = workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED
        called = workflow.start_activity(
            beat_until_cancelled,
            start_to_close_timeout=timedelta(seconds=10),
            heartbeat_timeout=timedelta(seconds=5),
            cancellation_type=kind if wait else workflow.ActivityCancellationType.TRY_CANCEL,
        )
        await workflow.wait_condition(lambda: self.running)
        called.cancel()
        try:
            return await called
        except ActivityError as error:
            return type(error.cause).__name__

    @workflow.signal
    def activity_runs(self) -> None:
        self.running = True


@activity.defn
async def fail_until(attempt: str) -> str:
    if activity.info().attempt < int(attempt):
        raise ApplicationError(f"attempt {activity.info().attempt} failed", type="TooEarly")
    return f"attempt {activity.info().attempt}"


@activity.defn
async def ask_for_a_later_retry(delay: str) -> str:
    if activity.info().attempt == 1:
        raise ApplicationError("later", next_retry_delay=timedelta(seconds=float(delay)))
    return "now"


@activity.defn
async def hang(details: str) -> str:
    if details:
        activity.heartbeat(details)
    await asyncio.sleep(30)
    return "never"


@activity.defn
async def continue_from_heartbeat(_: str) -> str:
    if activity.info().attempt == 1:
        activity.heartbeat("page", 7)
        raise ApplicationError("crash after page 7")
    return " ".join(map(str, activity.info().heartbeat_details))


@activity.defn
async def beat_until_cancelled() -> str:
    handle = activity.client().get_workflow_handle(activity.info().workflow_id or "")
    await handle.signal("activity_runs")
    try:
        while True:
            activity.heartbeat()
            await asyncio.sleep(0.05)
    except asyncio.CancelledError:
        await asyncio.sleep(0.05)
        raise


ACTIVITIES: list[Callable[..., object]] = [
    fail_until,
    ask_for_a_later_retry,
    hang,
    continue_from_heartbeat,
    beat_until_cancelled,
]


async def failure_of(handle: WorkflowHandle[Caller, str]) -> ActivityError:
    with pytest.raises(WorkflowFailureError) as failed:
        await handle.result()
    assert isinstance(failed.value.cause, ActivityError)
    return failed.value.cause


async def test_a_retried_activity_leaves_one_start_in_the_history(client: Client) -> None:
    call = Call("fail_until", "3", start_to_close=5)
    async with worker(client, workflows=[Caller], activities=ACTIVITIES) as both:
        handle = await client.start_workflow(Caller.run, call, id=fresh_id("retry"), task_queue=both.task_queue)
        assert await handle.result() == "attempt 3"
    started = (await only_event(handle, "ActivityTaskStarted")).activity_task_started_event_attributes
    assert started.attempt == 3
    assert started.last_failure.message == "attempt 2 failed"
    assert len(await events_of(handle)) == 11


async def test_the_last_allowed_attempt_fails_the_activity(client: Client) -> None:
    call = Call("fail_until", "9", start_to_close=5, attempts=2)
    async with worker(client, workflows=[Caller], activities=ACTIVITIES) as both:
        handle = await client.start_workflow(Caller.run, call, id=fresh_id("attempts"), task_queue=both.task_queue)
        error = await failure_of(handle)
    assert error.retry_state == RetryState.MAXIMUM_ATTEMPTS_REACHED
    assert isinstance(error.cause, ApplicationError)
    assert error.cause.message == "attempt 2 failed"


async def test_a_non_retryable_type_is_not_retried(client: Client) -> None:
    call = Call("fail_until", "9", start_to_close=5, non_retryable="TooEarly")
    async with worker(client, workflows=[Caller], activities=ACTIVITIES) as both:
        handle = await client.start_workflow(Caller.run, call, id=fresh_id("type"), task_queue=both.task_queue)
        error = await failure_of(handle)
    assert error.retry_state == RetryState.NON_RETRYABLE_FAILURE
    started = (await only_event(handle, "ActivityTaskStarted")).activity_task_started_event_attributes
    assert started.attempt == 1


async def test_a_failure_may_name_the_delay_of_the_next_retry(client: Client) -> None:
    call = Call("ask_for_a_later_retry", "0.5", start_to_close=5)
    async with worker(client, workflows=[Caller], activities=ACTIVITIES) as both:
        handle = await client.start_workflow(Caller.run, call, id=fresh_id("later"), task_queue=both.task_queue)
        assert await handle.result() == "now"
    scheduled = await only_event(handle, "ActivityTaskScheduled")
    started = await only_event(handle, "ActivityTaskStarted")
    assert started.event_time.ToDatetime() - scheduled.event_time.ToDatetime() >= timedelta(milliseconds=500)


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        pytest.param(Call("hang", attempts=1, start_to_close=0.3), TimeoutType.START_TO_CLOSE, id="start-to-close"),
        pytest.param(Call("hang", attempts=1, start_to_close=5, heartbeat=0.3), TimeoutType.HEARTBEAT, id="heartbeat"),
        pytest.param(
            Call("hang", task_queue="nobody-polls", start_to_close=5, schedule_to_start=0.3),
            TimeoutType.SCHEDULE_TO_START,
            id="schedule-to-start",
        ),
        pytest.param(
            Call("hang", start_to_close=5, schedule_to_close=0.3), TimeoutType.SCHEDULE_TO_CLOSE, id="schedule-to-close"
        ),
    ],
)
async def test_each_timeout_of_an_activity_ends_it(client: Client, call: Call, kind: TimeoutType) -> None:
    async with worker(client, workflows=[Caller], activities=ACTIVITIES) as both:
        handle = await client.start_workflow(Caller.run, call, id=fresh_id("timeout"), task_queue=both.task_queue)
        error = await failure_of(handle)
    assert isinstance(error.cause, TemporalTimeoutError)
    assert error.cause.type == kind
    assert "ActivityTaskTimedOut" in await event_names(handle)


async def test_a_heartbeat_timeout_keeps_the_last_details(client: Client) -> None:
    call = Call("hang", "half done", attempts=1, start_to_close=10, heartbeat=0.3)
    async with worker(client, workflows=[Caller], activities=ACTIVITIES) as both:
        handle = await client.start_workflow(Caller.run, call, id=fresh_id("details"), task_queue=both.task_queue)
        error = await failure_of(handle)
    assert isinstance(error.cause, TemporalTimeoutError)
    assert error.cause.message == "activity Heartbeat timeout"
    assert list(error.cause.last_heartbeat_details) == ["half done"]


async def test_the_next_attempt_gets_the_details_of_the_last_heartbeat(client: Client) -> None:
    call = Call("continue_from_heartbeat", start_to_close=5, heartbeat=5)
    async with worker(client, workflows=[Caller], activities=ACTIVITIES) as both:
        handle = await client.start_workflow(Caller.run, call, id=fresh_id("page"), task_queue=both.task_queue)
        assert await handle.result() == "page 7"


async def test_a_heartbeating_activity_learns_that_it_is_cancelled(client: Client) -> None:
    async with worker(client, workflows=[Canceller], activities=ACTIVITIES) as both:
        handle = await client.start_workflow(Canceller.run, True, id=fresh_id("cancel"), task_queue=both.task_queue)
        assert await handle.result() == "CancelledError"
    names = [event_name(event) for event in await events_of(handle) if event_name(event).startswith("Activity")]
    assert names == [
        "ActivityTaskScheduled",
        "ActivityTaskCancelRequested",
        "ActivityTaskStarted",
        "ActivityTaskCanceled",
    ]


async def test_a_workflow_need_not_wait_for_the_cancellation(client: Client) -> None:
    async with worker(client, workflows=[Canceller], activities=ACTIVITIES) as both:
        handle = await client.start_workflow(Canceller.run, False, id=fresh_id("try"), task_queue=both.task_queue)
        assert await handle.result() == "CancelledError"
    names = [event_name(event) for event in await events_of(handle) if event_name(event).startswith("Activity")]
    assert names == ["ActivityTaskScheduled", "ActivityTaskCancelRequested"]


async def test_a_pending_activity_is_described_with_its_last_failure(client: Client) -> None:
    call = Call("ask_for_a_later_retry", "60", start_to_close=5)
    async with worker(client, workflows=[Caller], activities=ACTIVITIES) as both:
        handle = await client.start_workflow(Caller.run, call, id=fresh_id("pending"), task_queue=both.task_queue)

        async def retried() -> PendingActivityInfo | None:
            pending = (await handle.describe()).raw_description.pending_activities
            return pending[0] if pending and pending[0].attempt == 2 else None

        pending = await eventually(retried)
        await handle.terminate()
    assert pending.activity_type.name == "ask_for_a_later_retry"
    assert pending.state == PendingActivityState.PENDING_ACTIVITY_STATE_SCHEDULED
    assert pending.last_failure.message == "later"
    assert pending.next_attempt_schedule_time.ToDatetime() - pending.last_attempt_complete_time.ToDatetime() > (
        timedelta(seconds=50)
    )
