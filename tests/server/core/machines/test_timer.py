"""Workflow timers: started, fired, cancelled, and the race of the last two."""

from __future__ import annotations

from temporalio.api.enums.v1 import WorkflowTaskFailedCause
from temporalio.api.history.v1 import (
    TimerCanceledEventAttributes,
    TimerFiredEventAttributes,
    TimerStartedEventAttributes,
    WorkflowTaskFailedEventAttributes,
)

from perdure.server.core.durations import nanos_of
from perdure.server.core.effects import AlarmSet
from perdure.server.core.events import event_at
from perdure.server.core.replies import WorkflowTaskStarted
from tests.server.core.commands import SECOND, cancel_timer, complete_workflow, start_timer
from tests.server.core.story import NOW, Story

_Cause = WorkflowTaskFailedCause


def timing_story(*timers: tuple[str, float]) -> Story:
    """A run that has started timers and waits."""
    story = Story()
    story.start()
    story.decide(*(start_timer(timer_id, seconds) for timer_id, seconds in timers))
    return story


def signalled(story: Story) -> Story:
    story.signal()
    return story


def test_a_timer_fires_when_it_is_due_and_wakes_the_workflow() -> None:
    story = timing_story(("t", 20))
    assert story.effects_of(AlarmSet)[-1].due == NOW + 20 * SECOND
    story.wait(19.999)
    assert story.names()[-1] == "TimerStarted"
    story.wait(0.001)
    assert story.names()[4:] == ["TimerStarted", "TimerFired", "WorkflowTaskScheduled"]
    started, fired = story.last(TimerStartedEventAttributes), story.last(TimerFiredEventAttributes)
    assert started.workflow_task_completed_event_id == 4
    assert nanos_of(started.start_to_fire_timeout) == 20 * SECOND
    assert (fired.timer_id, fired.started_event_id) == ("t", 5)
    assert event_at(story.history()[5]) == NOW + 20 * SECOND


def test_a_timer_survives_a_crash() -> None:
    story = timing_story(("t", 10))
    story.crash()
    story.wait(10)
    assert "TimerFired" in story.names()


def test_a_timer_of_no_time_fires_at_once() -> None:
    story = timing_story(("t", 0))
    story.ring()
    assert story.names()[5:] == ["TimerFired", "WorkflowTaskScheduled"]


def test_timers_fire_in_the_order_of_their_times() -> None:
    story = timing_story(("slow", 20), ("fast", 5))
    story.wait(5)
    assert story.last(TimerFiredEventAttributes).timer_id == "fast"
    assert list(story.run.timers) == ["slow"]


def test_timers_due_at_the_same_time_fire_in_the_order_of_their_start() -> None:
    story = timing_story(("9", 5), ("10", 5), ("1", 5))
    story.crash()
    story.wait(5)
    fired = [event.timer_fired_event_attributes.timer_id for event in story.history() if event.event_type == 18]
    assert fired == ["9", "10", "1"]
    assert story.names()[-4:] == ["TimerFired", "WorkflowTaskScheduled", "TimerFired", "TimerFired"]


def test_many_timers_that_are_due_fire_in_one_transition() -> None:
    story = timing_story(*((f"t{number}", 5) for number in range(20)))
    before = story.run.transition_count
    story.wait(5)
    assert story.run.transition_count == before + 1
    assert not story.run.timers


def test_a_cancelled_timer_does_not_fire() -> None:
    story = signalled(timing_story(("t", 10)))
    story.decide(cancel_timer("t"))
    canceled = story.last(TimerCanceledEventAttributes)
    assert (canceled.timer_id, canceled.started_event_id, canceled.identity) == ("t", 5, "worker")
    story.wait(100)
    assert "TimerFired" not in story.names()


def test_a_timer_may_be_started_and_cancelled_by_one_task() -> None:
    story = timing_story()
    signalled(story).decide(start_timer("t"), cancel_timer("t"), start_timer("t", 99))
    assert story.names()[-3:] == ["TimerStarted", "TimerCanceled", "TimerStarted"]
    assert story.run.timers["t"].fires_at == NOW + 99 * SECOND


def test_the_id_of_a_running_timer_is_taken() -> None:
    story = signalled(timing_story(("t", 10)))
    story.decide(start_timer("t"))
    failed = story.last(WorkflowTaskFailedEventAttributes)
    assert failed.cause == _Cause.WORKFLOW_TASK_FAILED_CAUSE_START_TIMER_DUPLICATE_ID


def test_a_timer_that_is_not_running_cannot_be_cancelled() -> None:
    story = signalled(timing_story(("t", 10)))
    story.decide(cancel_timer("other"))
    failed = story.last(WorkflowTaskFailedEventAttributes)
    assert failed.cause == _Cause.WORKFLOW_TASK_FAILED_CAUSE_BAD_CANCEL_TIMER_ATTRIBUTES
    assert list(story.run.timers) == ["t"]


def test_a_timer_that_fired_can_be_started_anew() -> None:
    story = timing_story(("t", 10))
    story.wait(10)
    story.decide(start_timer("t", 5))
    story.wait(5)
    assert story.last(TimerFiredEventAttributes).started_event_id == 10


# --- due while a task is started --------------------------------------------------------------------------------------


def raced_story() -> tuple[Story, WorkflowTaskStarted]:
    """A run whose timer fired into the buffer, behind a started task."""
    story = signalled(timing_story(("t", 5)))
    task = story.poll()
    story.wait(5)
    assert story.names()[-1] == "WorkflowTaskStarted"
    return story, task


def test_a_timer_that_fired_into_the_buffer_can_still_be_cancelled_by_that_task() -> None:
    story, task = raced_story()
    story.complete(task, cancel_timer("t"), complete_workflow())
    assert story.names()[-3:] == ["WorkflowTaskCompleted", "TimerCanceled", "WorkflowExecutionCompleted"]
    assert story.last(TimerCanceledEventAttributes).started_event_id == 5
    assert "TimerFired" not in story.names()


def test_the_buffered_fire_survives_a_crash_and_can_be_cancelled_after_it() -> None:
    story, task = raced_story()
    story.signal()
    story.crash()
    story.complete(task, cancel_timer("t"))
    assert story.names()[-3:] == ["TimerCanceled", "WorkflowExecutionSignaled", "WorkflowTaskScheduled"]


def test_a_fire_that_was_taken_back_is_gone_for_good() -> None:
    story, task = raced_story()
    story.complete(task, cancel_timer("t"))
    assert story.names()[-2:] == ["WorkflowTaskCompleted", "TimerCanceled"]
    story.crash()
    assert not story.run.buffered
    assert not story.run.task.is_pending


def test_a_buffered_fire_can_be_taken_back_once() -> None:
    story, task = raced_story()
    reply = story.complete(task, cancel_timer("t"), cancel_timer("t"))
    assert reply.refusal is not None
    assert reply.refusal.message.startswith("BadCancelTimerAttributes")
    assert story.names()[-3:] == ["WorkflowTaskFailed", "TimerFired", "WorkflowTaskScheduled"]


def test_an_uncancelled_fire_is_flushed_after_the_task() -> None:
    story, task = raced_story()
    story.complete(task)
    assert story.names()[-3:] == ["WorkflowTaskCompleted", "TimerFired", "WorkflowTaskScheduled"]


def test_the_id_is_free_again_while_its_fire_is_still_buffered() -> None:
    story, task = raced_story()
    story.complete(task, start_timer("t", 50))
    assert story.names()[-3:] == ["TimerStarted", "TimerFired", "WorkflowTaskScheduled"]
    assert story.last(TimerFiredEventAttributes).started_event_id == 5
    assert story.run.timers["t"].started_event_id == 10
