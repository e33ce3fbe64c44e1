"""What must be true of a history after the kills, given what the server had acknowledged: histories in, faults out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent

from tests.crash._plan import value_of

_CLOSING = {
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED,
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_FAILED,
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_TIMED_OUT,
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CANCELED,
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_TERMINATED,
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CONTINUED_AS_NEW,
}

_S, _A = EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED, EventType.EVENT_TYPE_ACTIVITY_TASK_STARTED
_T, _W = EventType.EVENT_TYPE_WORKFLOW_TASK_SCHEDULED, EventType.EVENT_TYPE_WORKFLOW_TASK_STARTED
_C, _D = (
    EventType.EVENT_TYPE_START_CHILD_WORKFLOW_EXECUTION_INITIATED,
    EventType.EVENT_TYPE_CHILD_WORKFLOW_EXECUTION_STARTED,
)
_X = EventType.EVENT_TYPE_SIGNAL_EXTERNAL_WORKFLOW_EXECUTION_INITIATED
_REFERENCES: dict[EventType.ValueType, dict[str, EventType.ValueType]] = {
    EventType.EVENT_TYPE_WORKFLOW_TASK_STARTED: {"scheduled_event_id": _T},
    EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED: {"scheduled_event_id": _T, "started_event_id": _W},
    EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED: {"scheduled_event_id": _T, "started_event_id": _W},
    EventType.EVENT_TYPE_ACTIVITY_TASK_STARTED: {"scheduled_event_id": _S},
    EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED: {"scheduled_event_id": _S, "started_event_id": _A},
    EventType.EVENT_TYPE_ACTIVITY_TASK_FAILED: {"scheduled_event_id": _S, "started_event_id": _A},
    EventType.EVENT_TYPE_ACTIVITY_TASK_TIMED_OUT: {"scheduled_event_id": _S},
    EventType.EVENT_TYPE_TIMER_FIRED: {"started_event_id": EventType.EVENT_TYPE_TIMER_STARTED},
    EventType.EVENT_TYPE_CHILD_WORKFLOW_EXECUTION_STARTED: {"initiated_event_id": _C},
    EventType.EVENT_TYPE_CHILD_WORKFLOW_EXECUTION_COMPLETED: {"initiated_event_id": _C, "started_event_id": _D},
    EventType.EVENT_TYPE_EXTERNAL_WORKFLOW_EXECUTION_SIGNALED: {"initiated_event_id": _X},
}
"""Which field of an event names an earlier event, and of which type that must be."""

_AT_MOST_ONCE_PER_START: dict[EventType.ValueType, str] = {
    EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED: "started_event_id",
    EventType.EVENT_TYPE_ACTIVITY_TASK_STARTED: "scheduled_event_id",
    EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED: "scheduled_event_id",
    EventType.EVENT_TYPE_TIMER_FIRED: "started_event_id",
    EventType.EVENT_TYPE_CHILD_WORKFLOW_EXECUTION_STARTED: "initiated_event_id",
    EventType.EVENT_TYPE_CHILD_WORKFLOW_EXECUTION_COMPLETED: "initiated_event_id",
    EventType.EVENT_TYPE_EXTERNAL_WORKFLOW_EXECUTION_SIGNALED: "initiated_event_id",
}


@dataclass
class Promises:
    """What the server acknowledged about one workflow, and what was asked of it without an answer."""

    run_id: str = ""
    """The run of the acknowledged start."""
    signals_sent: set[str] = field(default_factory=set)
    signals_acknowledged: set[str] = field(default_factory=set)
    activity_results: dict[str, str] = field(default_factory=dict)
    """The result of every acknowledged activity completion, by activity id."""
    task_identities: set[str] = field(default_factory=set)
    """Every acknowledged workflow task completion, by the identity it was made under, which is used once."""
    completed: bool = False
    """Whether a task with the workflow's completion was acknowledged."""


def audit(workflow_id: str, events: Sequence[HistoryEvent], promises: Promises) -> list[str]:
    """Return every way in which a closed run's history breaks a promise or the form of histories."""
    faults = audit_form(events, EventType.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED)
    faults += [*_signals(events, promises), *_activities(events, promises), *_tasks(events, promises)]
    return [f"{workflow_id}: {fault}" for fault in faults]


def audit_form(events: Sequence[HistoryEvent], closing: EventType.ValueType) -> list[str]:
    """Return every way in which the history of a run that closed with an event breaks the form of histories."""
    return [*_form(events), *_closing(events, closing), *_references(events)]


def _form(events: Sequence[HistoryEvent]) -> Iterator[str]:
    ids = [event.event_id for event in events]
    if ids != list(range(1, len(events) + 1)):
        yield f"event ids are not 1 to {len(events)} without gaps: {ids}"
    if not events or events[0].event_type != EventType.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED:
        yield "the first event is not WorkflowExecutionStarted"


def _closing(events: Sequence[HistoryEvent], expected: EventType.ValueType) -> Iterator[str]:
    closing = [event for event in events if event.event_type in _CLOSING]
    if len(closing) != 1:
        yield f"there are {len(closing)} closing events"
    elif closing[0] is not events[-1]:
        yield f"event {closing[0].event_id} closes the run but is not the last"
    elif closing[0].event_type != expected:
        yield f"the run did not close with {EventType.Name(expected)}: {EventType.Name(closing[0].event_type)}"


def _references(events: Sequence[HistoryEvent]) -> Iterator[str]:
    types = {event.event_id: event.event_type for event in events}
    taken: Counter[tuple[int, int]] = Counter()
    for event in events:
        for name, expected in _REFERENCES.get(event.event_type, {}).items():
            earlier = _number(event, name)
            if earlier >= event.event_id or types.get(earlier) != expected:
                yield f"{name} of event {event.event_id} is {earlier}, which is no earlier {EventType.Name(expected)}"
        if (once := _AT_MOST_ONCE_PER_START.get(event.event_type)) is not None:
            taken[event.event_type, _number(event, once)] += 1
    for (event_type, earlier), times in taken.items():
        if times > 1:
            yield f"event {earlier} has {times} events {EventType.Name(EventType.ValueType(event_type))}"


def _signals(events: Sequence[HistoryEvent], promises: Promises) -> Iterator[str]:
    recorded = Counter(
        value_of(event.workflow_execution_signaled_event_attributes.input)
        for event in events
        if event.event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED
    )
    for signal in sorted(promises.signals_acknowledged - recorded.keys()):
        yield f"the acknowledged signal {signal} is not in history"
    for signal, times in sorted(recorded.items()):
        if signal not in promises.signals_sent:
            yield f"the signal {signal} was never sent"
        if times > 1:
            yield f"the signal {signal} is in history {times} times"


def _activities(events: Sequence[HistoryEvent], promises: Promises) -> Iterator[str]:
    names: dict[int, str] = {}
    results: dict[str, str] = {}
    for event in events:
        if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED:
            names[event.event_id] = event.activity_task_scheduled_event_attributes.activity_id
        elif event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED:
            completed = event.activity_task_completed_event_attributes
            results[names.get(completed.scheduled_event_id, "unknown")] = value_of(completed.result)
    for activity_id, result in sorted(promises.activity_results.items()):
        if results.get(activity_id) != result:
            yield f"activity {activity_id} was acknowledged with {result}; history has {results.get(activity_id)}"


def _tasks(events: Sequence[HistoryEvent], promises: Promises) -> Iterator[str]:
    recorded = Counter(
        event.workflow_task_completed_event_attributes.identity
        for event in events
        if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED
    )
    for identity in sorted(promises.task_identities - recorded.keys()):
        yield f"the acknowledged workflow task completion of {identity} is not in history"
    if not promises.completed:
        return
    if not events or events[-1].event_type != EventType.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED:
        yield "the workflow's completion was acknowledged and is not in history"


def _number(event: HistoryEvent, name: str) -> int:
    """Read a number from an event's attributes, whatever their type."""
    attributes = getattr(event, event.WhichOneof("attributes") or "", None)
    number = getattr(attributes, name, 0)
    return number if isinstance(number, int) else 0
