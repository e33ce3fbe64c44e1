"""A run as rows, and back. The rows hold what history does not; the rest is folded into them so that loading is cheap.

A row is serialised when a batch is cut, once for all the transitions in it. What is only held in memory (a held start,
queries) is written as if it had not happened.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
from temporalio.api.common.v1 import Memo, SearchAttributes
from temporalio.api.failure.v1 import Failure
from temporalio.api.history.v1 import HistoryEvent

from perdure.server.core.events import event_of
from perdure.server.core.machines import activity as activities
from perdure.server.core.machines import start, workflow_task
from perdure.server.core.machines.activity import Activity
from perdure.server.core.machines.activity import State as ActivityState
from perdure.server.core.machines.timer import ALARM as TIMER_ALARM
from perdure.server.core.machines.timer import Timer
from perdure.server.core.machines.workflow_task import State as TaskState
from perdure.server.core.machines.workflow_task import WorkflowTask
from perdure.server.core.mail import mail_of, mail_write, take_mail
from perdure.server.core.records import (
    ActivityRecord,
    BufferedEventRecord,
    EntityWrite,
    Relatives,
    RequestRecord,
    RunRecord,
    StoredActivity,
    StoredRun,
    TimerRecord,
    WorkflowKey,
)
from perdure.server.core.run import NO_MEMO, NO_SEARCH_ATTRIBUTES, Changes, Run
from perdure.server.core.stored_mail import restore_pending, store_pending


class _RunState(msgspec.Struct, gc=False, array_like=True, omit_defaults=False):
    """The part of a run's row that only the core reads. Fields are only ever added at the end, with a default."""

    attempt: int
    scheduled_event_id: int
    started_event_id: int
    first_scheduled_at: int
    timeout: int
    task_queue: str
    sticky_deadline: int | None
    nonce: str
    request_id: str
    identity: str
    history_size_bytes: int
    suggests_continue_as_new: tuple[int, ...]
    sticky_queue: str
    sticky_timeout: int
    cancel_requested: bool
    signal_count: int
    previous_started_event_id: int
    last_task_completed_event_id: int
    had_task: bool
    successor_run_id: str
    build_id: str
    start_request_id: str
    unused: int | None
    """Was when a closed run is deleted. That follows from its end and its namespace; the place stays taken."""
    messages_sent: int = 0
    relatives: Relatives | None = None
    """From the run's first event; kept here for listings, which do not read that."""


class _ActivityState(msgspec.Struct, gc=False, array_like=True):
    """The part of an activity's row that only the core reads. Fields are only ever added at the end, with a default."""

    cancel_requested_event_id: int
    ready_at: int
    nonce: str
    request_id: str
    identity: str
    heartbeat_details: bytes
    last_failure: bytes
    last_identity: str
    last_attempt_at: int
    timeout_grace: int = 0


_EVENTS_DELETED_AT_ONCE: Final = 100
"""A longer history is not deleted in the transaction that deletes its run: others wait for that."""

_encode = msgspec.msgpack.Encoder().encode
_decode_run = msgspec.msgpack.Decoder(_RunState).decode
_decode_activity = msgspec.msgpack.Decoder(_ActivityState).decode

_TASK_STATES: Final = {
    TaskState.NONE: "none",
    TaskState.SCHEDULED: "scheduled",
    TaskState.HELD: "scheduled",
    TaskState.STARTED: "started",
}
_TASK_STATE_OF: Final = {"none": TaskState.NONE, "scheduled": TaskState.SCHEDULED, "started": TaskState.STARTED}
_ACTIVITY_STATES: Final = {
    ActivityState.SCHEDULED: "scheduled",
    ActivityState.BACKING_OFF: "backing_off",
    ActivityState.STARTED: "started",
}
_ACTIVITY_STATE_OF: Final = {name: state for state, name in _ACTIVITY_STATES.items()}


def take_write(key: WorkflowKey, runs: list[Run]) -> EntityWrite:
    """Return all that changed in an entity's runs since the last cut, as rows, and start anew."""
    write = EntityWrite(key)
    for run in runs:
        changes = run.changes
        if not changes.is_dirty:
            continue
        run.changes = Changes(buffered_from=len(run.buffered))
        if run.mail is not None:
            # Also of a run that is deleted: its messages outlive it.
            take_mail(mail_write(write), run, run.mail)
        if changes.deleted:
            _take_deleted(write, run)
            continue
        write.runs.append(_run_record(run))
        if run.stored_version and not (changes.outline or changes.closed or changes.deleted):
            write.runs_advanced.append(run.run_id)
        run.stored_version += 1
        write.events.extend(changes.events)
        write.requests.extend([RequestRecord(run.run_id, request_id) for request_id in changes.requests])
        if changes.closed:
            if changes.leaves_pending:
                write.runs_closed.append(run.run_id)
        else:
            _take_pending(write, run, changes)
    return write


def _take_deleted(write: EntityWrite, run: Run) -> None:
    """What the run did since the last cut is not written any more."""
    write.runs_deleted.append(run.run_id)
    if run.stored_version:
        write.runs.append(_run_record(run))
        run.stored_version += 1
        if run.next_event_id > _EVENTS_DELETED_AT_ONCE or len(run.request_ids) > _EVENTS_DELETED_AT_ONCE:
            write.histories_discarded.append(run.run_id)


def _take_pending(write: EntityWrite, run: Run, changes: Changes) -> None:
    for scheduled_event_id in changes.activities:
        pending = run.activities.get(scheduled_event_id)
        if pending is None:
            write.activities_removed.append((run.run_id, scheduled_event_id))
        else:
            write.activities.append(_activity_record(run, pending))
    for timer_id in changes.timers:
        timer = run.timers.get(timer_id)
        if timer is None:
            write.timers_removed.append((run.run_id, timer_id))
        else:
            write.timers.append(TimerRecord(run.run_id, timer_id, timer.started_event_id, timer.fires_at))
    if changes.buffered_cleared:
        write.buffered_cleared.append(run.run_id)
    for position in range(changes.buffered_from, len(run.buffered)):
        data = run.buffered[position].serialize()
        write.buffered.append(BufferedEventRecord(run.run_id, position, data))


def stored_run(run: Run, events: Sequence[HistoryEvent]) -> StoredRun:
    """Return what the store would give back of a run if a batch were cut now; changes nothing.

    Args:
        run: Any run, with or without changes.
        events: Its whole history.
    """
    record = _run_record(run)
    record.stored_version = record.version
    stored = StoredRun(record, events[0].SerializeToString(), request_ids=sorted(run.request_ids))
    if not run.is_open:
        return stored
    for pending in run.activities.values():
        scheduled = events[pending.scheduled_event_id - 1].SerializeToString()
        stored.activities.append(StoredActivity(_activity_record(run, pending), scheduled))
    for timer in run.timers.values():
        stored.timers.append(TimerRecord(run.run_id, timer.timer_id, timer.started_event_id, timer.fires_at))
    for position, event in enumerate(run.buffered):
        stored.buffered.append(BufferedEventRecord(run.run_id, position, event.serialize()))
    if run.mail is not None:
        store_pending(stored, run, run.mail, events)
    return stored


def _run_record(run: Run) -> RunRecord:
    task = run.task
    is_scheduled = task.state is TaskState.SCHEDULED or task.state is TaskState.HELD
    return RunRecord(
        run.key.namespace_id,
        run.key.workflow_id,
        run.run_id,
        run.stored_version,
        run.stored_version + 1,
        run.is_current,
        run.status,
        run.workflow_type,
        run.task_queue,
        run.started_at,
        run.execution_at,
        run.closed_at,
        run.next_event_id,
        run.history_size_bytes,
        run.transition_count,
        run.alarm_at,
        _TASK_STATES[task.state],
        task.attempt,
        task.scheduled_at if task.is_pending else None,
        task.started_at if task.state is TaskState.STARTED else None,
        task.task_queue if is_scheduled else None,
        task.scheduled_at if is_scheduled else None,
        run.memo.SerializeToString(),
        run.search_attributes.SerializeToString(),
        _encode(_run_state(run)),
    )


def _run_state(run: Run) -> _RunState:
    task = run.task
    return _RunState(
        task.attempt,
        task.scheduled_event_id,
        task.started_event_id,
        task.first_scheduled_at,
        task.timeout,
        task.task_queue,
        task.sticky_deadline,
        task.nonce,
        task.request_id,
        task.identity,
        task.history_size_bytes,
        task.suggests_continue_as_new,
        run.sticky_queue,
        run.sticky_timeout,
        run.cancel_requested,
        run.signal_count,
        run.previous_started_event_id,
        run.last_task_completed_event_id,
        run.had_task,
        run.successor_run_id,
        run.build_id,
        run.start_request_id,
        None,
        0 if run.mail is None else run.mail.sent,
        run.relatives,
    )


def listed_relatives(record: RunRecord) -> Relatives | None:
    """Return the family of a run as a listing shows it; None also where the row cannot be read: it is listed still."""
    try:
        return _decode_run(record.state).relatives
    except (msgspec.DecodeError, msgspec.ValidationError):
        # Whoever asks for the run itself is told of it.
        return None


def _activity_record(run: Run, pending: Activity) -> ActivityRecord:
    is_started = pending.state is ActivityState.STARTED
    state = _ActivityState(
        pending.cancel_requested_event_id,
        pending.ready_at,
        pending.nonce,
        pending.request_id,
        pending.identity,
        pending.heartbeat_details,
        pending.last_failure,
        pending.last_identity,
        pending.last_attempt_at,
        pending.timeout_grace,
    )
    return ActivityRecord(
        run.run_id,
        pending.scheduled_event_id,
        run.key.namespace_id,
        run.key.workflow_id,
        pending.activity_id,
        pending.activity_type,
        pending.task_queue,
        _ACTIVITY_STATES[pending.state],
        pending.cancel_requested,
        pending.attempt,
        None if is_started else pending.ready_at,
        pending.scheduled_at,
        pending.started_at if is_started else None,
        pending.heartbeat_at or None,
        _failure_message(pending.last_failure),
        pending.identity or None,
        _encode(state),
    )


def _failure_message(failure: bytes) -> str | None:
    """Return what people are shown of a failure; not every database can hold a NUL in text."""
    return Failure.FromString(failure).message.replace("\0", "") if failure else None


def restore(stored: StoredRun) -> Run:
    """Return the run that these rows describe, with its alarms set."""
    record = stored.run
    event = HistoryEvent.FromString(stored.started_event)
    run = start.new_run(WorkflowKey(record.namespace_id, record.workflow_id), record.run_id, event)
    _restore_row(run, record)
    if stored.children or stored.messages:
        restore_pending(run, stored)
    for row in stored.activities:
        pending = _restore_activity(row.record, HistoryEvent.FromString(row.scheduled_event))
        run.activities[pending.scheduled_event_id] = pending
        run.activity_ids[pending.activity_id] = pending.scheduled_event_id
    for timer in stored.timers:
        run.timers[timer.timer_id] = Timer(timer.timer_id, timer.started_event_id, timer.fires_at)
    run.buffered = [event_of(HistoryEvent.FromString(buffered.data)) for buffered in stored.buffered]
    run.changes.buffered_from = len(run.buffered)
    run.request_ids = set(stored.request_ids)
    _arm_all(run)
    return run


def _restore_row(run: Run, record: RunRecord) -> None:
    state = _decode_run(record.state)
    run.task = WorkflowTask(
        state=_TASK_STATE_OF[record.task_state],
        attempt=state.attempt,
        scheduled_event_id=state.scheduled_event_id,
        started_event_id=state.started_event_id,
        scheduled_at=record.task_scheduled_at or 0,
        first_scheduled_at=state.first_scheduled_at,
        started_at=record.task_started_at or 0,
        timeout=state.timeout,
        task_queue=state.task_queue,
        sticky_deadline=state.sticky_deadline,
        nonce=state.nonce,
        request_id=state.request_id,
        identity=state.identity,
        history_size_bytes=state.history_size_bytes,
        suggests_continue_as_new=state.suggests_continue_as_new,
    )
    run.status = record.status
    run.closed_at = record.closed_at
    run.next_event_id = run.tail_first_event_id = record.next_event_id
    run.history_size_bytes = record.history_size_bytes
    run.transition_count = record.transition_count
    run.is_current = record.is_current
    run.stored_version = record.version
    run.alarm_at = record.alarm_at
    run.memo = Memo.FromString(record.memo) if record.memo else NO_MEMO
    run.search_attributes = NO_SEARCH_ATTRIBUTES
    if record.search_attributes:
        run.search_attributes = SearchAttributes.FromString(record.search_attributes)
    for name in (
        "sticky_queue",
        "sticky_timeout",
        "cancel_requested",
        "signal_count",
        "previous_started_event_id",
        "last_task_completed_event_id",
        "had_task",
        "successor_run_id",
        "build_id",
        "start_request_id",
    ):
        setattr(run, name, getattr(state, name))
    if state.messages_sent:
        mail_of(run).sent = state.messages_sent


def _restore_activity(record: ActivityRecord, scheduled: HistoryEvent) -> Activity:
    state = _decode_activity(record.state)
    attributes = scheduled.activity_task_scheduled_event_attributes
    pending = activities.new_activity(record.scheduled_event_id, record.scheduled_at, attributes)
    pending.state = _ACTIVITY_STATE_OF[record.status]
    pending.attempt = record.attempt
    pending.cancel_requested = record.cancel_requested
    pending.started_at = record.started_at or 0
    pending.heartbeat_at = record.last_heartbeat_at or 0
    for name in (
        "cancel_requested_event_id",
        "ready_at",
        "nonce",
        "request_id",
        "identity",
        "heartbeat_details",
        "last_failure",
        "last_identity",
        "last_attempt_at",
        "timeout_grace",
    ):
        setattr(pending, name, getattr(state, name))
    return pending


def _arm_all(run: Run) -> None:
    start.arm_timeouts(run)
    run.arm(workflow_task.STICKY_ALARM, 0)
    run.arm(workflow_task.TIMEOUT_ALARM, 0)
    for scheduled_event_id in run.activities:
        run.arm(activities.ALARM, scheduled_event_id)
    for timer in run.timers.values():
        run.arm(TIMER_ALARM, timer.alarm_key)
