"""The last moment of a started attempt: its timeouts are told a little late, and what arrives until then counts."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from temporalio.api.common.v1 import RetryPolicy
from temporalio.api.enums.v1 import RetryState, TimeoutType
from temporalio.api.history.v1 import ActivityTaskFailedEventAttributes, ActivityTaskTimedOutEventAttributes
from temporalio.api.workflowservice.v1 import PollActivityTaskQueueResponse

from perdure.server.core.durations import nanos_of, time_of
from perdure.server.core.errors import NotFound
from perdure.server.core.events import event_at
from perdure.server.core.limits import Limits
from perdure.server.core.machines.activity import State
from tests.server.core.commands import SECOND, application_failure, retry_policy, schedule_activity
from tests.server.core.story import NOW, Story

_Timeout = TimeoutType

GRACE = Limits().activity_timeout_grace / SECOND


def waiting_story(
    *,
    to_close: float = 0,
    to_start: float = 0,
    start_to_close: float = 60,
    heartbeat: float = 0,
    retry: RetryPolicy | None = None,
) -> Story:
    """A run that waits for the activity `a`, scheduled by event 5, under the default limits: they have a grace."""
    story = Story(limits=Limits())
    story.start()
    story.decide(
        schedule_activity(
            to_close=to_close, to_start=to_start, start_to_close=start_to_close, heartbeat=heartbeat, retry=retry
        )
    )
    return story


def last_moment_story(
    *, to_close: float = 0, start_to_close: float = 60, heartbeat: float = 0, retry: RetryPolicy | None = None
) -> tuple[Story, PollActivityTaskQueueResponse]:
    """The same, with the activity started; it may run once unless there is another policy."""
    retry = retry or retry_policy(attempts=1)
    story = waiting_story(to_close=to_close, start_to_close=start_to_close, heartbeat=heartbeat, retry=retry)
    return story, story.poll_activity()


def timed_out(story: Story) -> ActivityTaskTimedOutEventAttributes:
    return story.last(ActivityTaskTimedOutEventAttributes)


Beginning = Callable[[], tuple[Story, PollActivityTaskQueueResponse]]

BOUNDED: dict[str, tuple[Beginning, TimeoutType.ValueType]] = {
    "start to close": (lambda: last_moment_story(start_to_close=5), _Timeout.TIMEOUT_TYPE_START_TO_CLOSE),
    "heartbeat": (lambda: last_moment_story(heartbeat=5), _Timeout.TIMEOUT_TYPE_HEARTBEAT),
    "schedule to close": (lambda: last_moment_story(to_close=5), _Timeout.TIMEOUT_TYPE_SCHEDULE_TO_CLOSE),
}


@pytest.mark.parametrize("begin", [begin for begin, _ in BOUNDED.values()], ids=BOUNDED.keys())
def test_the_answer_of_a_worker_that_finished_at_the_last_moment_is_taken(begin: Beginning) -> None:
    story, task = begin()
    story.wait(5 + GRACE - 0.001)
    story.ring()
    story.complete_activity(task)
    assert story.names()[5:] == ["ActivityTaskStarted", "ActivityTaskCompleted", "WorkflowTaskScheduled"]


@pytest.mark.parametrize(("begin", "timeout_type"), BOUNDED.values(), ids=BOUNDED.keys())
def test_when_the_grace_is_over_the_attempt_has_timed_out(
    begin: Beginning, timeout_type: TimeoutType.ValueType
) -> None:
    story, task = begin()
    story.crash()
    story.wait(5 + GRACE - 0.001)
    assert story.names()[-1] == "ActivityTaskScheduled"
    story.wait(0.002)
    assert timed_out(story).failure.timeout_failure_info.timeout_type == timeout_type
    assert event_at(story.history()[6]) == NOW + 5 * SECOND + Limits().activity_timeout_grace
    with pytest.raises(NotFound):
        story.complete_activity(task)


def test_workers_and_clients_are_told_the_deadline_that_was_asked_for() -> None:
    story, task = last_moment_story(start_to_close=5, to_close=8)
    assert (nanos_of(task.start_to_close_timeout), nanos_of(task.schedule_to_close_timeout)) == (5 * SECOND, 8 * SECOND)
    [pending] = story.describe().pending_activities
    assert time_of(pending.expiration_time) == NOW + 8 * SECOND


def test_a_heartbeat_at_the_last_moment_keeps_the_attempt_alive() -> None:
    story, task = last_moment_story(heartbeat=5)
    story.wait(5 + GRACE / 2)
    story.heartbeat(task)
    story.wait(5)
    story.complete_activity(task)
    assert "ActivityTaskCompleted" in story.names()


def test_a_failure_at_the_last_moment_before_schedule_to_close_is_told_as_such() -> None:
    story, task = last_moment_story(to_close=5, retry=retry_policy())
    story.wait(5 + GRACE / 2)
    story.fail_activity(task, application_failure())
    assert story.last(ActivityTaskFailedEventAttributes).retry_state == RetryState.RETRY_STATE_TIMEOUT


def test_the_backoff_after_a_timeout_counts_from_when_it_was_told() -> None:
    story, _ = last_moment_story(start_to_close=5, retry=retry_policy())
    story.wait(5 + GRACE)
    assert story.run.activities[5].state is State.BACKING_OFF
    assert story.run.activities[5].ready_at == NOW + 6 * SECOND + Limits().activity_timeout_grace


def test_an_activity_nobody_started_times_out_at_once() -> None:
    story = waiting_story(to_start=5)
    story.wait(5)
    assert timed_out(story).failure.timeout_failure_info.timeout_type == _Timeout.TIMEOUT_TYPE_SCHEDULE_TO_START


def test_schedule_to_close_is_told_at_once_while_the_activity_waits() -> None:
    story = waiting_story(to_close=5)
    story.wait(5)
    assert story.names()[-2:] == ["ActivityTaskTimedOut", "WorkflowTaskScheduled"]


def test_schedule_to_close_is_told_at_once_between_two_attempts() -> None:
    story, task = last_moment_story(to_close=5, retry=retry_policy(initial=4))
    story.fail_activity(task, application_failure())
    story.wait(4)
    assert story.run.activities[5].state is State.SCHEDULED
    story.wait(1)
    assert timed_out(story).failure.timeout_failure_info.timeout_type == _Timeout.TIMEOUT_TYPE_SCHEDULE_TO_CLOSE


def test_an_attempt_keeps_the_grace_it_started_with() -> None:
    story, _ = last_moment_story(start_to_close=5)
    story.limits = Limits(activity_timeout_grace=SECOND)
    story.crash()
    story.wait(5 + GRACE)
    assert story.names()[-2] == "ActivityTaskTimedOut"
