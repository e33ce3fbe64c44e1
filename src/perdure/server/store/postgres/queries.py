"""Reading: each question is one query, so its answer is of one moment and takes one round trip.

What hangs on a run comes back with it, as arrays of rows. Which shards a node is shown is a parameter of one byte for
each shard. `shard = ANY (...)` would say the same, but PostgreSQL may then go through the index once for each of them.
"""

# ruff: noqa: S608 - built at import, of the names in the schema.

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

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
from perdure.server.core.shards import SHARDS
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
from perdure.server.store.schema import ACTIVITY, BUFFERED_EVENT, CHILD, INBOX, OUTBOX, RUN, TIMER, Table

if TYPE_CHECKING:
    import asyncpg

    from perdure.server.store.postgres.connections import Reader

    Columns: TypeAlias = asyncpg.Record

_RUN_WIDTH = len(RUN.record_columns)
_VERSION = RUN.column_names.index("version")


def _columns(table: Table, source: str) -> str:
    return ", ".join(f"{source}.{column.name}" for column in table.record_columns)


def _event_data(run_id: str, event_id: str) -> str:
    return f"(SELECT event.data FROM event WHERE event.run_id = {run_id} AND event.event_id = {event_id})"


def _pending(table: Table, columns: str, order: str) -> str:
    rows = f"SELECT ROW({columns}) FROM {table.name} AS pending WHERE pending.run_id = run.run_id ORDER BY {order}"
    return f"ARRAY({rows})"


RUN_COLUMNS = _columns(RUN, "run")
"""What `run_record` makes a record of."""

_SCHEDULED_EVENT = _event_data("pending.run_id", "pending.scheduled_event_id")
_INITIATED_EVENT = _event_data("pending.run_id", "pending.initiated_event_id")
_MESSAGE = f"pending.number, pending.kind, pending.initiated_event_id, {_INITIATED_EVENT}"
_RUN_PARTS = ", ".join(
    (
        RUN_COLUMNS,
        _event_data("run.run_id", "1"),
        _pending(ACTIVITY, f"{_columns(ACTIVITY, 'pending')}, {_SCHEDULED_EVENT}", "pending.scheduled_event_id"),
        _pending(TIMER, _columns(TIMER, "pending"), "pending.timer_id"),
        _pending(BUFFERED_EVENT, _columns(BUFFERED_EVENT, "pending"), "pending.position"),
        "ARRAY(SELECT request_id FROM request WHERE request.run_id = run.run_id ORDER BY request_id)",
        _pending(CHILD, f"{_columns(CHILD, 'pending')}, {_INITIATED_EVENT}", "pending.initiated_event_id"),
        _pending(OUTBOX, _MESSAGE, "pending.number"),
    )
)

LOAD_CURRENT_RUNS = (
    f"SELECT {_RUN_PARTS} FROM unnest($1::text[], $2::text[]) AS wanted (namespace_id, workflow_id)"
    " JOIN run ON run.namespace_id = wanted.namespace_id AND run.workflow_id = wanted.workflow_id"
    " WHERE run.is_current"
)
LOAD_RUN = f"SELECT {_RUN_PARTS} FROM run WHERE run_id = $1"
"""By its key alone: with the workflow id beside it, PostgreSQL may read all runs of that id instead."""


async def load_current_runs(reader: Reader, keys: Sequence[WorkflowKey]) -> list[StoredRun | None]:
    """See `Store.load_current_runs`."""
    found: dict[WorkflowKey, StoredRun] = {}
    namespace_ids = [key.namespace_id for key in keys]
    workflow_ids = [key.workflow_id for key in keys]
    for row in await reader.fetch(LOAD_CURRENT_RUNS, namespace_ids, workflow_ids):
        stored = _stored_run(row)
        found[WorkflowKey(stored.run.namespace_id, stored.run.workflow_id)] = stored
    return [found.get(key) for key in keys]


async def load_run(reader: Reader, key: WorkflowKey, run_id: str) -> StoredRun | None:
    """See `Store.load_run`."""
    stored = [_stored_run(row) for row in await reader.fetch(LOAD_RUN, run_id)]
    return next((each for each in stored if (each.run.namespace_id, each.run.workflow_id) == key), None)


def run_record(row: Columns) -> RunRecord:
    """Make the record of a row that begins with the columns of `run`."""
    # The record has the version that is stored and the one to store side by side; here they are the same.
    return RunRecord(*(row[: _VERSION + 1] + row[_VERSION:_RUN_WIDTH]))


def _stored_run(row: Columns) -> StoredRun:
    started_event, activities, timers, buffered, request_ids, children, messages = row[_RUN_WIDTH:]
    return StoredRun(
        run=run_record(row),
        started_event=started_event or b"",
        activities=[StoredActivity(ActivityRecord(*columns[:-1]), columns[-1] or b"") for columns in activities],
        timers=[TimerRecord(*columns) for columns in timers],
        buffered=[BufferedEventRecord(*columns) for columns in buffered],
        request_ids=request_ids,
        children=[StoredChild(ChildRecord(*columns[:-1]), columns[-1] or b"") for columns in children],
        messages=[
            StoredMessage(number, kind, event_id, event or b"")
            for number, kind, event_id, event in messages
            if event_id
        ],
    )


# --- history ------------------------------------------------------------------------------------------------------


def _events(order: str) -> str:
    """Return the query for events in an order.

    Adding sizes up reads no value of its own: a large one lies elsewhere, with its size in the row.
    """
    return (
        "SELECT event_id, data FROM (SELECT event_id, data, row_number() OVER rising AS position,"
        " sum(length(data)) OVER rising AS total FROM (SELECT event_id, data FROM event"
        f" WHERE run_id = $1 AND event_id >= $2 AND event_id < $3 ORDER BY event_id {order} LIMIT $4) AS page"
        f" WINDOW rising AS (ORDER BY event_id {order} ROWS UNBOUNDED PRECEDING)) AS measured"
        f" WHERE position = 1 OR total <= $5::bigint ORDER BY event_id {order}"
    )


EVENTS_ASCENDING = _events("ASC")
EVENTS_DESCENDING = _events("DESC")


async def read_events(
    reader: Reader, run_id: str, first_event_id: int, end_event_id: int, max_events: int, max_bytes: int
) -> list[StoredEvent]:
    """See `Store.read_events`."""
    rows = await reader.fetch(EVENTS_ASCENDING, run_id, first_event_id, end_event_id, max_events, max_bytes)
    return [StoredEvent(*row) for row in rows]


async def read_events_reverse(
    reader: Reader, run_id: str, last_event_id: int, max_events: int, max_bytes: int
) -> list[StoredEvent]:
    """See `Store.read_events_reverse`."""
    rows = await reader.fetch(EVENTS_DESCENDING, run_id, 1, last_event_id + 1, max_events, max_bytes)
    return [StoredEvent(*row) for row in rows]


# --- indexes over the state ---------------------------------------------------------------------------------------

# What is asked of an index for every row is in it, the shard too: rows of others' shards, of which there may be many
# more, cost no look at the table. Those that are left are then found by their key.

READY_WORKFLOW_TASKS = (
    "SELECT run.namespace_id, run.workflow_id, head.run_id, 0, head.task_ready_at FROM ("
    " SELECT run_id, task_ready_at FROM run WHERE namespace_id = $1 AND task_ready_queue = $2"
    " AND get_byte($4, shard::integer) = 1 ORDER BY task_ready_at, run_id LIMIT $3"
    ") AS head JOIN run ON run.run_id = head.run_id ORDER BY head.task_ready_at, head.run_id"
)
READY_ACTIVITY_TASKS = (
    "SELECT activity.namespace_id, activity.workflow_id, head.run_id, head.scheduled_event_id, head.ready_at FROM ("
    " SELECT run_id, scheduled_event_id, ready_at FROM activity WHERE namespace_id = $1 AND task_queue = $2"
    " AND ready_at <= $3 AND get_byte($5, shard::integer) = 1 ORDER BY ready_at, run_id, scheduled_event_id LIMIT $4"
    ") AS head JOIN activity"
    " ON activity.run_id = head.run_id AND activity.scheduled_event_id = head.scheduled_event_id"
    " ORDER BY head.ready_at, head.run_id, head.scheduled_event_id"
)
WORKFLOW_TASK_BACKLOG = (
    "SELECT count(*), min(task_ready_at) FROM run WHERE namespace_id = $1 AND task_ready_queue = $2"
    " AND get_byte($3, shard::integer) = 1"
)
ACTIVITY_TASK_BACKLOG = (
    "SELECT count(*), min(ready_at) FROM activity WHERE namespace_id = $1 AND task_queue = $2 AND ready_at <= $3"
    " AND get_byte($4, shard::integer) = 1"
)
DUE_ALARMS = (
    "SELECT run.namespace_id, run.workflow_id, head.run_id, head.alarm_at FROM ("
    " SELECT run_id, alarm_at FROM run WHERE alarm_at < $1 AND get_byte($3, shard::integer) = 1"
    " ORDER BY alarm_at, run_id LIMIT $2"
    ") AS head JOIN run ON run.run_id = head.run_id ORDER BY head.alarm_at, head.run_id"
)

ALL_SHARDS = bytes([1]) * SHARDS


def shown(shards: frozenset[int]) -> bytes:
    """Return the parameter that says of which shards rows are shown."""
    return bytes(shard in shards for shard in range(SHARDS))


async def ready_workflow_tasks(
    reader: Reader, shards: bytes, namespace_id: str, task_queue: str, limit: int
) -> list[ReadyTask]:
    """See `Store.ready_workflow_tasks`."""
    rows = await reader.fetch(READY_WORKFLOW_TASKS, namespace_id, task_queue, limit, shards)
    return [ReadyTask(*row) for row in rows]


async def ready_activity_tasks(
    reader: Reader, shards: bytes, namespace_id: str, task_queue: str, now: int, limit: int
) -> list[ReadyTask]:
    """See `Store.ready_activity_tasks`."""
    rows = await reader.fetch(READY_ACTIVITY_TASKS, namespace_id, task_queue, now, limit, shards)
    return [ReadyTask(*row) for row in rows]


async def workflow_task_backlog(reader: Reader, shards: bytes, namespace_id: str, task_queue: str) -> Backlog:
    """See `Store.workflow_task_backlog`."""
    [row] = await reader.fetch(WORKFLOW_TASK_BACKLOG, namespace_id, task_queue, shards)
    return Backlog(*row)


async def activity_task_backlog(reader: Reader, shards: bytes, namespace_id: str, task_queue: str, now: int) -> Backlog:
    """See `Store.activity_task_backlog`."""
    [row] = await reader.fetch(ACTIVITY_TASK_BACKLOG, namespace_id, task_queue, now, shards)
    return Backlog(*row)


async def due_alarms(reader: Reader, shards: bytes, before: int, limit: int) -> list[DueAlarm]:
    """See `Store.due_alarms`."""
    return [DueAlarm(*row) for row in await reader.fetch(DUE_ALARMS, before, limit, shards)]


# --- messages -----------------------------------------------------------------------------------------------------

READ_OUTBOX = (
    f"SELECT {_columns(OUTBOX, 'measured')}, measured.count FROM (SELECT head.*, count(*) OVER () AS count,"
    " row_number() OVER rising AS position, sum(length(head.body)) OVER rising AS total"
    " FROM (SELECT * FROM outbox WHERE (run_id, number) > ($4, $5) AND get_byte($3, shard::integer) = 1"
    " ORDER BY run_id, number LIMIT $1::bigint + 1) AS head"
    " WINDOW rising AS (ORDER BY head.run_id, head.number ROWS UNBOUNDED PRECEDING)) AS measured"
    " WHERE measured.position = 1 OR (measured.total <= $2::bigint AND measured.position <= $1::bigint)"
    " ORDER BY measured.run_id, measured.number"
)
READ_PAIR = (
    "SELECT EXISTS (SELECT 1 FROM outbox WHERE run_id = $1 AND number = $4),"
    f" {_columns(INBOX, 'inbox')} FROM (SELECT 1) AS pair LEFT JOIN inbox"
    " ON inbox.sender_run_id = $1 AND inbox.namespace_id = $2 AND inbox.workflow_id = $3"
)


async def read_outbox(
    reader: Reader, shards: bytes, max_messages: int, max_bytes: int, after: MessagePosition | None
) -> OutboxPage:
    """See `Store.read_outbox`. One message more is looked at than is brought back, to tell whether that is the last."""
    rows = await reader.fetch(READ_OUTBOX, max_messages, max_bytes, shards, *(after or BEFORE_ALL_MESSAGES))
    return OutboxPage([OutboxRecord(*row[:-1]) for row in rows], not rows or len(rows) == rows[0]["count"])


async def read_pair(reader: Reader, receiver: WorkflowKey, sender_run_id: str, number: int) -> PairState:
    """See `Store.read_pair`."""
    [row] = await reader.fetch(READ_PAIR, sender_run_id, *receiver, number)
    return PairState(None if row[1] is None else InboxRecord(*row[1:]), row[0])
