"""What must hold of a run after every step; tests, the simulator and `perdure db check` check it, servers never do.

A broken rule is a bug of ours, so it raises `InvariantBroken` with the run, the rule and both sides of the difference.
Checking changes nothing. Five families: history is well formed; memory is what history says; the workflow task is
consistent; nothing waits for nobody; and the stored form gives the same run back.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from msgspec import structs
from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent

from perdure._machine import IllegalMove
from perdure.server.core.errors import InvariantBroken
from perdure.server.core.events import attributes_of, event_of
from perdure.server.core.machines import activity, child, query, start, timer, workflow_task
from perdure.server.core.machines.workflow_task import State as TaskState
from perdure.server.core.machines.workflow_task import WorkflowTask
from perdure.server.core.mail import Mail
from perdure.server.core.records import WorkflowKey
from perdure.server.core.registry import alarm_rules
from perdure.server.core.run import Run, apply
from perdure.server.core.stored import restore, stored_run
from perdure.server.core.transition import is_buffered_type

_CLOSING: Final = frozenset(
    EventType.Value(f"EVENT_TYPE_WORKFLOW_EXECUTION_{name}")
    for name in ("COMPLETED", "FAILED", "CANCELED", "TERMINATED", "TIMED_OUT", "CONTINUED_AS_NEW")
)
_TASK_ENDS_UNANSWERED: Final = frozenset(
    (EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED, EventType.EVENT_TYPE_WORKFLOW_TASK_TIMED_OUT)
)
_NO_NEWS: Final = EventType.EVENT_TYPE_WORKFLOW_EXECUTION_OPTIONS_UPDATED
"""The one event from outside that a workflow need not hear of."""

_NOT_STORED: Final = frozenset(
    (
        "queries",
        "stored_version",
        "alarms",
        "told_alarm_at",
        "close_attempted",
        "has_warned",
        "tail",
        "tail_first_event_id",
        "tail_bytes",
        "changes",
    )
)
"""Fields that only memory has: caches, and what is lost with the process on purpose."""


def check_invariants(run: Run, events: Sequence[HistoryEvent]) -> None:
    """Check everything that must hold of a run between two steps.

    Args:
        run: The run as it is in memory.
        events: Its whole history, durable or not yet; without buffered and virtual events.

    Raises:
        InvariantBroken: With what does not hold.
    """
    _check_history(run, events)
    _check_rebuilt(run, events)
    _check_task(run)
    _check_news_is_heard(run, events)
    _check_nothing_waits_for_nobody(run)
    _check_alarms(run)
    _check_stored(run, events)


def rebuild(key: WorkflowKey, run_id: str, events: Sequence[HistoryEvent]) -> Run:
    """Make a run from its history, buffered events behind it, by the very functions that made it the first time.

    Raises:
        InvariantBroken: The history is one that no run can have.
    """
    run = start.new_run(key, run_id, events[0])
    for event in events:
        try:
            apply(run, event_of(event))
        except (IllegalMove, KeyError) as error:
            name = EventType.Name(event.event_type)
            raise InvariantBroken(
                f"run {run_id} cannot be rebuilt: event {event.event_id}, {name}: {error!r}"
            ) from error
        if event.event_id:
            run.next_event_id = event.event_id + 1
            run.history_size_bytes += event.ByteSize()
    return run


def recorded(run: Run) -> dict[str, object]:
    """Return what history says of a run, by name; `NOT_IN_HISTORY` says what is left out."""
    names = (
        "key",
        "run_id",
        "start",
        "started_at",
        "execution_at",
        "status",
        "closed_at",
        "next_event_id",
        "history_size_bytes",
        "memo",
        "search_attributes",
        "user_metadata",
        "activity_ids",
        "timers",
        "cancel_requested",
        "signal_count",
        "previous_started_event_id",
        "last_task_completed_event_id",
        "had_task",
        "successor_run_id",
        "build_id",
    )
    facts: dict[str, object] = {name: getattr(run, name) for name in names}
    facts["workflow task"] = _recorded_task(run.task)
    facts["activities"] = {
        scheduled_event_id: (
            pending.attributes,
            pending.scheduled_at,
            pending.deadlines,
            pending.cancel_requested,
            pending.cancel_requested_event_id,
        )
        for scheduled_event_id, pending in run.activities.items()
    }
    mail = run.mail or Mail()
    facts["children"] = {
        initiated_event_id: (pending.attributes, pending.initiated_at, pending.state, pending.run_id)
        for initiated_event_id, pending in mail.children.items()
    }
    facts["started events of children"] = {
        initiated_event_id: pending.started_event_id for initiated_event_id, pending in mail.children.items()
    }
    facts["external signals"] = {event_id: pending.attributes for event_id, pending in mail.external_signals.items()}
    facts["external cancels"] = {event_id: pending.attributes for event_id, pending in mail.external_cancels.items()}
    return facts


def _recorded_task(task: WorkflowTask) -> tuple[object, ...] | None:
    if not task.is_pending or task.is_transient:
        return None
    scheduled = (task.scheduled_event_id, task.scheduled_at, task.timeout, task.attempt)
    if task.state is not TaskState.STARTED:
        return scheduled
    return (*scheduled, task.started_event_id, task.started_at, task.identity, task.request_id)


# --- history ----------------------------------------------------------------------------------------------------------


def _check_history(run: Run, events: Sequence[HistoryEvent]) -> None:
    ids = [event.event_id for event in events]
    if ids != list(range(1, run.next_event_id)):
        raise _broken(run, f"event ids are {ids}, not 1 to {run.next_event_id - 1}")
    if events[0].event_type != EventType.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED:
        raise _broken(run, f"the first event is {EventType.Name(events[0].event_type)}")
    closing = [event.event_id for event in events if event.event_type in _CLOSING]
    if run.is_open:
        _require(not closing, run, f"it is open and has closing events: {closing}")
        _require(run.closed_at is None, run, "it is open and has a close time")
    else:
        _require(closing == ids[-1:], run, f"closing events are {closing}, not the last one, {ids[-1]}")
        _require(not run.buffered, run, "it is closed and events are still buffered")
    reach = run.tail_first_event_id + len(run.tail)
    _require(reach == run.next_event_id, run, f"the tail reaches {reach}, history {run.next_event_id}")


def _check_rebuilt(run: Run, events: Sequence[HistoryEvent]) -> None:
    buffered = [HistoryEvent.FromString(event.serialize()) for event in run.buffered]
    rebuilt = recorded(rebuild(run.key, run.run_id, [*events, *buffered]))
    for name, live in recorded(run).items():
        if live != rebuilt[name]:
            here, there = _what_differs(live, rebuilt[name])
            raise _broken(run, f"{name}: memory has {here}, history says {there}")


def _what_differs(live: object, said: object) -> tuple[str, str]:
    """Return both sides in one line: of what goes by ids, only what is not the same, and the id where one side has it.

    What a message of protobuf says of itself has many lines, and its id is what leads to it.
    """
    if not isinstance(live, dict) or not isinstance(said, dict):
        return _in_one_line(live), _in_one_line(said)
    both = [key for key in live if key in said and live[key] != said[key]]
    here, there = (
        [*(repr(key) for key in one if key not in other), *(f"{key!r}: {_in_one_line(one[key])}" for key in both)]
        for one, other in ((live, said), (said, live))
    )
    return f"{{{', '.join(here)}}}", f"{{{', '.join(there)}}}"


def _in_one_line(value: object) -> str:
    return " ".join(repr(value).split())


# --- the workflow task ------------------------------------------------------------------------------------------------


def _check_task(run: Run) -> None:
    task = run.task
    _require(run.is_open or not task.is_pending, run, f"it is closed and its workflow task is {task.state.name}")
    _require(task.is_started or not run.buffered, run, "events are buffered and no workflow task is started")
    if not task.is_pending:
        return
    if task.is_transient:
        limit = run.next_event_id
        _require(task.scheduled_event_id <= limit, run, f"a transient task has the id {task.scheduled_event_id}")
        if task.is_started:
            _require(task.scheduled_event_id == limit, run, "events came between a transient task and its start")
            _require(task.started_event_id == limit + 1, run, "a transient task's Started event has the wrong id")
    elif task.is_held:
        _require(task.started_event_id == run.next_event_id, run, "events came between a held start and its event")
    if task.is_started:
        _require(bool(task.nonce), run, "a started workflow task has no nonce")


# --- nothing waits for nobody -----------------------------------------------------------------------------------------


def _check_news_is_heard(run: Run, events: Sequence[HistoryEvent]) -> None:
    """An open run without a workflow task waits for what is to come: everything that came before, it was told."""
    if not run.is_open or run.task.is_pending or run.waits_for_first_task:
        return
    _require(bool(run.previous_started_event_id), run, "no workflow task was ever completed, and none is pending")
    for event in events[run.last_task_completed_event_id :]:
        is_news = is_buffered_type(type(attributes_of(event))) and event.event_type != _NO_NEWS
        if is_news or event.event_type in _TASK_ENDS_UNANSWERED:
            name = EventType.Name(event.event_type)
            raise _broken(run, f"event {event.event_id}, {name}, waits for a workflow task, and none is pending")


def _check_nothing_waits_for_nobody(run: Run) -> None:
    task = run.task
    if run.is_open and run.waits_for_first_task:
        _require_alarm(run, start.FIRST_TASK_ALARM, 0, "the first-task backoff")
    if task.is_started:
        _require_alarm(run, workflow_task.TIMEOUT_ALARM, 0, "a started workflow task")
    if task.is_pending:
        _require(bool(task.task_queue), run, "the workflow task is in no queue")
    for scheduled_event_id, pending in run.activities.items():
        _require(
            pending.state is not activity.State.CLOSED, run, f"activity {scheduled_event_id} is closed and pending"
        )
        if pending.state is not activity.State.SCHEDULED:
            _require_alarm(run, activity.ALARM, scheduled_event_id, f"a {pending.state.name} activity")
    if run.mail is not None:
        _check_messages(run, run.mail)
    for pending_timer in run.timers.values():
        _require_alarm(run, timer.ALARM, pending_timer.alarm_key, "a timer")
    for pending_query in run.queries.pending.values():
        _check_query(run, pending_query)


def _check_messages(run: Run, mail: Mail) -> None:
    """Whatever waits for an answer has a message in flight. A started child has its own: it says when it closes."""
    numbers = [signal.message for signal in mail.external_signals.values()]
    numbers += [cancel.message for cancel in mail.external_cancels.values()]
    for pending_child in mail.children.values():
        _require(pending_child.state is not child.State.CLOSED, run, "a child is closed and pending")
        if pending_child.state is child.State.INITIATED:
            numbers.append(pending_child.message)
        else:
            _require(bool(pending_child.run_id), run, "a child has started and its run is not known")
    _require(all(0 < number <= mail.sent for number in numbers), run, f"messages {numbers} are not in flight")
    _require(len(set(numbers)) == len(numbers), run, f"two things wait for the same message: {numbers}")


def _check_query(run: Run, pending: query.PendingQuery) -> None:
    state, name = pending.state, f"query {pending.query_id}"
    _require(state is not query.State.GONE, run, f"{name} has ended and is still pending")
    if state is query.State.WAITING:
        comes = run.task.is_pending or (run.is_open and run.waits_for_first_task)
        _require(comes, run, f"{name} waits for a workflow task, and none is pending")
    if state is query.State.ATTACHED:
        _require(run.task.is_started, run, f"{name} went with a workflow task that no worker has")


def _require_alarm(run: Run, kind: str, key: int | str, what: str) -> None:
    _require(alarm_rules[kind].due_at(run, key) is not None, run, f"{what} ({kind} {key}) has no time limit")


# --- alarms -----------------------------------------------------------------------------------------------------------


def _check_alarms(run: Run) -> None:
    """Whatever is due at some time is in the heap, at that time or earlier."""
    armed: dict[tuple[str, int | str], int] = {}
    for due, kind, key in run.alarms:
        armed[kind, key] = min(due, armed.get((kind, key), due))
    for kind, rule in alarm_rules.items():
        for key in _keys(run, kind):
            due_at = rule.due_at(run, key)
            if due_at is not None:
                at = armed.get((kind, key))
                if at is None or at > due_at:
                    raise _broken(run, f"{kind} {key} is due at {due_at}, its alarm is at {at}")


def _keys(run: Run, kind: str) -> Iterable[int | str]:
    if kind == activity.ALARM:
        return run.activities
    if kind == timer.ALARM:
        return [pending.alarm_key for pending in run.timers.values()]
    if kind == query.STICKY_ALARM:
        return run.queries.pending
    return (0,)


# --- the stored form --------------------------------------------------------------------------------------------------


def _check_stored(run: Run, events: Sequence[HistoryEvent]) -> None:
    restored = restore(stored_run(run, events))
    difference = stored_difference(run, restored)
    _require(not difference, run, f"stored and read again, it differs: {difference}")
    due = restored.first_alarm()
    if due is not None and not run.changes.deleted:
        at = run.alarm_at
        _require(at is not None and at <= due, run, f"something is due at {due}, the stored alarm is at {at}")


def stored_difference(run: Run, restored: Run) -> str:
    """Say in what a run that was read from the store differs from the one that was written; empty if in nothing."""
    for name in Run.__struct_fields__:
        if name in _NOT_STORED:
            continue
        live, read = getattr(run, name), getattr(restored, name)
        if name == "mail":
            live, read = live or Mail(), read or Mail()
        if name == "task":
            live, read = _storable_task(live), _storable_task(read)
        if live != read:
            return f"{name}: {_in_one_line(live)} became {_in_one_line(read)}"
    return ""


def _storable_task(task: WorkflowTask) -> WorkflowTask:
    """Return a workflow task as the store keeps it: a start that is only held, or is over, did not happen."""
    if task.state is TaskState.STARTED:
        return task
    return structs.replace(
        task,
        state=TaskState.SCHEDULED if task.is_pending else TaskState.NONE,
        scheduled_at=task.scheduled_at if task.is_pending else 0,
        started_event_id=0,
        started_at=0,
        nonce="",
        request_id="",
        identity="",
        history_size_bytes=0,
        suggests_continue_as_new=(),
        held_event=None,
    )


def _require(holds: bool, run: Run, what: str) -> None:
    if not holds:
        raise _broken(run, what)


def _broken(run: Run, what: str) -> InvariantBroken:
    return InvariantBroken(f"workflow {run.key.workflow_id}, run {run.run_id}: {what}")
