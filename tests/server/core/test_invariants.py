"""Every invariant, broken on purpose: a check that cannot fail checks nothing."""

from __future__ import annotations

import copy
from collections.abc import Callable

import msgspec
import pytest
from temporalio.api.history.v1 import HistoryEvent, WorkflowExecutionSignaledEventAttributes

from perdure.server.core.durations import duration_of
from perdure.server.core.errors import InvariantBroken
from perdure.server.core.events import Event, build_event, event_of
from perdure.server.core.invariants import check_invariants, rebuild, recorded, stored_difference
from perdure.server.core.machines import activity, query, timer, workflow_task
from perdure.server.core.run import RUNNING, Run
from perdure.server.core.stored import restore, stored_run
from tests.server.core.commands import SECOND, schedule_activity, start_timer
from tests.server.core.stories import failing_story, idle_story, started_story, sticky_story
from tests.server.core.story import KEY, NOW, Story

Break = Callable[[Run, list[HistoryEvent]], object]


def busy_story() -> Story:
    """A run that has a bit of everything: timer, activities, a started task and an event behind it."""
    story = started_story()
    story.decide(start_timer("t", 60), schedule_activity("a"), schedule_activity("b"))
    story.poll_activity("a")
    story.signal()
    story.query()
    story.poll()
    story.signal()
    return story


def closed_story() -> Story:
    story = started_story()
    story.terminate()
    return story


def delayed_story() -> Story:
    story = Story()
    story.start(workflow_start_delay=duration_of(60 * SECOND))
    return story


def query_story() -> Story:
    story = sticky_story()
    story.query()
    return story


def transient_story() -> Story:
    story = failing_story()
    story.poll()
    return story


def held_story() -> Story:
    story = started_story()
    story.poll()
    return story


def waiting_story() -> Story:
    story = started_story()
    story.decide()
    return story


def drop_alarms(kind: str) -> Break:
    return lambda run, events: setattr(run, "alarms", [alarm for alarm in run.alarms if alarm[1] != kind])


BROKEN: dict[str, tuple[Callable[[], Story], Break, str]] = {
    # --- history
    "an event is missing": (busy_story, lambda run, events: events.pop(3), "event ids are"),
    "the first event": (
        idle_story,
        lambda run, events: setattr(events[0], "event_type", events[1].event_type),
        "the first event is EVENT_TYPE_WORKFLOW_TASK_SCHEDULED",
    ),
    "closed twice": (
        closed_story,
        lambda run, events: setattr(events[1], "event_type", events[-1].event_type),
        "closing events are",
    ),
    "open with a closing event": (
        closed_story,
        lambda run, events: setattr(run, "status", RUNNING),
        "it is open and has",
    ),
    "open with a close time": (idle_story, lambda run, events: setattr(run, "closed_at", 1), "has a close time"),
    "closed with buffered events": (
        closed_story,
        lambda run, events: run.buffered.append(event_of(events[-1])),
        "events are still buffered",
    ),
    "the tail": (idle_story, lambda run, events: run.tail.pop(), "the tail reaches"),
    # --- memory and history
    "a forgotten signal": (busy_story, lambda run, events: setattr(run, "signal_count", 1), "signal_count"),
    "a forgotten timer": (busy_story, lambda run, events: run.timers.clear(), "timers: memory has {}"),
    "a forgotten activity": (busy_story, lambda run, events: run.activities.pop(6), "activities"),
    "another workflow task": (
        busy_story,
        lambda run, events: setattr(run.task, "started_event_id", 99),
        "workflow task: memory has",
    ),
    "a history no run can have": (
        idle_story,
        lambda run, events: events[2].CopyFrom(with_id(events[1], 3)),
        "cannot be rebuilt: event 3, EVENT_TYPE_WORKFLOW_TASK_SCHEDULED",
    ),
    # --- the workflow task
    "buffered behind nothing": (
        idle_story,
        lambda run, events: buffer_signal(run),
        "events are buffered and no workflow task is started",
    ),
    "a start without a nonce": (busy_story, lambda run, events: setattr(run.task, "nonce", ""), "has no nonce"),
    "an event behind a held start": (
        held_story,
        lambda run, events: setattr(run.task, "started_event_id", 2),
        "between a held start and its event",
    ),
    "an event behind a transient task": (
        transient_story,
        lambda run, events: setattr(run.task, "scheduled_event_id", 1),
        "between a transient task and its start",
    ),
    "the start of a transient task": (
        transient_story,
        lambda run, events: setattr(run.task, "started_event_id", 1),
        "Started event has the wrong id",
    ),
    "a transient task from the future": (
        transient_story,
        lambda run, events: setattr(run.task, "scheduled_event_id", 99),
        "a transient task has the id 99",
    ),
    # --- nothing waits for nobody
    "a task in no queue": (busy_story, lambda run, events: setattr(run.task, "task_queue", ""), "in no queue"),
    "a task without a timeout": (busy_story, drop_alarms(workflow_task.TIMEOUT_ALARM), "its alarm is at None"),
    "a timer without an alarm": (busy_story, drop_alarms(timer.ALARM), "its alarm is at None"),
    "an activity without an alarm": (busy_story, drop_alarms(activity.ALARM), "its alarm is at None"),
    "a backoff without an alarm": (delayed_story, drop_alarms("first_workflow_task"), "its alarm is at None"),
    "a sticky query without an alarm": (query_story, drop_alarms(query.STICKY_ALARM), "its alarm is at None"),
    "a closed activity that is pending": (
        busy_story,
        lambda run, events: setattr(run.activities[6], "state", activity.State.CLOSED),
        "is closed and pending",
    ),
    "a query that has ended": (
        query_story,
        lambda run, events: setattr(run.queries.pending["q1"], "state", query.State.GONE),
        "has ended and is still pending",
    ),
    "a query that waits for nothing": (
        query_story,
        lambda run, events: setattr(run.queries.pending["q1"], "state", query.State.WAITING),
        "waits for a workflow task, and none is pending",
    ),
    "a query with a task nobody has": (
        query_story,
        lambda run, events: setattr(run.queries.pending["q1"], "state", query.State.ATTACHED),
        "went with a workflow task that no worker has",
    ),
    # --- the stored form
    "a stored alarm that is too late": (
        busy_story,
        lambda run, events: setattr(run, "alarm_at", run.alarm_at and run.alarm_at + 10**12),
        "the stored alarm is at",
    ),
    "no stored alarm": (busy_story, lambda run, events: setattr(run, "alarm_at", None), "the stored alarm is at None"),
}


def buffer_signal(run: Run) -> None:
    run.buffered.append(build_event(0, NOW, WorkflowExecutionSignaledEventAttributes(signal_name="s")))
    run.signal_count += 1


def with_id(event: HistoryEvent, event_id: int) -> HistoryEvent:
    changed = HistoryEvent()
    changed.CopyFrom(event)
    changed.event_id = event_id
    return changed


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_found(name: str) -> None:
    make, break_it, message = BROKEN[name]
    story = make()
    run, events = story.run, story.history()
    check_invariants(run, events)
    break_it(run, events)
    with pytest.raises(InvariantBroken, match=message) as broken:
        check_invariants(run, events)
    assert run.run_id in str(broken.value)


def test_a_lost_wake_up_is_found() -> None:
    story = waiting_story()
    story.signal()
    run, events = story.run, story.history()
    run.task.state = workflow_task.State.NONE
    lost = events.pop()
    forget_last_event(run, lost)
    with pytest.raises(InvariantBroken, match="WORKFLOW_EXECUTION_SIGNALED, waits for a workflow task"):
        check_invariants(run, events)


def test_a_first_task_that_was_never_scheduled_is_found() -> None:
    story = started_story()
    run, events = story.run, story.history()
    run.task = workflow_task.WorkflowTask()
    run.had_task = False
    forget_last_event(run, events.pop())
    with pytest.raises(InvariantBroken, match="no workflow task was ever completed, and none is pending"):
        check_invariants(run, events)


def forget_last_event(run: Run, event: HistoryEvent) -> None:
    run.next_event_id -= 1
    run.history_size_bytes -= event.ByteSize()
    run.tail.pop()


def test_checking_changes_nothing() -> None:
    story = busy_story()
    before = copy.deepcopy(story.run)
    check_invariants(story.run, story.history())
    assert repr(story.run) == repr(before)


def test_a_run_is_rebuilt_from_its_history() -> None:
    story = busy_story()
    rebuilt = rebuild(KEY, story.run.run_id, [*story.history(), *map(_message, story.run.buffered)])
    assert recorded(rebuilt) == recorded(story.run)
    assert rebuilt is not story.run


def test_what_the_store_gives_back_is_compared_field_by_field() -> None:
    story = busy_story()
    stored = stored_run(story.run, story.history())
    assert stored_difference(story.run, restore(stored)) == ""
    stored.run = msgspec.structs.replace(stored.run, transition_count=1)
    assert stored_difference(story.run, restore(stored)).startswith("transition_count: ")


def _message(event: Event) -> HistoryEvent:
    return HistoryEvent.FromString(event.serialize())
