"""Writing a batch: one transaction of few statements behind the fence, in the writer's thread.

The order within a round keeps the unique index of current runs whole at every statement: runs give the place up before
others take it.
"""

# ruff: noqa: S608 - built at import, of the names in the schema.

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from perdure.server.store.interface import CommitUnknown, Fenced, StaleVersion
from perdure.server.store.rounds import ADVANCED_COLUMNS, CHANGED_COLUMNS, Fence, Round
from perdure.server.store.schema import (
    ACTIVITY,
    BUFFERED_EVENT,
    CHILD,
    DISCARDED_HISTORY,
    EVENT,
    INBOX,
    OUTBOX,
    REQUEST,
    RUN,
    TIMER,
    Table,
)
from perdure.server.store.sqlite.bulk import Bulk

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


def _update_runs(columns: tuple[str, ...]) -> Bulk:
    # Naming an indexed column in SET costs its index's upkeep even where the value stays.
    changes = ", ".join(
        f"{name} = new.column{position}" for position, name in enumerate(columns, start=1) if position > 2
    )
    return Bulk(
        f"UPDATE run SET {changes} FROM (VALUES {{rows}}) AS new"
        " WHERE run.run_id = new.column1 AND run.version = new.column2",
        len(columns),
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
_ADVANCE_RUNS = _update_runs(ADVANCED_COLUMNS)
_UPDATE_RUNS = _update_runs(CHANGED_COLUMNS)
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
_INSERT_DISCARDED = _insert(DISCARDED_HISTORY)
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
    expected = len(rows.runs_advanced) + len(rows.runs_not_current) + len(rows.runs_current)
    changed = _ADVANCE_RUNS.execute(connection, rows.runs_advanced)
    changed += _UPDATE_RUNS.execute(connection, rows.runs_not_current)
    _DELETE_RUNS.execute(connection, rows.runs_deleted)
    changed += _UPDATE_RUNS.execute(connection, rows.runs_current)
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
    _DELETE_REQUESTS_OF_RUNS.execute(connection, rows.histories_deleted)
    _DELETE_EVENTS_OF_RUNS.execute(connection, rows.histories_deleted)
    _INSERT_DISCARDED.execute(connection, rows.histories_discarded)


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
