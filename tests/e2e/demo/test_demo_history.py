"""The demo's grouping of events by state transition, on histories whose transitions are known."""

from __future__ import annotations

from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent

from examples.orders.history import tell, transitions

START = EventType.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED
SIGNALLED = EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED
COMPLETED = EventType.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED
TASK_SCHEDULED = EventType.EVENT_TYPE_WORKFLOW_TASK_SCHEDULED
TASK_STARTED = EventType.EVENT_TYPE_WORKFLOW_TASK_STARTED
TASK_COMPLETED = EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED
TASK_FAILED = EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED
ACTIVITY_SCHEDULED = EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED
ACTIVITY_STARTED = EventType.EVENT_TYPE_ACTIVITY_TASK_STARTED
ACTIVITY_COMPLETED = EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED


def history(*types: EventType.ValueType, retried_tasks: tuple[int, ...] = ()) -> list[HistoryEvent]:
    """Make a history; `retried_tasks` are the ids of the scheduled events of retried workflow tasks."""
    events = [HistoryEvent(event_id=number, event_type=kind) for number, kind in enumerate(types, 1)]
    task_completed = activity_started = 0
    for event in events:
        if event.event_type == TASK_SCHEDULED:
            retried = event.event_id in retried_tasks
            event.workflow_task_scheduled_event_attributes.attempt = 2 if retried else 1
        elif event.event_type == TASK_COMPLETED:
            task_completed = event.event_id
        elif event.event_type == ACTIVITY_SCHEDULED:
            event.activity_task_scheduled_event_attributes.workflow_task_completed_event_id = task_completed
        elif event.event_type == ACTIVITY_STARTED:
            activity_started = event.event_id
        elif event.event_type == ACTIVITY_COMPLETED:
            event.activity_task_completed_event_attributes.started_event_id = activity_started
        elif event.event_type == COMPLETED:
            event.workflow_execution_completed_event_attributes.workflow_task_completed_event_id = task_completed
    return events


def grouped(events: list[HistoryEvent]) -> list[list[int]]:
    return [[event.event_id for event in transition.events] for transition in transitions(events)]


ONE_ACTIVITY = history(
    *(START, TASK_SCHEDULED, TASK_STARTED, TASK_COMPLETED, ACTIVITY_SCHEDULED, ACTIVITY_STARTED),
    *(ACTIVITY_COMPLETED, TASK_SCHEDULED, TASK_STARTED, TASK_COMPLETED, COMPLETED),
)


def test_a_one_activity_run_has_seven_transitions_one_of_them_without_an_event() -> None:
    assert grouped(ONE_ACTIVITY) == [[1, 2], [3], [4, 5], [], [6, 7, 8], [9], [10, 11]]


def test_two_activities_of_one_answer_share_its_transition() -> None:
    events = history(
        START, TASK_SCHEDULED, TASK_STARTED, TASK_COMPLETED, ACTIVITY_SCHEDULED, ACTIVITY_SCHEDULED, SIGNALLED
    )
    assert grouped(events) == [[1, 2], [3], [4, 5, 6], [7]]


def test_a_retried_task_is_written_when_it_succeeds() -> None:
    events = history(
        *(START, TASK_SCHEDULED, TASK_STARTED, TASK_FAILED, TASK_SCHEDULED, TASK_STARTED, TASK_COMPLETED, COMPLETED),
        retried_tasks=(5,),
    )
    assert grouped(events) == [[1, 2], [3], [4], [5, 6, 7, 8]]


def test_a_signal_makes_the_next_task() -> None:
    events = history(START, TASK_SCHEDULED, TASK_STARTED, TASK_COMPLETED, SIGNALLED, TASK_SCHEDULED)
    assert grouped(events) == [[1, 2], [3], [4], [5, 6]]


def test_every_event_is_printed_once_under_numbered_transitions() -> None:
    lines = list(tell(ONE_ACTIVITY))
    assert sum("WorkflowTaskScheduled" in line for line in lines) == 2
    assert sum("(no event)" in line for line in lines) == 1
    assert [line.split(".")[0].strip() for line in lines if line[5] == "." or line[4] == "."] == list("1234567")
