"""The audit of the crash test finds what it is there to find."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.workflowservice.v1 import PollActivityTaskQueueResponse

from tests.crash._audit import Promises, audit
from tests.crash._load import Journal
from tests.crash._plan import payloads


def test_a_history_that_keeps_every_promise_has_no_fault() -> None:
    assert audit("id", valid_history(), promises()) == []


def _lose_the_signal(events: list[HistoryEvent]) -> None:
    del events[5]
    _number_again(events)


def _repeat_the_signal(events: list[HistoryEvent]) -> None:
    events.insert(6, _signaled("approve"))
    _number_again(events)


def _forge_a_signal(events: list[HistoryEvent]) -> None:
    events[5].workflow_execution_signaled_event_attributes.input.CopyFrom(payloads("forged"))


def _change_the_result(events: list[HistoryEvent]) -> None:
    events[7].activity_task_completed_event_attributes.result.CopyFrom(payloads("other"))


def _leave_a_gap(events: list[HistoryEvent]) -> None:
    events[11].event_id = 13


def _change_the_worker(events: list[HistoryEvent]) -> None:
    events[10].workflow_task_completed_event_attributes.identity = "other"


def _close_twice(events: list[HistoryEvent]) -> None:
    events.append(HistoryEvent(event_id=13, event_type=EventType.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED))


def _go_on_after_the_end(events: list[HistoryEvent]) -> None:
    events.append(HistoryEvent(event_id=13, event_type=EventType.EVENT_TYPE_WORKFLOW_TASK_SCHEDULED))


def _stay_open(events: list[HistoryEvent]) -> None:
    del events[11]


def _fail_instead(events: list[HistoryEvent]) -> None:
    events[11].event_type = EventType.EVENT_TYPE_WORKFLOW_EXECUTION_FAILED


def _point_at_the_wrong_event(events: list[HistoryEvent]) -> None:
    events[7].activity_task_completed_event_attributes.scheduled_event_id = 2


def _start_the_activity_twice(events: list[HistoryEvent]) -> None:
    again = HistoryEvent(event_type=EventType.EVENT_TYPE_ACTIVITY_TASK_STARTED)
    again.activity_task_started_event_attributes.scheduled_event_id = 5
    events.insert(7, again)
    _number_again(events)


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (_lose_the_signal, "the acknowledged signal approve is not in history"),
        (_repeat_the_signal, "the signal approve is in history 2 times"),
        (_forge_a_signal, "the signal forged was never sent"),
        (_change_the_result, "activity 0.0 was acknowledged with paid; history has other"),
        (_leave_a_gap, "event ids are not 1 to 12 without gaps"),
        (_change_the_worker, "the acknowledged workflow task completion of worker-2 is not in history"),
        (_close_twice, "there are 2 closing events"),
        (_go_on_after_the_end, "event 12 closes the run but is not the last"),
        (_stay_open, "there are 0 closing events"),
        (_stay_open, "the workflow's completion was acknowledged and is not in history"),
        (_fail_instead, "the run did not close with EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED"),
        (_point_at_the_wrong_event, "scheduled_event_id of event 8 is 2"),
        (_start_the_activity_twice, "event 5 has 2 events EVENT_TYPE_ACTIVITY_TASK_STARTED"),
    ],
)
def test_damage_to_a_history_is_found(damage: Callable[[list[HistoryEvent]], None], fault: str) -> None:
    events = valid_history()
    damage(events)
    assert any(fault in found for found in audit("id", events, promises()))


def test_a_second_start_of_an_activity_with_one_attempt_is_a_fault() -> None:
    journal = Journal()
    task = PollActivityTaskQueueResponse(activity_id="0.0", workflow_execution=WorkflowExecution(workflow_id="id"))
    journal.started_once(task)
    assert journal.faults == []
    journal.started_once(task)
    assert journal.faults == ["activity 0.0 of id has one attempt and was started again"]


def promises() -> Promises:
    """What the server acknowledged about `valid_history`."""
    return Promises(
        run_id="run",
        signals_sent={"approve"},
        signals_acknowledged={"approve"},
        activity_results={"0.0": "paid"},
        task_identities={"worker-1", "worker-2"},
        completed=True,
    )


def valid_history() -> list[HistoryEvent]:
    """A run with one activity and one signal, closed."""
    activity = HistoryEvent(event_type=EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED)
    activity.activity_task_scheduled_event_attributes.activity_id = "0.0"
    started = HistoryEvent(event_type=EventType.EVENT_TYPE_ACTIVITY_TASK_STARTED)
    started.activity_task_started_event_attributes.scheduled_event_id = 5
    completed = HistoryEvent(event_type=EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED)
    completed.activity_task_completed_event_attributes.scheduled_event_id = 5
    completed.activity_task_completed_event_attributes.started_event_id = 7
    completed.activity_task_completed_event_attributes.result.CopyFrom(payloads("paid"))
    events = [
        HistoryEvent(event_type=EventType.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED),
        *_task(2, "worker-1"),
        activity,
        _signaled("approve"),
        started,
        completed,
        *_task(9, "worker-2"),
        HistoryEvent(event_type=EventType.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED),
    ]
    _number_again(events)
    return events


def _task(scheduled_event_id: int, identity: str) -> list[HistoryEvent]:
    scheduled = HistoryEvent(event_type=EventType.EVENT_TYPE_WORKFLOW_TASK_SCHEDULED)
    started = HistoryEvent(event_type=EventType.EVENT_TYPE_WORKFLOW_TASK_STARTED)
    started.workflow_task_started_event_attributes.scheduled_event_id = scheduled_event_id
    completed = HistoryEvent(event_type=EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED)
    completed.workflow_task_completed_event_attributes.scheduled_event_id = scheduled_event_id
    completed.workflow_task_completed_event_attributes.started_event_id = scheduled_event_id + 1
    completed.workflow_task_completed_event_attributes.identity = identity
    return [scheduled, started, completed]


def _signaled(name: str) -> HistoryEvent:
    event = HistoryEvent(event_type=EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED)
    event.workflow_execution_signaled_event_attributes.input.CopyFrom(payloads(name))
    return event


def _number_again(events: list[HistoryEvent]) -> None:
    for number, event in enumerate(events, start=1):
        event.event_id = number
