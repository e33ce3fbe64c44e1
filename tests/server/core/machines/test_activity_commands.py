"""The commands about activities: which may be scheduled, and what a cancel does to one that no worker has."""

from __future__ import annotations

from temporalio.api.enums.v1 import WorkflowTaskFailedCause
from temporalio.api.history.v1 import (
    ActivityTaskCanceledEventAttributes,
    ActivityTaskCancelRequestedEventAttributes,
    WorkflowTaskFailedEventAttributes,
)

from perdure.server.core.limits import Limits
from tests.server.core.commands import application_failure, cancel_activity, complete_workflow, schedule_activity
from tests.server.core.story import Story

_Cause = WorkflowTaskFailedCause


def story_with(*activity_ids: str, limits: Limits | None = None) -> Story:
    """A run with scheduled activities, the first by event 5, that has a workflow task again."""
    story = Story(limits=limits)
    story.start()
    story.decide(*map(schedule_activity, activity_ids))
    story.signal()
    return story


def failed_cause(story: Story) -> int:
    return story.last(WorkflowTaskFailedEventAttributes).cause


def test_the_id_of_a_pending_activity_is_taken() -> None:
    story = story_with("a")
    story.decide(schedule_activity("a"))
    assert failed_cause(story) == _Cause.WORKFLOW_TASK_FAILED_CAUSE_SCHEDULE_ACTIVITY_DUPLICATE_ID
    assert len(story.run.activities) == 1


def test_one_task_cannot_use_an_id_twice() -> None:
    story = story_with()
    story.decide(schedule_activity("a"), schedule_activity("a"))
    assert failed_cause(story) == _Cause.WORKFLOW_TASK_FAILED_CAUSE_SCHEDULE_ACTIVITY_DUPLICATE_ID


def test_the_id_of_a_closed_activity_is_free_even_while_its_end_is_buffered() -> None:
    story = story_with("a")
    task = story.poll()
    story.complete_activity(story.poll_activity("a"))
    story.complete(task, schedule_activity("a"))
    assert story.run.activity_ids == {"a": 10}
    story.complete_activity(story.poll_activity("a"))
    assert not story.run.activity_ids


def test_a_run_may_have_so_many_pending_activities() -> None:
    story = story_with("a", "b", limits=Limits(pending_activities=2))
    story.decide(schedule_activity("c"))
    assert failed_cause(story) == _Cause.WORKFLOW_TASK_FAILED_CAUSE_PENDING_ACTIVITIES_LIMIT_EXCEEDED
    story.decide(cancel_activity(5), schedule_activity("c"))
    assert sorted(story.run.activity_ids) == ["b", "c"]


def test_an_activity_no_worker_has_is_cancelled_at_once_and_the_run_hears_of_it() -> None:
    story = story_with("a")
    story.decide(cancel_activity(5))
    assert story.names()[9:] == ["ActivityTaskCancelRequested", "ActivityTaskCanceled", "WorkflowTaskScheduled"]
    requested = story.last(ActivityTaskCancelRequestedEventAttributes)
    assert (requested.scheduled_event_id, requested.workflow_task_completed_event_id) == (5, 9)
    canceled = story.last(ActivityTaskCanceledEventAttributes)
    assert canceled.details.payloads[0].data == b'"ACTIVITY_ID_NOT_STARTED"'
    assert (canceled.latest_cancel_requested_event_id, canceled.started_event_id) == (10, 0)
    assert not story.run.activities


def test_an_activity_between_two_attempts_is_cancelled_at_once() -> None:
    story = story_with("a")
    story.fail_activity(story.poll_activity(), application_failure())
    story.decide(cancel_activity(5))
    assert "ActivityTaskCanceled" in story.names()


def test_the_events_of_commands_are_not_separated_by_the_end_of_an_activity_they_cancel() -> None:
    story = story_with()
    story.decide(schedule_activity("a"), cancel_activity(9), schedule_activity("a"))
    assert story.names()[8:] == [
        "ActivityTaskScheduled",
        "ActivityTaskCancelRequested",
        "ActivityTaskScheduled",
        "ActivityTaskCanceled",
        "WorkflowTaskScheduled",
    ]
    assert story.run.activity_ids == {"a": 11}


def test_a_command_names_what_an_earlier_one_schedules_by_counting_commands() -> None:
    story = story_with("a")
    story.decide(cancel_activity(5), schedule_activity("b"), cancel_activity(11))
    assert story.names()[9:] == [
        "ActivityTaskCancelRequested",
        "ActivityTaskScheduled",
        "ActivityTaskCancelRequested",
        "ActivityTaskCanceled",
        "ActivityTaskCanceled",
        "WorkflowTaskScheduled",
    ]


def test_an_eager_activity_that_is_cancelled_by_the_same_task_does_not_start() -> None:
    story = story_with()
    reply = story.decide(schedule_activity("a", eager=True), cancel_activity(9))
    assert not reply.activities
    assert not story.run.activities


def test_a_run_may_close_over_an_activity_it_cancels() -> None:
    story = story_with("a")
    story.decide(cancel_activity(5), complete_workflow())
    assert story.names()[9:] == ["ActivityTaskCancelRequested", "WorkflowExecutionCompleted"]


def test_a_started_activity_is_only_asked_to_cancel() -> None:
    story = story_with("a")
    story.poll_activity()
    story.decide(cancel_activity(5))
    assert story.names()[9:] == ["ActivityTaskCancelRequested"]
    assert story.run.activities[5].cancel_requested


def test_a_started_activity_is_asked_once() -> None:
    story = story_with("a")
    story.poll_activity()
    story.decide(cancel_activity(5), cancel_activity(5))
    assert failed_cause(story) == _Cause.WORKFLOW_TASK_FAILED_CAUSE_BAD_REQUEST_CANCEL_ACTIVITY_ATTRIBUTES
    story.decide(cancel_activity(5))
    story.signal()
    story.decide(cancel_activity(5))
    assert failed_cause(story) == _Cause.WORKFLOW_TASK_FAILED_CAUSE_BAD_REQUEST_CANCEL_ACTIVITY_ATTRIBUTES


def test_an_unknown_activity_cannot_be_cancelled() -> None:
    story = story_with("a")
    story.decide(cancel_activity(99))
    assert failed_cause(story) == _Cause.WORKFLOW_TASK_FAILED_CAUSE_BAD_REQUEST_CANCEL_ACTIVITY_ATTRIBUTES


def test_a_cancel_may_cross_the_end_of_its_activity() -> None:
    story = story_with("a")
    task = story.poll()
    story.complete_activity(story.poll_activity("a"))
    story.complete(task, cancel_activity(5))
    assert story.names()[9:] == [
        "ActivityTaskCancelRequested",
        "ActivityTaskStarted",
        "ActivityTaskCompleted",
        "WorkflowTaskScheduled",
    ]
