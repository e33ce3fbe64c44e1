"""A completed workflow task: all of its commands or none, what was buffered behind it, and what its reply carries."""

from __future__ import annotations

import pytest
from temporalio.api.command.v1 import Command
from temporalio.api.enums.v1 import CommandType, WorkflowTaskFailedCause
from temporalio.api.history.v1 import (
    ActivityTaskScheduledEventAttributes,
    WorkflowTaskCompletedEventAttributes,
    WorkflowTaskFailedEventAttributes,
    WorkflowTaskStartedEventAttributes,
    WorkflowTaskTimedOutEventAttributes,
)
from temporalio.api.sdk.v1 import UserMetadata, WorkflowTaskCompletedMetadata

from perdure.server.core.durations import duration_of
from perdure.server.core.effects import WorkflowTaskReady
from perdure.server.core.errors import InvalidArgument, NotFound
from perdure.server.core.limits import Limits
from perdure.server.core.machines.workflow_task import State
from tests.server.core.commands import (
    SECOND,
    complete_workflow,
    payload,
    record_marker,
    schedule_activity,
    start_timer,
)
from tests.server.core.stories import DECIDED, STARTED, started_story
from tests.server.core.story import QUEUE, STICKY, Story

_Cause = WorkflowTaskFailedCause


# --- the whole life ---------------------------------------------------------------------------------------------------


def test_a_one_activity_run_has_eleven_events_and_seven_transitions() -> None:
    story = started_story()
    story.decide(schedule_activity())
    story.complete_activity(story.poll_activity())
    story.decide(complete_workflow())
    assert story.names() == [
        *DECIDED,
        "ActivityTaskScheduled",
        "ActivityTaskStarted",
        "ActivityTaskCompleted",
        "WorkflowTaskScheduled",
        "WorkflowTaskStarted",
        "WorkflowTaskCompleted",
        "WorkflowExecutionCompleted",
    ]
    assert story.run.transition_count == 7


def test_an_eager_activity_saves_a_transition_and_no_event() -> None:
    story = started_story()
    reply = story.decide(schedule_activity(eager=True))
    story.complete_activity(reply.activities[0].response)
    story.decide(complete_workflow())
    assert len(story.names()) == 11
    assert story.run.transition_count == 6


def test_the_completed_event_keeps_what_the_worker_said_of_itself() -> None:
    story = started_story()
    metadata = WorkflowTaskCompletedMetadata(core_used_flags=[1, 3])
    story.decide(start_timer(), sdk_metadata=metadata, binary_checksum="abc")
    completed = story.last(WorkflowTaskCompletedEventAttributes)
    assert (completed.scheduled_event_id, completed.started_event_id) == (2, 3)
    assert (completed.identity, completed.binary_checksum) == ("worker", "abc")
    assert completed.sdk_metadata == metadata


def test_events_of_commands_name_the_task_that_made_them() -> None:
    story = started_story()
    command = schedule_activity()
    command.user_metadata.CopyFrom(UserMetadata(summary=payload("pay")))
    story.decide(record_marker(), command)
    assert story.last(ActivityTaskScheduledEventAttributes).workflow_task_completed_event_id == 4
    assert story.history()[5].user_metadata.summary == payload("pay")


def test_a_run_without_pending_work_waits_for_a_signal() -> None:
    story = started_story()
    story.decide()
    assert story.names() == DECIDED
    assert story.run.task.state is State.NONE


# --- bad commands -----------------------------------------------------------------------------------------------------


def test_a_rejected_command_leaves_no_events() -> None:
    story = started_story()
    reply = story.decide(schedule_activity(), start_timer(""), record_marker())
    assert story.names() == [*STARTED, "WorkflowTaskStarted", "WorkflowTaskFailed"]
    assert not story.run.activities
    assert isinstance(reply.refusal, InvalidArgument)
    assert reply.refusal.message == "BadStartTimerAttributes: TimerId is not set on StartTimerCommand."
    failed = story.last(WorkflowTaskFailedEventAttributes)
    assert failed.cause == _Cause.WORKFLOW_TASK_FAILED_CAUSE_BAD_START_TIMER_ATTRIBUTES
    assert failed.failure.message == reply.refusal.message
    assert failed.identity == "worker"


def test_the_task_is_tried_again_after_a_bad_command() -> None:
    story = started_story()
    story.decide(start_timer(""))
    story.decide(complete_workflow())
    assert not story.run.is_open


def test_a_retry_with_a_bad_command_is_left_to_time_out() -> None:
    story = started_story()
    story.decide(start_timer(""))
    task = story.poll()
    with pytest.raises(InvalidArgument, match="BadStartTimerAttributes"):
        story.complete(task, start_timer(""))
    story.complete(task, complete_workflow())
    assert not story.run.is_open


def test_a_command_that_is_far_too_large_ends_the_run() -> None:
    story = started_story(blob_size_error=100)
    command = schedule_activity()
    command.schedule_activity_task_command_attributes.input.payloads[0].data = b"x" * 101
    story.decide(command)
    assert story.names()[2:] == ["WorkflowTaskStarted", "WorkflowTaskFailed", "WorkflowExecutionTerminated"]


def test_an_unknown_command_fails_the_task() -> None:
    story = started_story()
    command = start_timer()
    command.command_type = CommandType.COMMAND_TYPE_UNSPECIFIED
    before = story.names()
    with pytest.raises(InvalidArgument):
        story.decide(command)
    assert story.names() == before


def test_nothing_may_come_after_a_closing_command() -> None:
    story = started_story()
    with pytest.raises(InvalidArgument):
        story.decide(complete_workflow(), start_timer())
    assert story.names() == STARTED


# --- what is buffered -------------------------------------------------------------------------------------------------


def test_a_signal_during_a_started_task_is_flushed_after_its_commands_and_wakes_the_run() -> None:
    story = started_story()
    task = story.poll()
    story.signal()
    assert story.names() == [*STARTED, "WorkflowTaskStarted"]
    story.complete(task, start_timer())
    assert story.names() == [*DECIDED, "TimerStarted", "WorkflowExecutionSignaled", "WorkflowTaskScheduled"]


def test_closing_events_of_activities_are_flushed_last() -> None:
    story = started_story()
    story.decide(schedule_activity("a"), schedule_activity("b"))
    story.signal()
    task = story.poll()
    story.complete_activity(story.poll_activity("a"))
    story.signal()
    story.complete_activity(story.poll_activity("b"))
    story.cancel()
    story.complete(task)
    flushed = story.history()[10:]
    assert [event.event_id for event in flushed] == list(range(11, 18))
    assert story.names()[9:] == [
        "WorkflowTaskCompleted",
        "ActivityTaskStarted",
        "WorkflowExecutionSignaled",
        "ActivityTaskStarted",
        "WorkflowExecutionCancelRequested",
        "ActivityTaskCompleted",
        "ActivityTaskCompleted",
        "WorkflowTaskScheduled",
    ]
    first, second = (event.activity_task_completed_event_attributes for event in flushed[4:6])
    assert (first.scheduled_event_id, first.started_event_id) == (5, 11)
    assert (second.scheduled_event_id, second.started_event_id) == (6, 13)


def test_what_is_buffered_survives_a_crash() -> None:
    story = started_story()
    task = story.poll()
    story.signal("first")
    story.signal("second")
    story.crash()
    story.complete(task)
    names = [event.workflow_execution_signaled_event_attributes.signal_name for event in story.history()[4:6]]
    assert names == ["first", "second"]


def test_a_run_cannot_close_over_what_its_workflow_has_not_seen() -> None:
    story = started_story()
    task = story.poll()
    story.signal()
    reply = story.complete(task, complete_workflow())
    assert reply.refusal is not None
    assert reply.refusal.message == "UnhandledCommand"
    assert story.names()[2:] == [
        "WorkflowTaskStarted",
        "WorkflowTaskFailed",
        "WorkflowExecutionSignaled",
        "WorkflowTaskScheduled",
    ]
    cause = story.last(WorkflowTaskFailedEventAttributes).cause
    assert cause == _Cause.WORKFLOW_TASK_FAILED_CAUSE_UNHANDLED_COMMAND
    story.decide(complete_workflow())
    assert not story.run.is_open


def test_an_unhandled_command_ends_a_transient_task_at_once() -> None:
    story = started_story()
    story.fail(story.poll())
    task = story.poll()
    story.signal()
    story.complete(task, complete_workflow())
    assert story.names()[-2:] == ["WorkflowExecutionSignaled", "WorkflowTaskScheduled"]
    assert story.run.task.attempt == 1


# --- what the reply carries -------------------------------------------------------------------------------------------


def test_the_next_task_comes_in_the_reply_where_it_is_asked_for() -> None:
    story = started_story()
    task = story.poll()
    story.signal()
    reply = story.complete(task, start_timer(), sticky=True, return_new_workflow_task=True)
    assert reply.next_task is not None
    assert not story.effects_of(WorkflowTaskReady)
    assert story.names()[4:] == [
        "TimerStarted",
        "WorkflowExecutionSignaled",
        "WorkflowTaskScheduled",
        "WorkflowTaskStarted",
    ]
    assert reply.next_task.history.first_event_id == 4
    assert reply.next_task.history.end_event_id == 8
    assert len(reply.next_task.history.virtual) == 1
    started = story.last(WorkflowTaskStartedEventAttributes)
    assert started.request_id == "request-from-RespondWorkflowTaskCompleted"
    story.complete(reply.next_task, complete_workflow())
    assert not story.run.is_open


def test_a_next_task_in_the_reply_is_one_transition_with_the_completion() -> None:
    story = started_story()
    story.complete(story.poll(), return_new_workflow_task=True, force_create_new_workflow_task=True)
    assert story.run.transition_count == 3


def test_there_is_no_next_task_where_nothing_new_has_come() -> None:
    story = started_story()
    reply = story.decide(start_timer(), return_new_workflow_task=True)
    assert reply.next_task is None
    assert story.run.task.state is State.NONE


def test_eager_activities_start_with_the_reply_and_are_not_offered() -> None:
    story = started_story()
    reply = story.decide(schedule_activity("a", eager=True), schedule_activity("b"))
    [started] = reply.activities
    assert started.response.activity_id == "a"
    assert started.response.attempt == 1
    story.complete_activity(started.response)
    assert story.names()[-3:] == ["ActivityTaskStarted", "ActivityTaskCompleted", "WorkflowTaskScheduled"]


# --- heartbeats -------------------------------------------------------------------------------------------------------


def test_a_forced_task_follows_at_once() -> None:
    story = started_story()
    story.complete(story.poll(), sticky=True, force_create_new_workflow_task=True)
    assert story.names()[4:] == ["WorkflowTaskScheduled"]
    [offer] = story.effects_of(WorkflowTaskReady)
    assert offer.task_queue == STICKY


def heartbeat_for(story: Story, minutes: int) -> None:
    """Prolong the workflow task by completing it with a forced successor every minute."""
    task = story.poll()
    for _ in range(minutes):
        story.now += 60 * SECOND
        reply = story.complete(task, force_create_new_workflow_task=True, return_new_workflow_task=True)
        assert reply.refusal is None
        assert reply.next_task is not None
        task = reply.next_task
    story.now += 1
    assert isinstance(story.complete(task, force_create_new_workflow_task=True).refusal, NotFound)


def test_a_task_is_prolonged_for_half_an_hour_at_most() -> None:
    story = Story()
    story.start(workflow_task_timeout=duration_of(120 * SECOND))
    heartbeat_for(story, 30)
    assert story.names()[-2:] == ["WorkflowTaskStarted", "WorkflowTaskTimedOut"]
    assert story.run.task.state is State.SCHEDULED
    assert story.run.task.task_queue == QUEUE
    assert story.last(WorkflowTaskTimedOutEventAttributes).scheduled_event_id == 92


def test_a_task_that_does_something_begins_a_new_half_hour() -> None:
    story = Story()
    story.start(workflow_task_timeout=duration_of(120 * SECOND))
    heartbeat = {"force_create_new_workflow_task": True, "return_new_workflow_task": True}
    task = story.poll()
    for minute in range(60):
        story.now += 60 * SECOND
        commands: list[Command] = [record_marker()] if minute % 20 == 19 else []
        reply = story.complete(task, *commands, **heartbeat)
        assert reply.next_task is not None
        task = reply.next_task


def test_a_worker_is_told_that_it_prolonged_its_task_for_too_long() -> None:
    story = Story(limits=Limits(workflow_task_heartbeat_timeout=5 * SECOND))
    story.start()
    task = story.poll()
    story.now += 6 * SECOND
    reply = story.complete(task, force_create_new_workflow_task=True)
    assert isinstance(reply.refusal, NotFound)
    assert reply.refusal.message == "workflow task heartbeat timeout"
