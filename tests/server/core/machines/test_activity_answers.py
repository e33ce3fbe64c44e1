"""What workers say of activities: which answers count, by token and by id."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from temporalio.api.history.v1 import (
    ActivityTaskCanceledEventAttributes,
    ActivityTaskCompletedEventAttributes,
    ActivityTaskFailedEventAttributes,
    ActivityTaskStartedEventAttributes,
)
from temporalio.api.workflowservice.v1 import PollActivityTaskQueueResponse

from perdure.server.core.effects import ActivityTaskReady
from perdure.server.core.errors import InvalidArgument, NotFound
from perdure.server.core.machines.activity import State
from tests.server.core.commands import (
    application_failure,
    cancel_activity,
    payloads,
    retry_policy,
    schedule_activity,
    start_timer,
)
from tests.server.core.story import Story

GONE = "^invalid activityID or activity already timed out or invoking workflow is completed$"
Task = PollActivityTaskQueueResponse | str
Answer = Callable[[Story, Task], object]

ANSWERS: list[Answer] = [
    lambda story, task: story.complete_activity(task),
    lambda story, task: story.fail_activity(task, application_failure()),
    lambda story, task: story.cancel_activity(task),
    lambda story, task: story.heartbeat(task),
]


def activity_story() -> Story:
    """A run that waits for the activity `a`, scheduled by event 5."""
    story = Story()
    story.start()
    story.decide(schedule_activity(to_start=30))
    return story


def cancel_requested_story() -> tuple[Story, PollActivityTaskQueueResponse]:
    """A run that asked to cancel its activity while a worker had it."""
    story = activity_story()
    task = story.poll_activity()
    story.signal()
    story.decide(cancel_activity(5))
    return story, task


# --- by token ---------------------------------------------------------------------------------------------------------


def test_a_result_is_recorded() -> None:
    story = activity_story()
    story.complete_activity(story.poll_activity(), "thanks")
    completed = story.last(ActivityTaskCompletedEventAttributes)
    assert completed.result == payloads("thanks")
    assert completed.identity == "worker"


@pytest.mark.parametrize("answer", ANSWERS)
def test_a_second_answer_finds_nothing(answer: Answer) -> None:
    story = activity_story()
    task = story.poll_activity()
    story.complete_activity(task)
    with pytest.raises(NotFound, match=GONE):
        answer(story, task)


@pytest.mark.parametrize("answer", ANSWERS)
def test_an_answer_to_an_earlier_attempt_finds_nothing(answer: Answer) -> None:
    story = activity_story()
    task = story.poll_activity()
    story.fail_activity(task, application_failure())
    with pytest.raises(NotFound, match=GONE):
        answer(story, task)
    story.wait(1)
    story.poll_activity()
    with pytest.raises(NotFound, match=GONE):
        answer(story, task)


@pytest.mark.parametrize("answer", ANSWERS)
def test_an_answer_to_a_closed_run_finds_nothing(answer: Answer) -> None:
    story = activity_story()
    task = story.poll_activity()
    story.terminate()
    with pytest.raises(NotFound, match=r"^workflow execution already completed$"):
        answer(story, task)


# --- taking a start back ----------------------------------------------------------------------------------------------


def test_a_start_that_reached_nobody_is_taken_back() -> None:
    story = activity_story()
    task = story.poll_activity()
    story.take_back_activity(task)
    [offer] = story.effects_of(ActivityTaskReady)
    assert offer.scheduled_event_id == 5
    assert story.run.activities[5].state is State.SCHEDULED
    with pytest.raises(NotFound, match=GONE):
        story.complete_activity(task)
    assert story.poll_activity().attempt == 1


def test_schedule_to_start_goes_on_after_a_start_was_taken_back() -> None:
    story = Story()
    story.start()
    story.decide(schedule_activity(to_start=30), start_timer("t", 40))
    story.take_back_activity(story.poll_activity())
    story.wait(30)
    assert story.names()[-2:] == ["ActivityTaskTimedOut", "WorkflowTaskScheduled"]


def test_a_start_can_be_taken_back_once() -> None:
    story = activity_story()
    task = story.poll_activity()
    story.take_back_activity(task)
    with pytest.raises(NotFound, match=GONE):
        story.take_back_activity(task)


# --- by id ------------------------------------------------------------------------------------------------------------


def test_an_activity_is_completed_by_its_id() -> None:
    story = activity_story()
    story.poll_activity()
    story.complete_activity("a")
    assert story.names()[5:] == ["ActivityTaskStarted", "ActivityTaskCompleted", "WorkflowTaskScheduled"]


def test_who_knows_the_id_may_complete_an_activity_no_worker_has() -> None:
    story = activity_story()
    story.complete_activity("a")
    assert story.names()[5:] == ["ActivityTaskStarted", "ActivityTaskCompleted", "WorkflowTaskScheduled"]
    started = story.last(ActivityTaskStartedEventAttributes)
    assert (started.identity, started.attempt) == ("worker", 1)
    assert story.last(ActivityTaskCompletedEventAttributes).started_event_id == 6


def test_an_activity_is_completed_by_its_id_between_two_attempts() -> None:
    story = activity_story()
    story.fail_activity(story.poll_activity(), application_failure("first"))
    assert story.run.activities[5].state is State.BACKING_OFF
    story.complete_activity("a")
    started = story.last(ActivityTaskStartedEventAttributes)
    assert (started.attempt, started.last_failure.message) == (2, "first")


@pytest.mark.parametrize("answer", ANSWERS[1:])
def test_an_activity_no_worker_has_can_only_be_completed(answer: Answer) -> None:
    story = activity_story()
    with pytest.raises(NotFound, match=GONE):
        answer(story, "a")


@pytest.mark.parametrize("answer", ANSWERS)
def test_an_unknown_id_finds_nothing(answer: Answer) -> None:
    story = activity_story()
    with pytest.raises(NotFound, match="cannot find pending activity with ActivityID other"):
        answer(story, "other")


def test_an_id_means_the_present_attempt() -> None:
    story = activity_story()
    story.fail_activity(story.poll_activity(), application_failure())
    story.wait(1)
    story.poll_activity()
    story.heartbeat("a", "still there")
    story.fail_activity("a", application_failure(non_retryable=True))
    assert story.last(ActivityTaskStartedEventAttributes).attempt == 2


# --- cancellation -----------------------------------------------------------------------------------------------------


def test_a_heartbeat_tells_the_worker_that_it_should_cancel() -> None:
    story = activity_story()
    task = story.poll_activity()
    assert not story.heartbeat(task).cancel_requested
    story.signal()
    story.decide(cancel_activity(5))
    assert story.heartbeat(task).cancel_requested


def test_a_worker_may_cancel_what_it_was_asked_to() -> None:
    story, task = cancel_requested_story()
    story.cancel_activity(task)
    assert story.names()[-3:] == ["ActivityTaskStarted", "ActivityTaskCanceled", "WorkflowTaskScheduled"]
    canceled = story.last(ActivityTaskCanceledEventAttributes)
    assert canceled.details == payloads("cleaned up")
    assert canceled.latest_cancel_requested_event_id == 10
    assert (canceled.scheduled_event_id, canceled.started_event_id) == (5, 11)


def test_a_worker_may_not_cancel_what_nobody_asked_it_to() -> None:
    story = activity_story()
    task = story.poll_activity()
    with pytest.raises(InvalidArgument, match="without activity being request canceled first"):
        story.cancel_activity(task)


def test_a_worker_may_complete_what_it_was_asked_to_cancel() -> None:
    story, task = cancel_requested_story()
    story.complete_activity(task)
    assert story.names()[-2] == "ActivityTaskCompleted"


def test_what_should_be_cancelled_is_not_tried_again() -> None:
    story, task = cancel_requested_story()
    story.fail_activity(task, application_failure())
    assert story.last(ActivityTaskFailedEventAttributes).retry_state == 7


def test_the_wish_to_cancel_survives_a_crash() -> None:
    story, task = cancel_requested_story()
    story.crash()
    assert story.heartbeat(task).cancel_requested
    story.cancel_activity(task)
    assert story.last(ActivityTaskCanceledEventAttributes).latest_cancel_requested_event_id == 10


def test_an_answer_behind_a_started_workflow_task_closes_the_activity_at_once() -> None:
    story = activity_story()
    task = story.poll_activity()
    story.signal()
    story.poll()
    story.complete_activity(task)
    with pytest.raises(NotFound, match=GONE):
        story.complete_activity(task)


def test_a_policy_with_one_attempt_fails_at_once() -> None:
    story = Story()
    story.start()
    story.decide(schedule_activity(retry=retry_policy(attempts=1)))
    story.fail_activity(story.poll_activity(), application_failure())
    assert story.names()[-2] == "ActivityTaskFailed"
