"""Writing a batch: its rows gathered by table, then one transaction of few statements behind the fence.

Gathering happens when the batch is given, so what the caller changes afterwards does not matter.
Writing happens in the writer's thread. Entities do not share rows, so the rows of all entities of a batch go into one
statement per table; only an entity that a batch holds twice starts another round.

The order within a round keeps the unique index of current runs whole at every statement: runs give the place up before
others take it.
"""

# ruff: noqa: S608 - built at import, of the names in the schema.

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from perdure.server.core.records import EntityWrite, MailWrite, RunRecord, WorkflowKey
from perdure.server.store.interface import CommitUnknown, Fenced, StaleVersion
from perdure.server.store.schema import (
    ACTIVITY,
    BUFFERED_EVENT,
    CHILD,
    EVENT,
    INBOX,
    OUTBOX,
    REQUEST,
    RUN,
    TIMER,
    Table,
)
from perdure.server.store.sqlite.bulk import Bulk, SqlValue

_RUNNING = 1

Row = Sequence[SqlValue]


class Fence(NamedTuple):
    """Who writes which batch."""

    node: str
    incarnation: int
    batch: int


class Round(msgspec.Struct):
    """The rows of many entities, each entity once. Run rows to update begin with (run id, expected version)."""

    keys: set[WorkflowKey] = set()
    runs_running: list[Row] = []
    """Current runs that stay open: mostly their status does not change, which saves their indexes' upkeep."""
    runs_not_current: list[Row] = []
    runs_current: list[Row] = []
    runs_new: list[Row] = []
    events: list[Row] = []
    activities: list[Row] = []
    activities_removed: list[Row] = []
    timers: list[Row] = []
    timers_removed: list[Row] = []
    buffered_cleared: list[Row] = []
    buffered: list[Row] = []
    requests: list[Row] = []
    runs_closed: list[Row] = []
    runs_deleted: list[Row] = []
    children: list[Row] = []
    children_removed: list[Row] = []
    outbox: list[Row] = []
    outbox_removed: list[Row] = []
    inbox: list[Row] = []
    inbox_removed: list[Row] = []


def gather(writes: Sequence[EntityWrite]) -> list[Round]:
    """Sort the rows of entities by table, into as few rounds as no entity appears twice in."""
    rounds = [Round()]
    for write in writes:
        if write.key in rounds[-1].keys:
            rounds.append(Round())
        _gather_entity(rounds[-1], write)
    return rounds


def _gather_entity(into: Round, write: EntityWrite) -> None:
    into.keys.add(write.key)
    for run in write.runs:
        _gather_run(into, run, is_deleted=run.run_id in write.runs_deleted)
    into.events += write.events
    into.activities_removed += write.activities_removed
    into.timers_removed += write.timers_removed
    into.buffered_cleared += zip(write.buffered_cleared)
    if write.mail is not None:
        _gather_mail(into, write.mail)
    if write.runs_closed or write.runs_deleted:
        _gather_end(into, write)
        return
    into.activities += write.activities
    into.timers += write.timers
    into.buffered += write.buffered
    into.requests += write.requests


def _gather_end(into: Round, write: EntityWrite) -> None:
    """Gather what belongs to runs where some have ended: what ends in the same batch need not be written first."""
    ended = {*write.runs_closed, *write.runs_deleted}
    into.activities += [row for row in write.activities if row.run_id not in ended]
    into.timers += [row for row in write.timers if row.run_id not in ended]
    into.buffered += [row for row in write.buffered if row.run_id not in ended]
    # The request ids of a run are kept as long as its history.
    into.requests += [row for row in write.requests if row.run_id not in write.runs_deleted]
    into.runs_closed += [(run_id,) for run_id in ended]
    into.runs_deleted += [(run_id,) for run_id in write.runs_deleted]


def _gather_mail(into: Round, mail: MailWrite) -> None:
    into.children += mail.children
    into.children_removed += mail.children_removed
    into.outbox += mail.outbox
    into.outbox_removed += mail.outbox_removed
    into.inbox += mail.inbox
    into.inbox_removed += mail.inbox_removed


def _gather_run(into: Round, run: RunRecord, *, is_deleted: bool) -> None:
    if run.stored_version == 0:
        if not is_deleted:
            into.runs_new.append(_new_row(run))
    elif is_deleted or not run.is_current:
        # A run about to be deleted gives its place up, so that another run of its entity may take it.
        into.runs_not_current.append(_changed_row(run, is_current=False))
    elif run.status == _RUNNING:
        into.runs_running.append(_changed_row(run, is_current=True))
    else:
        into.runs_current.append(_changed_row(run, is_current=True))


def _new_row(run: RunRecord) -> Row:
    return (
        run.namespace_id,
        run.workflow_id,
        run.run_id,
        run.version,
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
        run.task_state,
        run.task_attempt,
        run.task_scheduled_at,
        run.task_started_at,
        run.task_ready_queue,
        run.task_ready_at,
        run.memo,
        run.search_attributes,
        run.state,
    )


def _changed_row(run: RunRecord, *, is_current: bool) -> Row:
    return (
        run.run_id,
        run.stored_version,
        run.version,
        int(is_current),
        run.status,
        run.execution_at,
        run.closed_at,
        run.next_event_id,
        run.history_size_bytes,
        run.transition_count,
        run.alarm_at,
        run.task_state,
        run.task_attempt,
        run.task_scheduled_at,
        run.task_started_at,
        run.task_ready_queue,
        run.task_ready_at,
        run.memo,
        run.search_attributes,
        run.state,
    )


_CHANGED = (
    "run_id",
    "stored_version",
    "version",
    "is_current",
    "status",
    "execution_at",
    "closed_at",
    "next_event_id",
    "history_size_bytes",
    "transition_count",
    "alarm_at",
    "task_state",
    "task_attempt",
    "task_scheduled_at",
    "task_started_at",
    "task_ready_queue",
    "task_ready_at",
    "memo",
    "search_attributes",
    "state",
)
"""The columns of `_changed_row`: all that can change after the start."""

_STATUS_COLUMNS = frozenset({"is_current", "status"})
"""Naming an indexed column in SET costs its index's upkeep even where the value stays."""

_WIDE = 128
"""Rows of runs and activities have many columns: more per statement saves little and costs memory."""


def _insert(table: Table, *, largest: int = 512, conflict: str = "") -> Bulk:
    names = ", ".join(table.column_names)
    return Bulk(
        f"INSERT INTO {table.name} ({names}) SELECT * FROM (VALUES {{rows}}) WHERE column1 IS NOT NULL{conflict}",
        len(table.columns),
        largest=largest,
    )


def _upsert(table: Table, *, largest: int = 512) -> Bulk:
    changed = ", ".join(f"{name} = excluded.{name}" for name in table.column_names if name not in table.primary_key)
    key = ", ".join(table.primary_key)
    return _insert(table, largest=largest, conflict=f" ON CONFLICT ({key}) DO UPDATE SET {changed}")


def _update_runs(skipped: frozenset[str], condition: str) -> Bulk:
    changes = ", ".join(
        f"{name} = new.column{position}"
        for position, name in enumerate(_CHANGED, start=1)
        if position > 2 and name not in skipped
    )
    return Bulk(
        f"UPDATE run SET {changes} FROM (VALUES {{rows}}) AS new"
        f" WHERE run.run_id = new.column1 AND run.version = new.column2{condition}",
        len(_CHANGED),
        largest=_WIDE,
    )


def _delete(table: Table, key: tuple[str, ...]) -> Bulk:
    # Only values of the key's own types let SQLite use the whole key's index; a bare list of pairs would have it read
    # all rows.
    types = {column.name: column.type for column in table.columns}
    values = ", ".join(f"CAST(column{position} AS {types[name].value})" for position, name in enumerate(key, start=1))
    return Bulk(
        f"DELETE FROM {table.name} WHERE ({', '.join(key)}) IN (SELECT {values} FROM (VALUES {{rows}}))", len(key)
    )


_OF_RUN = ("run_id",)

_FENCE = "UPDATE node SET batch = ?3 WHERE node = ?1 AND incarnation = ?2 AND batch = ?3 - 1"
_UPDATE_RUNNING_RUNS = _update_runs(_STATUS_COLUMNS, f" AND run.status = {_RUNNING} AND run.is_current = 1")
_UPDATE_RUNS = _update_runs(frozenset(), "")
_INSERT_RUNS = _insert(RUN, largest=_WIDE)
_DELETE_RUNS = _delete(RUN, _OF_RUN)
_INSERT_EVENTS = _insert(EVENT)
_DELETE_EVENTS_OF_RUNS = _delete(EVENT, _OF_RUN)
_UPSERT_ACTIVITIES = _upsert(ACTIVITY, largest=_WIDE)
_DELETE_ACTIVITIES = _delete(ACTIVITY, ACTIVITY.primary_key)
_DELETE_ACTIVITIES_OF_RUNS = _delete(ACTIVITY, _OF_RUN)
_UPSERT_TIMERS = _upsert(TIMER)
_DELETE_TIMERS = _delete(TIMER, TIMER.primary_key)
_DELETE_TIMERS_OF_RUNS = _delete(TIMER, _OF_RUN)
_INSERT_BUFFERED = _insert(BUFFERED_EVENT)
_DELETE_BUFFERED_OF_RUNS = _delete(BUFFERED_EVENT, _OF_RUN)
_INSERT_REQUESTS = _insert(REQUEST, conflict=" ON CONFLICT DO NOTHING")
_DELETE_REQUESTS_OF_RUNS = _delete(REQUEST, _OF_RUN)
_UPSERT_CHILDREN = _upsert(CHILD)
_DELETE_CHILDREN = _delete(CHILD, CHILD.primary_key)
_INSERT_OUTBOX = _insert(OUTBOX, largest=_WIDE)
_DELETE_OUTBOX = _delete(OUTBOX, OUTBOX.primary_key)
_UPSERT_INBOX = _upsert(INBOX)
_DELETE_INBOX = Bulk(
    "DELETE FROM inbox WHERE (sender_run_id, namespace_id, workflow_id) IN"
    " (SELECT inbox.sender_run_id, inbox.namespace_id, inbox.workflow_id FROM (VALUES {rows}) AS done CROSS JOIN inbox"
    " WHERE inbox.sender_run_id = done.column1 AND inbox.namespace_id = done.column2"
    " AND inbox.workflow_id = done.column3 AND inbox.number <= done.column4)",
    4,
)


def write_batch(connection: sqlite3.Connection, fence: Fence, rounds: Sequence[Round]) -> None:
    """Write all rounds in one transaction. Raises as `Store.commit` does; SQLite's errors pass through."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        if connection.execute(_FENCE, fence).rowcount == 0:
            raise Fenced(
                f"Batch {fence.batch} of node {fence.node!r} is refused: another process has taken its place"
                f" since incarnation {fence.incarnation}."
            )
        for rows in rounds:
            _write_runs(connection, rows)
            _write_parts(connection, rows)
            _write_mail(connection, rows)
    except BaseException:
        roll_back(connection)
        raise
    _commit(connection)


def roll_back(connection: sqlite3.Connection) -> None:
    """Give the transaction up, unless SQLite already did (as it does when the disk fails or is full)."""
    if connection.in_transaction:
        connection.execute("ROLLBACK")


def _write_runs(connection: sqlite3.Connection, rows: Round) -> None:
    expected = len(rows.runs_running) + len(rows.runs_not_current) + len(rows.runs_current)
    changed = _UPDATE_RUNNING_RUNS.execute(connection, rows.runs_running)
    late = rows.runs_current
    if changed < len(rows.runs_running):
        # The rest changes its status. Those already done have another version now and are passed over.
        late = late + rows.runs_running
    changed += _UPDATE_RUNS.execute(connection, rows.runs_not_current)
    _DELETE_RUNS.execute(connection, rows.runs_deleted)
    changed += _UPDATE_RUNS.execute(connection, late)
    if changed != expected:
        raise StaleVersion(f"{expected - changed} of {expected} runs are not stored in the expected version.")
    _INSERT_RUNS.execute(connection, rows.runs_new)


def _write_parts(connection: sqlite3.Connection, rows: Round) -> None:
    _INSERT_EVENTS.execute(connection, rows.events)
    _UPSERT_ACTIVITIES.execute(connection, rows.activities)
    _DELETE_ACTIVITIES.execute(connection, rows.activities_removed)
    _UPSERT_TIMERS.execute(connection, rows.timers)
    _DELETE_TIMERS.execute(connection, rows.timers_removed)
    _DELETE_BUFFERED_OF_RUNS.execute(connection, rows.buffered_cleared)
    _INSERT_BUFFERED.execute(connection, rows.buffered)
    _INSERT_REQUESTS.execute(connection, rows.requests)
    _DELETE_ACTIVITIES_OF_RUNS.execute(connection, rows.runs_closed)
    _DELETE_TIMERS_OF_RUNS.execute(connection, rows.runs_closed)
    _DELETE_BUFFERED_OF_RUNS.execute(connection, rows.runs_closed)
    _DELETE_REQUESTS_OF_RUNS.execute(connection, rows.runs_deleted)
    _DELETE_EVENTS_OF_RUNS.execute(connection, rows.runs_deleted)


def _write_mail(connection: sqlite3.Connection, rows: Round) -> None:
    _UPSERT_CHILDREN.execute(connection, rows.children)
    _DELETE_CHILDREN.execute(connection, rows.children_removed)
    _INSERT_OUTBOX.execute(connection, rows.outbox)
    _DELETE_OUTBOX.execute(connection, rows.outbox_removed)
    # The row of the next message of a pair takes the place of the last one's: it must not go with it.
    _DELETE_INBOX.execute(connection, rows.inbox_removed)
    _UPSERT_INBOX.execute(connection, rows.inbox)


def _commit(connection: sqlite3.Connection) -> None:
    try:
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        if connection.in_transaction:
            roll_back(connection)
            raise
        # SQLite gave the transaction up on its own, in the middle of writing it: what the disk holds is not known.
        raise CommitUnknown(f"The commit of the batch failed on its way to the disk: {error}") from error
