"""Alarms: early ones find nothing, late ones find everything; and offers made again after they may have been lost."""

from __future__ import annotations

from temporalio.api.common.v1 import RetryPolicy

from perdure.server.core.effects import ActivityTaskReady, AlarmSet, WorkflowTaskReady
from perdure.server.core.inputs import ResumeOffers
from tests.server.core.commands import SECOND, application_failure, schedule_activity, start_timer
from tests.server.core.stories import idle_story, started_story, sticky_story
from tests.server.core.story import NOW, QUEUE, STICKY


def test_an_early_alarm_finds_nothing_and_sets_the_next() -> None:
    story = idle_story()
    story.ring()
    assert not story.last_step.is_dirty
    assert story.names()[-1] == "TimerStarted"
    [alarm] = story.effects_of(AlarmSet)
    assert alarm.due == NOW + 1_000 * SECOND


def test_a_late_alarm_finds_everything_that_is_due() -> None:
    story = started_story()
    story.decide(start_timer("a", 5), start_timer("b", 50), schedule_activity(to_start=20))
    story.now += 3_000 * SECOND
    story.ring()
    assert story.names()[7:] == ["TimerFired", "WorkflowTaskScheduled", "ActivityTaskTimedOut", "TimerFired"]


def test_a_late_alarm_still_closes_the_run_that_is_out_of_time() -> None:
    story = started_story()
    story.poll()
    story.now += 20 * SECOND
    story.ring()
    assert story.names()[2:] == ["WorkflowTaskStarted", "WorkflowTaskTimedOut"]


def test_the_stored_alarm_is_lowered_at_once_and_raised_when_it_fires() -> None:
    story = started_story()
    story.decide(start_timer("a", 50))
    assert story.run.alarm_at == NOW + 50 * SECOND
    story.signal()
    story.decide(start_timer("b", 5))
    assert story.run.alarm_at == NOW + 5 * SECOND
    story.wait(5)
    assert story.run.alarm_at == NOW + 50 * SECOND


def test_an_alarm_that_is_over_for_nothing_is_raised_without_a_transition() -> None:
    story = started_story()
    story.decide(schedule_activity(start_to_close=5), start_timer("t", 100))
    task = story.poll_activity()
    story.complete_activity(task)
    before = story.run.transition_count
    story.now += 5 * SECOND
    story.ring()
    assert story.run.transition_count == before
    assert story.run.alarm_at == NOW + 100 * SECOND


def test_an_alarm_of_a_task_that_is_only_held_writes_its_start() -> None:
    story = sticky_story(timeout=5)
    story.signal()
    story.now += SECOND
    story.poll(sticky_queue=STICKY)
    story.now += 4 * SECOND
    story.ring()
    assert story.names()[-1] == "WorkflowTaskStarted"
    story.crash()
    assert story.run.task.is_started


def test_offers_are_made_again() -> None:
    story = started_story()
    story.decide(schedule_activity("a"), schedule_activity("b"), schedule_activity("c"))
    story.poll_activity("a")
    story.fail_activity(story.poll_activity("b"), application_failure())
    story.signal()
    story.crash()
    story.do(ResumeOffers(""))
    assert not story.last_step.is_dirty
    assert len(story.effects_of(WorkflowTaskReady)) == 1
    assert [offer.scheduled_event_id for offer in story.effects_of(ActivityTaskReady)] == [7]
    assert story.effects_of(AlarmSet)


def test_a_sticky_queue_without_a_timeout_is_left_at_once() -> None:
    story = started_story()
    story.complete(story.poll(), start_timer("t", 1_000), sticky=True, sticky_timeout=0)
    story.signal()
    story.wait(0)
    assert story.names()[-2:] == ["WorkflowTaskTimedOut", "WorkflowTaskScheduled"]
    assert story.run.task.task_queue == QUEUE


def test_alarms_that_are_over_do_not_pile_up_behind_one_that_is_due_earlier() -> None:
    story = started_story()
    story.decide(start_timer("soon", 60))
    for batch in range(12):
        story.signal()
        names = [f"{batch} {number}" for number in range(10)]
        story.decide(*(schedule_activity(name, to_close=3_600) for name in names))
        for name in names:
            story.complete_activity(name)
        story.decide()
    assert len(story.run.alarms) < 80


def test_looking_through_the_alarms_loses_none_that_was_put_off() -> None:
    story, once = started_story(), RetryPolicy(maximum_attempts=1)
    story.decide(start_timer("soon", 60), schedule_activity("beating", heartbeat=100, start_to_close=3_600, retry=once))
    task = story.poll_activity("beating")
    story.now += 50 * SECOND
    story.heartbeat(task)
    story.run.drop_dead_alarms()
    story.wait(99)
    assert "ActivityTaskTimedOut" not in story.names()
    story.wait(1)
    assert story.names()[-1] == "ActivityTaskTimedOut"
