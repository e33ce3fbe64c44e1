"""Print a workflow's history event by event, grouped by state transition.

A state transition is one change of a run that is stored as a whole: everything in it is durable, or nothing is. The
server counts them. Most write events; some change only the state, because the history holds what workflow code must
know to run again, and no more: that an activity was started, or failed and will be tried again, is not part of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent

WHY = {
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED: "the client starts the workflow, which makes its first task",
    EventType.EVENT_TYPE_WORKFLOW_TASK_STARTED: "a workflow worker takes the task",
    EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED: "the workflow worker answers with commands",
    EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED: "the workflow worker reports that the code failed; the task is retried",
    EventType.EVENT_TYPE_WORKFLOW_TASK_TIMED_OUT: "nobody answered the task in time; it is given to another worker",
    EventType.EVENT_TYPE_ACTIVITY_TASK_STARTED: "the activity worker answers, which makes the next workflow task",
    EventType.EVENT_TYPE_TIMER_FIRED: "the timer is due, which makes the next workflow task",
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED: "the client signals, which makes the next workflow task",
}

ACTIVITY_STARTED = "an activity worker takes the task; only the state changes, the event is written with the answer"


@dataclass
class Transition:
    """One state transition, as far as a history tells."""

    why: str
    events: list[HistoryEvent] = field(default_factory=list)
    """Empty where only the state changed."""


def transitions(history: Sequence[HistoryEvent]) -> list[Transition]:
    """Group the events of a history by the state transition that wrote them.

    The start of an activity that was answered at its first attempt is counted too, at the place of its answer.
    Retries are not: of an activity that was tried again, or of a workflow task, the history keeps the last try only.
    """
    grouped: list[Transition] = []
    for event in history:
        if grouped and _joins(grouped[-1], event):
            grouped[-1].events.append(event)
            continue
        if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_STARTED:
            grouped.append(Transition(ACTIVITY_STARTED))
        grouped.append(Transition(_why(event), [event]))
    return grouped


def tell(history: Sequence[HistoryEvent]) -> Iterator[str]:
    """Yield the lines that show a history, event by event, under the state transitions that wrote them."""
    for number, transition in enumerate(transitions(history), 1):
        yield f"  {number:2}. {transition.why}"
        for event in transition.events:
            at = event.event_time.ToDatetime().strftime("%H:%M:%S.%f")[:-3]
            yield f"        {event.event_id:3}  {at}  {event_name(event):26} {_detail(event)}".rstrip()
        if not transition.events:
            yield "          -  (no event)"


def event_name(event: HistoryEvent) -> str:
    """Return the name of an event's type, as Temporal writes it: `ActivityTaskScheduled`."""
    words = EventType.Name(event.event_type).removeprefix("EVENT_TYPE_").split("_")
    return "".join(word.capitalize() for word in words)


def _why(event: HistoryEvent) -> str:
    if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_SCHEDULED:
        return "a retry of the task succeeds; only now it is written down"
    return WHY.get(event.event_type, event_name(event))


def _joins(transition: Transition, event: HistoryEvent) -> bool:
    """Say whether an event was written in the transition of the events before it."""
    first, last = transition.events[0], transition.events[-1]
    retried_task = first.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_SCHEDULED
    match event.event_type:
        case EventType.EVENT_TYPE_WORKFLOW_TASK_SCHEDULED:
            return event.workflow_task_scheduled_event_attributes.attempt == 1
        case EventType.EVENT_TYPE_WORKFLOW_TASK_STARTED | EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED:
            return retried_task
        case _:
            return _cause(event) == last.event_id or _cause(event) == _cause(last) != 0


def _cause(event: HistoryEvent) -> int:
    """Return the id of the earlier event of the same transition that an event belongs to, or 0."""
    match event.WhichOneof("attributes"):
        case "activity_task_scheduled_event_attributes":
            return event.activity_task_scheduled_event_attributes.workflow_task_completed_event_id
        case "timer_started_event_attributes":
            return event.timer_started_event_attributes.workflow_task_completed_event_id
        case "workflow_execution_completed_event_attributes":
            return event.workflow_execution_completed_event_attributes.workflow_task_completed_event_id
        case "activity_task_completed_event_attributes":
            return event.activity_task_completed_event_attributes.started_event_id
        case _:
            return 0


def _detail(event: HistoryEvent) -> str:
    match event.WhichOneof("attributes"):
        case "workflow_execution_started_event_attributes":
            return event.workflow_execution_started_event_attributes.workflow_type.name
        case "workflow_task_failed_event_attributes":
            return event.workflow_task_failed_event_attributes.failure.message
        case "activity_task_scheduled_event_attributes":
            scheduled = event.activity_task_scheduled_event_attributes
            return f"{scheduled.activity_type.name} on {scheduled.task_queue.name}"
        case "activity_task_started_event_attributes":
            return f"attempt {event.activity_task_started_event_attributes.attempt}"
        case "timer_started_event_attributes":
            started = event.timer_started_event_attributes
            return f"timer {started.timer_id}, {started.start_to_fire_timeout.ToTimedelta().total_seconds():g} s"
        case "workflow_execution_signaled_event_attributes":
            return event.workflow_execution_signaled_event_attributes.signal_name
        case _:
            return ""
