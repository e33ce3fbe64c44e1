"""Reading: every query brings all its rows back as one row of JSON text, so that it is a single step (see `thread.py`).

Bytes travel in it as hexadecimal text. `msgspec` decodes the text straight into typed rows.
"""

# ruff: noqa: S608 - built at import, of the names in the schema.

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import TypeAlias

import msgspec

from perdure.server.core.records import (
    ActivityRecord,
    BufferedEventRecord,
    ChildRecord,
    InboxRecord,
    OutboxRecord,
    RunRecord,
    StoredActivity,
    StoredChild,
    StoredMessage,
    StoredRun,
    TimerRecord,
    WorkflowKey,
)
from perdure.server.store.interface import (
    BEFORE_ALL_MESSAGES,
    Backlog,
    DueAlarm,
    MessagePosition,
    OutboxPage,
    PairState,
    ReadyTask,
    StoredEvent,
)
from perdure.server.store.rounds import SqlValue
from perdure.server.store.schema import ACTIVITY, CHILD, INBOX, OUTBOX, RUN, ColumnType, Table
from perdure.server.store.sqlite.bulk import Bulk

RunRow: TypeAlias = tuple[
    str, str, str, int, int, int, str, str, int, int, int | None, int, int, int, int | None,
    str, int, int | None, int | None, str | None, int | None, str, str, str,
]  # fmt: skip
"""The columns of a run's record, bytes as hexadecimal text."""

_ActivityRow: TypeAlias = tuple[
    str, int, str, str, str, str, str, str, int, int, int | None, int, int | None, int | None, str | None, str | None,
    str, str,
]  # fmt: skip
"""The columns of an activity's record, and the event that scheduled it."""


class _RunParts(msgspec.Struct, array_like=True):
    """A run with all that hangs on it; the lists are JSON text within the JSON text."""

    run: RunRow
    started_event: str
    activities: str
    timers: str
    buffered: str
    request_ids: str
    children: str
    messages: str


def _columns(table: Table, source: str) -> str:
    return ", ".join(
        f"hex({source}.{column.name})" if column.type is ColumnType.BYTES else f"{source}.{column.name}"
        for column in table.record_columns
    )


def _event_data(run_id: str, event_id: str) -> str:
    found = f"SELECT hex(event.data) FROM event WHERE event.run_id = {run_id} AND event.event_id = {event_id}"
    return f"coalesce(({found}), '')"


def _pending(table: str, columns: str, order: str) -> str:
    # Made text by `|| ''`: whether SQLite takes a subquery's result for JSON or for text is not defined.
    rows = f"SELECT * FROM {table} WHERE {table}.run_id = run.run_id ORDER BY {order}"
    return f"(SELECT json_group_array({columns}) || '' FROM ({rows}) AS pending)"


RUN_COLUMNS = _columns(RUN, "run")
"""What makes a `RunRecord` of a row of `run`, as the arguments of `json_array`."""

_SCHEDULED_EVENT = _event_data("pending.run_id", "pending.scheduled_event_id")
_INITIATED_EVENT = _event_data("pending.run_id", "pending.initiated_event_id")
_RUN_PARTS = ", ".join(
    (
        f"json_array({RUN_COLUMNS})",
        _event_data("run.run_id", "1"),
        _pending("activity", f"json_array({_columns(ACTIVITY, 'pending')}, {_SCHEDULED_EVENT})", "scheduled_event_id"),
        _pending("timer", "json_array(run_id, timer_id, started_event_id, fires_at)", "timer_id"),
        _pending("buffered_event", "json_array(run_id, position, hex(data))", "position"),
        _pending("request", "request_id", "request_id"),
        _pending("child", f"json_array({_columns(CHILD, 'pending')}, {_INITIATED_EVENT})", "initiated_event_id"),
        _pending("outbox", f"json_array(number, kind, initiated_event_id, {_INITIATED_EVENT})", "number"),
    )
)

_LOAD_CURRENT_RUNS = Bulk(
    # A cross join is kept in its order: each wanted key is looked up, where IN over pairs has SQLite read all runs.
    f"SELECT json_group_array(json_array({_RUN_PARTS})) FROM (VALUES {{rows}}) AS wanted CROSS JOIN run"
    " WHERE run.is_current AND run.namespace_id = wanted.column1 AND run.workflow_id = wanted.column2",
    2,
    largest=128,
)
_LOAD_RUN = (
    f"SELECT json_group_array(json_array({_RUN_PARTS})) FROM run"
    " WHERE run_id = ? AND namespace_id = ? AND workflow_id = ?"
)
LATEST_RUN_ID = (
    "SELECT run_id FROM run WHERE namespace_id = ? AND workflow_id = ? AND NOT is_current"
    " ORDER BY started_at DESC, run_id DESC LIMIT 1"
)

_run_parts = msgspec.json.Decoder(list[_RunParts])
_activity_rows = msgspec.json.Decoder(list[_ActivityRow])
_timers = msgspec.json.Decoder(list[TimerRecord])
_buffered_rows = msgspec.json.Decoder(list[tuple[str, int, str]])
_request_ids = msgspec.json.Decoder(list[str])
_child_rows = msgspec.json.Decoder(list[tuple[str, int, str, str, str, str | None, str, int, int, str]])
_message_rows = msgspec.json.Decoder(list[tuple[int, str, int, str]])


def load_current_runs(connection: sqlite3.Connection, keys: Sequence[WorkflowKey]) -> list[StoredRun | None]:
    """See `Store.load_current_runs`."""
    found: dict[WorkflowKey, StoredRun] = {}
    for text, parameters in _LOAD_CURRENT_RUNS.steps(keys):
        for run in _stored_runs(_text(connection, text, parameters)):
            found[WorkflowKey(run.run.namespace_id, run.run.workflow_id)] = run
    return [found.get(key) for key in keys]


def load_run(connection: sqlite3.Connection, key: WorkflowKey, run_id: str) -> StoredRun | None:
    """See `Store.load_run`."""
    runs = _stored_runs(_text(connection, _LOAD_RUN, (run_id, *key)))
    return runs[0] if runs else None


def _text(connection: sqlite3.Connection, query: str, parameters: Sequence[SqlValue]) -> str:
    row: tuple[str] = connection.execute(query, parameters).fetchone()
    return row[0]


def _stored_runs(text: str) -> list[StoredRun]:
    return [
        StoredRun(
            run=run_record(parts.run),
            started_event=bytes.fromhex(parts.started_event),
            activities=[_stored_activity(row) for row in _activity_rows.decode(parts.activities)],
            timers=_timers.decode(parts.timers),
            buffered=[
                BufferedEventRecord(run_id, position, bytes.fromhex(data))
                for run_id, position, data in _buffered_rows.decode(parts.buffered)
            ],
            request_ids=_request_ids.decode(parts.request_ids),
            children=[
                StoredChild(ChildRecord(*row[:-1]), bytes.fromhex(row[-1]))
                for row in _child_rows.decode(parts.children)
            ],
            messages=[
                StoredMessage(number, kind, event_id, bytes.fromhex(event))
                for number, kind, event_id, event in _message_rows.decode(parts.messages)
                if event_id
            ],
        )
        for parts in _run_parts.decode(text)
    ]


def run_record(row: RunRow) -> RunRecord:
    """Make the record of a row whose bytes are hexadecimal text."""
    version = row[3]
    memo, search_attributes, state = map(bytes.fromhex, row[21:])
    return RunRecord(
        namespace_id=row[0],
        workflow_id=row[1],
        run_id=row[2],
        stored_version=version,
        version=version,
        is_current=bool(row[4]),
        status=row[5],
        workflow_type=row[6],
        task_queue=row[7],
        started_at=row[8],
        execution_at=row[9],
        closed_at=row[10],
        next_event_id=row[11],
        history_size_bytes=row[12],
        transition_count=row[13],
        alarm_at=row[14],
        task_state=row[15],
        task_attempt=row[16],
        task_scheduled_at=row[17],
        task_started_at=row[18],
        task_ready_queue=row[19],
        task_ready_at=row[20],
        memo=memo,
        search_attributes=search_attributes,
        state=state,
    )


def _stored_activity(row: _ActivityRow) -> StoredActivity:
    record = ActivityRecord(*row[:8], bool(row[8]), *row[9:16], bytes.fromhex(row[16]))
    return StoredActivity(record, bytes.fromhex(row[17]))


# --- history ------------------------------------------------------------------------------------------------------

_EVENT_SIZES = (
    "SELECT json_group_array(json_array(event_id, size)) FROM (SELECT event_id, length(data) AS size FROM event"
    " WHERE run_id = ? AND event_id >= ? AND event_id < ? ORDER BY event_id {order} LIMIT ?)"
)
EVENT_SIZES_ASCENDING = _EVENT_SIZES.format(order="ASC")
EVENT_SIZES_DESCENDING = _EVENT_SIZES.format(order="DESC")
EVENTS = (
    "SELECT json_group_array(json_array(event_id, hex(data))) FROM (SELECT event_id, data FROM event"
    " WHERE run_id = ? AND event_id >= ? AND event_id <= ? ORDER BY event_id)"
)

_size_rows = msgspec.json.Decoder(list[tuple[int, int]])
_event_rows = msgspec.json.Decoder(list[tuple[int, str]])


def read_events(
    connection: sqlite3.Connection, run_id: str, first_event_id: int, end_event_id: int, max_events: int, max_bytes: int
) -> list[StoredEvent]:
    """See `Store.read_events`."""
    parameters = (run_id, first_event_id, end_event_id, max_events)
    return _read_page(connection, run_id, EVENT_SIZES_ASCENDING, parameters, max_bytes)


def read_events_reverse(
    connection: sqlite3.Connection, run_id: str, last_event_id: int, max_events: int, max_bytes: int
) -> list[StoredEvent]:
    """See `Store.read_events_reverse`."""
    parameters = (run_id, 1, last_event_id + 1, max_events)
    return _read_page(connection, run_id, EVENT_SIZES_DESCENDING, parameters, max_bytes)[::-1]


def _read_page(
    connection: sqlite3.Connection, run_id: str, sizes: str, parameters: Sequence[SqlValue], max_bytes: int
) -> list[StoredEvent]:
    """Measure first, so that no more is brought back than the page may hold; return in ascending order."""
    event_ids: list[int] = []
    total = 0
    for event_id, size in _size_rows.decode(_text(connection, sizes, parameters)):
        total += size
        if event_ids and total > max_bytes:
            break
        event_ids.append(event_id)
    if not event_ids:
        return []
    events = _text(connection, EVENTS, (run_id, min(event_ids), max(event_ids)))
    return [StoredEvent(event_id, bytes.fromhex(data)) for event_id, data in _event_rows.decode(events)]


# --- indexes over the state ---------------------------------------------------------------------------------------

READY_WORKFLOW_TASKS = (
    "SELECT json_group_array(json_array(namespace_id, workflow_id, run_id, 0, task_ready_at)) FROM (SELECT * FROM run"
    " WHERE namespace_id = ? AND task_ready_queue = ? ORDER BY task_ready_at, run_id LIMIT ?)"
)
READY_ACTIVITY_TASKS = (
    "SELECT json_group_array(json_array(namespace_id, workflow_id, run_id, scheduled_event_id, ready_at))"
    " FROM (SELECT * FROM activity WHERE namespace_id = ? AND task_queue = ? AND ready_at <= ?"
    " ORDER BY ready_at, run_id, scheduled_event_id LIMIT ?)"
)
WORKFLOW_TASK_BACKLOG = "SELECT count(*), min(task_ready_at) FROM run WHERE namespace_id = ? AND task_ready_queue = ?"
ACTIVITY_TASK_BACKLOG = (
    "SELECT count(*), min(ready_at) FROM activity WHERE namespace_id = ? AND task_queue = ? AND ready_at <= ?"
)
DUE_ALARMS = (
    "SELECT json_group_array(json_array(namespace_id, workflow_id, run_id, alarm_at))"
    " FROM (SELECT * FROM run WHERE alarm_at < ? ORDER BY alarm_at, run_id LIMIT ?)"
)

_ready_tasks = msgspec.json.Decoder(list[ReadyTask])
_due_alarms = msgspec.json.Decoder(list[DueAlarm])


def ready_workflow_tasks(
    connection: sqlite3.Connection, namespace_id: str, task_queue: str, limit: int
) -> list[ReadyTask]:
    """See `Store.ready_workflow_tasks`."""
    return _ready_tasks.decode(_text(connection, READY_WORKFLOW_TASKS, (namespace_id, task_queue, limit)))


def ready_activity_tasks(
    connection: sqlite3.Connection, namespace_id: str, task_queue: str, now: int, limit: int
) -> list[ReadyTask]:
    """See `Store.ready_activity_tasks`."""
    return _ready_tasks.decode(_text(connection, READY_ACTIVITY_TASKS, (namespace_id, task_queue, now, limit)))


def workflow_task_backlog(connection: sqlite3.Connection, namespace_id: str, task_queue: str) -> Backlog:
    """See `Store.workflow_task_backlog`."""
    return Backlog(*connection.execute(WORKFLOW_TASK_BACKLOG, (namespace_id, task_queue)).fetchone())


def activity_task_backlog(connection: sqlite3.Connection, namespace_id: str, task_queue: str, now: int) -> Backlog:
    """See `Store.activity_task_backlog`."""
    return Backlog(*connection.execute(ACTIVITY_TASK_BACKLOG, (namespace_id, task_queue, now)).fetchone())


def due_alarms(connection: sqlite3.Connection, before: int, limit: int) -> list[DueAlarm]:
    """See `Store.due_alarms`."""
    return _due_alarms.decode(_text(connection, DUE_ALARMS, (before, limit)))


# --- messages -----------------------------------------------------------------------------------------------------

OUTBOX_SIZES = (
    "SELECT json_group_array(json_array(run_id, number, size))"
    " FROM (SELECT run_id, number, length(body) AS size FROM outbox WHERE (run_id, number) > (?, ?)"
    " ORDER BY run_id, number LIMIT ?)"
)
READ_OUTBOX = (
    f"SELECT json_group_array(json_array({_columns(OUTBOX, 'head')}))"
    " FROM (SELECT * FROM outbox WHERE (run_id, number) > (?, ?) AND (run_id, number) <= (?, ?)"
    " ORDER BY run_id, number) AS head"
)
READ_PAIR = (
    f"SELECT json_array((SELECT json_array({_columns(INBOX, 'inbox')}) FROM inbox"
    " WHERE sender_run_id = ?1 AND namespace_id = ?2 AND workflow_id = ?3),"
    " (SELECT 1 FROM outbox WHERE run_id = ?1 AND number = ?4) IS NOT NULL)"
)

_outbox_rows = msgspec.json.Decoder(list[tuple[str, int, str, str, str, str, str, int, int, str]])
_outbox_sizes = msgspec.json.Decoder(list[tuple[str, int, int]])
_pair_row = msgspec.json.Decoder(tuple[InboxRecord | None, int])


def read_outbox(
    connection: sqlite3.Connection, max_messages: int, max_bytes: int, after: MessagePosition | None
) -> OutboxPage:
    """See `Store.read_outbox`. Measures first, so that no more is brought back than is asked for."""
    begin = after or BEFORE_ALL_MESSAGES
    sizes = _outbox_sizes.decode(_text(connection, OUTBOX_SIZES, (*begin, max_messages + 1)))
    count, total = 0, 0
    for _, _, size in sizes[:max_messages]:
        total += size
        if count and total > max_bytes:
            break
        count += 1
    if not count:
        return OutboxPage([], is_last=True)
    rows = _outbox_rows.decode(_text(connection, READ_OUTBOX, (*begin, *sizes[count - 1][:2])))
    return OutboxPage([OutboxRecord(*row[:-1], bytes.fromhex(row[-1])) for row in rows], count == len(sizes))


def read_pair(connection: sqlite3.Connection, receiver: WorkflowKey, sender_run_id: str, number: int) -> PairState:
    """See `Store.read_pair`."""
    inbox, is_pending = _pair_row.decode(_text(connection, READ_PAIR, (sender_run_id, *receiver, number)))
    return PairState(inbox, bool(is_pending))
