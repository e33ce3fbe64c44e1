"""An activity: its attempts, its four timeouts, and what history keeps of them."""

from __future__ import annotations

import pytest
from temporalio.api.common.v1 import Priority, RetryPolicy
from temporalio.api.enums.v1 import RetryState, TimeoutType
from temporalio.api.failure.v1 import Failure
from temporalio.api.history.v1 import (
    ActivityTaskFailedEventAttributes,
    ActivityTaskScheduledEventAttributes,
    ActivityTaskStartedEventAttributes,
    ActivityTaskTimedOutEventAttributes,
)
from temporalio.api.workflowservice.v1 import PollActivityTaskQueueResponse

from perdure.server.core.durations import duration_of, nanos_of, time_of
from perdure.server.core.effects import ActivityTaskReady
from perdure.server.core.errors import NotFound
from perdure.server.core.events import event_at
from perdure.server.core.machines.activity import State
from perdure.server.core.replies import StaleTask
from tests.server.core.commands import SECOND, application_failure, payloads, retry_policy, schedule_activity
from tests.server.core.story import NOW, Story

_State = RetryState
_Timeout = TimeoutType


def activity_story(
    *,
    to_close: float = 0,
    to_start: float = 0,
    start_to_close: float = 60,
    heartbeat: float = 0,
    retry: RetryPolicy | None = None,
) -> Story:
    """A run that waits for the activity `a`, scheduled by event 5."""
    story = Story()
    story.start()
    command = schedule_activity(
        to_close=to_close, to_start=to_start, start_to_close=start_to_close, heartbeat=heartbeat, retry=retry
    )
    story.decide(command)
    return story


ONCE = retry_policy(attempts=1)


def timed_out(story: Story) -> ActivityTaskTimedOutEventAttributes:
    return story.last(ActivityTaskTimedOutEventAttributes)


# --- one attempt ------------------------------------------------------------------------------------------------------


def test_a_scheduled_activity_is_offered_with_its_defaults_filled_in() -> None:
    story = activity_story()
    [offer] = story.effects_of(ActivityTaskReady)
    assert (offer.task_queue, offer.scheduled_event_id, offer.ready_at) == ("activities", 5, NOW)
    scheduled = story.last(ActivityTaskScheduledEventAttributes)
    assert scheduled.retry_policy == retry_policy(initial=1, coefficient=2, maximum=100)
    assert nanos_of(scheduled.start_to_close_timeout) == 60 * SECOND


def test_a_worker_is_told_all_about_the_attempt() -> None:
    story = activity_story(to_close=100, heartbeat=5)
    story.now += 2 * SECOND
    task = story.poll_activity()
    assert task.activity_id == "a"
    assert task.activity_type.name == "Pay"
    assert task.workflow_namespace == "default"
    assert task.workflow_type.name == "Order"
    assert task.workflow_execution.run_id == story.run.run_id
    assert task.input == payloads("order")
    assert task.attempt == 1
    assert time_of(task.scheduled_time) == time_of(task.current_attempt_scheduled_time) == NOW
    assert time_of(task.started_time) == NOW + 2 * SECOND
    assert nanos_of(task.schedule_to_close_timeout) == 100 * SECOND
    assert nanos_of(task.start_to_close_timeout) == 60 * SECOND
    assert nanos_of(task.heartbeat_timeout) == 5 * SECOND
    assert task.retry_policy.maximum_attempts == 0


def test_what_an_activity_leaves_open_of_its_priority_is_its_runs() -> None:
    story = Story()
    story.start(priority=Priority(priority_key=1, fairness_key="tenant", fairness_weight=3))
    own = schedule_activity("own")
    own.schedule_activity_task_command_attributes.priority.CopyFrom(Priority(priority_key=5))
    story.decide(schedule_activity("plain"), own)
    assert story.poll_activity("plain").priority == Priority(priority_key=1, fairness_key="tenant", fairness_weight=3)
    assert story.poll_activity("own").priority == Priority(priority_key=5, fairness_key="tenant", fairness_weight=3)


def test_a_start_is_durable_and_leaves_no_event() -> None:
    story = activity_story()
    before = story.run.transition_count
    story.poll_activity()
    assert story.names()[-1] == "ActivityTaskScheduled"
    assert story.run.transition_count == before + 1
    story.crash()
    assert story.run.activities[5].state is State.STARTED


def test_an_attempt_starts_once() -> None:
    story = activity_story()
    story.poll_activity()
    with pytest.raises(StaleTask):
        story.poll_activity()


def test_the_started_event_is_written_with_the_closing_one() -> None:
    story = activity_story()
    task = story.poll_activity()
    story.now += 7 * SECOND
    story.complete_activity(task)
    assert story.names()[5:] == ["ActivityTaskStarted", "ActivityTaskCompleted", "WorkflowTaskScheduled"]
    started = story.history()[5]
    assert event_at(started) == NOW
    assert started.activity_task_started_event_attributes.identity == "worker"
    assert started.activity_task_started_event_attributes.request_id == "poll-request"
    assert started.activity_task_started_event_attributes.attempt == 1
    completed = story.history()[6].activity_task_completed_event_attributes
    assert event_at(story.history()[6]) == NOW + 7 * SECOND
    assert (completed.scheduled_event_id, completed.started_event_id) == (5, 6)
    assert not story.run.activities
    assert not story.run.activity_ids


# --- attempts ---------------------------------------------------------------------------------------------------------


def test_a_failed_attempt_is_followed_by_another_after_a_growing_backoff() -> None:
    story = activity_story()
    waits = []
    for attempt in (1, 2, 3, 4):
        task = story.poll_activity()
        assert task.attempt == attempt
        story.fail_activity(task, application_failure())
        waits.append((story.run.activities[5].ready_at - story.now) // SECOND)
        story.wait(waits[-1])
    assert waits == [1, 2, 4, 8]
    assert story.names()[-1] == "ActivityTaskScheduled"


def test_an_activity_is_not_to_be_had_during_its_backoff() -> None:
    story = activity_story()
    story.fail_activity(story.poll_activity(), application_failure())
    assert not story.effects_of(ActivityTaskReady)
    with pytest.raises(StaleTask):
        story.poll_activity()
    story.wait(1)
    [offer] = story.effects_of(ActivityTaskReady)
    assert offer.ready_at == NOW + SECOND


def test_the_end_of_a_backoff_is_no_transition() -> None:
    story = activity_story()
    story.fail_activity(story.poll_activity(), application_failure())
    before = story.run.transition_count
    story.wait(1)
    assert story.run.activities[5].state is State.SCHEDULED
    assert story.run.transition_count == before
    story.crash()
    assert story.run.activities[5].state is State.SCHEDULED


def test_a_worker_may_fetch_an_attempt_before_the_alarm_comes_round() -> None:
    story = activity_story()
    story.fail_activity(story.poll_activity(), application_failure())
    story.now += SECOND
    assert story.poll_activity().attempt == 2


def test_history_describes_the_last_attempt_only() -> None:
    story = activity_story()
    for number in (1, 2):
        story.fail_activity(story.poll_activity(), application_failure(f"failure {number}"))
        story.wait(5)
    story.complete_activity(story.poll_activity())
    assert story.names()[5:] == ["ActivityTaskStarted", "ActivityTaskCompleted", "WorkflowTaskScheduled"]
    started = story.last(ActivityTaskStartedEventAttributes)
    assert started.attempt == 3
    assert started.last_failure.message == "failure 2"


def test_the_last_allowed_attempt_closes_the_activity() -> None:
    story = activity_story(retry=retry_policy(attempts=2))
    story.fail_activity(story.poll_activity(), application_failure())
    story.wait(1)
    story.fail_activity(story.poll_activity(), application_failure("at last"))
    failed = story.last(ActivityTaskFailedEventAttributes)
    assert failed.retry_state == _State.RETRY_STATE_MAXIMUM_ATTEMPTS_REACHED
    assert failed.failure.message == "at last"
    assert failed.identity == "worker"
    assert (failed.scheduled_event_id, failed.started_event_id) == (5, 6)
    assert story.names()[-1] == "WorkflowTaskScheduled"


@pytest.mark.parametrize(
    ("failure", "policy"),
    [
        (application_failure(non_retryable=True), retry_policy()),
        (application_failure(error_type="Fatal"), retry_policy(fatal=("Fatal",))),
    ],
)
def test_what_cannot_be_retried_is_not(failure: Failure, policy: RetryPolicy) -> None:
    story = activity_story(retry=policy)
    story.fail_activity(story.poll_activity(), failure)
    failed = story.last(ActivityTaskFailedEventAttributes)
    assert failed.retry_state == _State.RETRY_STATE_NON_RETRYABLE_FAILURE


def test_a_failure_may_say_when_to_try_again() -> None:
    story = activity_story()
    story.fail_activity(story.poll_activity(), application_failure(delay=500))
    assert story.run.activities[5].ready_at == NOW + 500 * SECOND


def test_an_attempt_that_could_not_start_before_schedule_to_close_is_not_waited_for() -> None:
    story = activity_story(to_close=10, retry=retry_policy(initial=11))
    story.fail_activity(story.poll_activity(), application_failure())
    assert story.last(ActivityTaskFailedEventAttributes).retry_state == _State.RETRY_STATE_TIMEOUT


def test_a_failure_that_is_far_too_large_is_cut_and_not_retried() -> None:
    story = activity_story()
    story.limits = type(story.limits)(blob_size_error=200)
    story.fail_activity(story.poll_activity(), application_failure("x" * 300))
    failed = story.last(ActivityTaskFailedEventAttributes)
    assert failed.retry_state == _State.RETRY_STATE_NON_RETRYABLE_FAILURE
    assert failed.failure.HasField("server_failure_info")
    assert "larger than the limit of 200 bytes" in failed.failure.message


# --- timeouts ---------------------------------------------------------------------------------------------------------


def test_schedule_to_start() -> None:
    story = activity_story(to_start=5)
    story.wait(5)
    assert story.names()[5:] == ["ActivityTaskTimedOut", "WorkflowTaskScheduled"]
    assert timed_out(story).failure.message == "activity ScheduleToStart timeout"
    failure = timed_out(story).failure
    assert failure.timeout_failure_info.timeout_type == _Timeout.TIMEOUT_TYPE_SCHEDULE_TO_START
    assert timed_out(story).started_event_id == 0
    assert timed_out(story).retry_state == _State.RETRY_STATE_TIMEOUT


def test_schedule_to_start_counts_anew_for_every_attempt() -> None:
    story = activity_story(to_start=5)
    task = story.poll_activity()
    story.wait(10)
    story.fail_activity(task, application_failure())
    story.wait(1 + 4.9)
    assert story.run.activities[5].state is State.SCHEDULED
    story.wait(0.1)
    assert timed_out(story).failure.timeout_failure_info.timeout_type == _Timeout.TIMEOUT_TYPE_SCHEDULE_TO_START


def test_start_to_close_is_retried() -> None:
    story = activity_story(start_to_close=5)
    stale = story.poll_activity()
    story.wait(5)
    assert story.names()[-1] == "ActivityTaskScheduled"
    assert story.run.activities[5].state is State.BACKING_OFF
    with pytest.raises(NotFound):
        story.complete_activity(stale)
    story.wait(1)
    task = story.poll_activity()
    assert task.attempt == 2
    with pytest.raises(NotFound):
        story.complete_activity(stale)
    story.complete_activity(task)
    assert story.last(ActivityTaskStartedEventAttributes).last_failure.message == "activity StartToClose timeout"


def test_start_to_close_of_the_last_attempt() -> None:
    story = activity_story(start_to_close=5, retry=ONCE)
    story.poll_activity()
    story.wait(5)
    assert story.names()[5:] == ["ActivityTaskStarted", "ActivityTaskTimedOut", "WorkflowTaskScheduled"]
    assert timed_out(story).failure.timeout_failure_info.timeout_type == _Timeout.TIMEOUT_TYPE_START_TO_CLOSE
    assert timed_out(story).retry_state == _State.RETRY_STATE_MAXIMUM_ATTEMPTS_REACHED
    assert (timed_out(story).scheduled_event_id, timed_out(story).started_event_id) == (5, 6)


def test_start_to_close_may_be_named_as_not_retryable() -> None:
    story = activity_story(start_to_close=5, retry=retry_policy(fatal=("TemporalTimeout:StartToClose",)))
    story.poll_activity()
    story.wait(5)
    assert timed_out(story).retry_state == _State.RETRY_STATE_NON_RETRYABLE_FAILURE


def test_schedule_to_close_ends_a_started_attempt() -> None:
    story = activity_story(to_close=8, start_to_close=60)
    story.wait(2)
    story.poll_activity()
    story.wait(6)
    assert story.names()[5:] == ["ActivityTaskStarted", "ActivityTaskTimedOut", "WorkflowTaskScheduled"]
    failure = timed_out(story).failure
    assert failure.message == "activity ScheduleToClose timeout"
    assert failure.timeout_failure_info.timeout_type == _Timeout.TIMEOUT_TYPE_SCHEDULE_TO_CLOSE


@pytest.mark.parametrize("is_late", [False, True], ids=["in time", "while nobody looked"])
def test_schedule_to_close_ends_a_later_attempt_and_tells_the_last_failure(is_late: bool) -> None:
    story = activity_story(to_close=8, start_to_close=2, retry=retry_policy(initial=4, maximum=4))
    story.poll_activity()
    story.wait(2)
    assert story.run.activities[5].state is State.BACKING_OFF
    if is_late:
        story.now += 60 * SECOND
        story.ring()
    else:
        story.wait(6)
    assert story.names()[5:] == ["ActivityTaskTimedOut", "WorkflowTaskScheduled"]
    failure = timed_out(story).failure
    assert failure.timeout_failure_info.timeout_type == _Timeout.TIMEOUT_TYPE_SCHEDULE_TO_CLOSE
    assert failure.cause.message == "activity StartToClose timeout"


def test_a_timeout_that_leaves_no_time_for_another_attempt_is_schedule_to_close() -> None:
    story = activity_story(to_close=6, start_to_close=5, retry=retry_policy(initial=2))
    story.poll_activity()
    story.wait(5)
    info = timed_out(story).failure.timeout_failure_info
    assert info.timeout_type == _Timeout.TIMEOUT_TYPE_SCHEDULE_TO_CLOSE
    assert timed_out(story).retry_state == _State.RETRY_STATE_TIMEOUT


def test_of_two_bounds_that_end_at_once_the_callers_own_counts() -> None:
    story = activity_story(to_close=5, start_to_close=0, retry=ONCE)
    story.poll_activity()
    story.wait(5)
    assert timed_out(story).failure.timeout_failure_info.timeout_type == _Timeout.TIMEOUT_TYPE_SCHEDULE_TO_CLOSE


def test_timeouts_are_never_longer_than_the_run() -> None:
    story = Story()
    story.start(workflow_run_timeout=duration_of(30 * SECOND))
    story.decide(schedule_activity(to_start=100, start_to_close=100))
    scheduled = story.last(ActivityTaskScheduledEventAttributes)
    for timeout in (
        scheduled.schedule_to_close_timeout,
        scheduled.schedule_to_start_timeout,
        scheduled.start_to_close_timeout,
    ):
        assert nanos_of(timeout) == 30 * SECOND


# --- heartbeats -------------------------------------------------------------------------------------------------------


def beating_story(retry: RetryPolicy | None = None) -> tuple[Story, PollActivityTaskQueueResponse]:
    story = activity_story(heartbeat=5, retry=retry)
    return story, story.poll_activity()


def test_an_attempt_without_heartbeats_times_out() -> None:
    story, _ = beating_story(ONCE)
    story.wait(5)
    assert timed_out(story).failure.message == "activity Heartbeat timeout"
    assert timed_out(story).failure.timeout_failure_info.timeout_type == _Timeout.TIMEOUT_TYPE_HEARTBEAT


def test_heartbeats_keep_an_attempt_alive() -> None:
    story, task = beating_story(ONCE)
    for _ in range(5):
        story.wait(4)
        story.heartbeat(task, "half")
    story.complete_activity(task)
    assert "ActivityTaskCompleted" in story.names()


def test_a_heartbeat_by_a_clock_that_was_set_back_brings_no_timeout_forward() -> None:
    story, task = beating_story(ONCE)
    story.wait(3)
    story.heartbeat(task, "half")
    story.wait(-3)
    story.heartbeat(task, "half")
    story.wait(7)
    story.heartbeat(task, "half")
    story.complete_activity(task)
    assert "ActivityTaskCompleted" in story.names()


def test_a_heartbeat_is_a_transition_without_an_event() -> None:
    story, task = beating_story()
    before = story.run.transition_count, story.names()
    story.heartbeat(task, "half")
    assert (story.run.transition_count, story.names()) == (before[0] + 1, before[1])


def test_the_next_attempt_is_told_the_last_heartbeat() -> None:
    story, task = beating_story()
    story.heartbeat(task, "quarter")
    story.heartbeat(task, "half")
    story.crash()
    story.wait(6)
    assert story.poll_activity().heartbeat_details == payloads("half")


def test_a_heartbeat_without_details_leaves_none_to_the_next_attempt() -> None:
    story, task = beating_story()
    story.heartbeat(task, "half")
    story.heartbeat(task)
    story.crash()
    story.wait(6)
    assert not story.poll_activity().HasField("heartbeat_details")


def test_a_heartbeat_timeout_tells_the_last_details() -> None:
    story, task = beating_story(ONCE)
    story.heartbeat(task, "half")
    story.wait(5)
    assert timed_out(story).failure.timeout_failure_info.last_heartbeat_details == payloads("half")


def test_the_last_heartbeat_may_come_with_the_failure() -> None:
    story, task = beating_story()
    story.fail_activity(task, application_failure(), last_heartbeat_details=payloads("nearly"))
    story.wait(1)
    assert story.poll_activity().heartbeat_details == payloads("nearly")


# --- while a workflow task is started ---------------------------------------------------------------------------------


def test_attempts_go_on_behind_a_started_workflow_task() -> None:
    story = activity_story(start_to_close=3)
    story.signal()
    workflow_task = story.poll()
    story.poll_activity()
    story.wait(3 + 1)
    story.complete_activity(story.poll_activity())
    assert story.names()[-1] == "WorkflowTaskStarted"
    assert not story.run.activities
    story.complete(workflow_task)
    assert story.names()[-3:] == ["ActivityTaskStarted", "ActivityTaskCompleted", "WorkflowTaskScheduled"]
