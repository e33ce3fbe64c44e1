"""What deletes runs in the background asks of the database: which runs, and histories that go piece by piece."""

from __future__ import annotations

import sqlite3

import msgspec

from perdure.server.core.records import DiscardedHistory
from perdure.server.store.interface import ClosedRun, RunName, RunPosition
from perdure.server.store.sqlite.batches import roll_back

CLOSED_RUNS = (
    "SELECT json_group_array(json_array(workflow_id, run_id, closed_at)) FROM (SELECT * FROM run"
    " WHERE namespace_id = ? AND closed_at IS NOT NULL AND (closed_at, run_id) > (?, ?)"
    " ORDER BY closed_at, run_id LIMIT ?)"
)
PAGE_RUNS = (
    "SELECT json_group_array(json_array(workflow_id, run_id, started_at)) FROM (SELECT * FROM run"
    " WHERE namespace_id = ? AND (started_at, run_id) > (?, ?) ORDER BY started_at, run_id LIMIT ?)"
)
_DISCARDED_HISTORIES = (
    "SELECT json_group_array(json_array(run_id, namespace_id, workflow_id))"
    " FROM (SELECT * FROM discarded_history ORDER BY run_id LIMIT ?)"
)
_IS_DISCARDED = "SELECT EXISTS (SELECT 1 FROM discarded_history WHERE run_id = ?)"
DELETE_EVENTS = (
    "DELETE FROM event WHERE run_id = ?1 AND event_id IN"
    " (SELECT event_id FROM event WHERE run_id = ?1 ORDER BY event_id LIMIT ?2)"
)
DELETE_REQUESTS = (
    "DELETE FROM request WHERE run_id = ?1 AND request_id IN"
    " (SELECT request_id FROM request WHERE run_id = ?1 ORDER BY request_id LIMIT ?2)"
)
_FORGET_HISTORY = "DELETE FROM discarded_history WHERE run_id = ?"
IS_EMPTY = (
    "SELECT NOT EXISTS (SELECT 1 FROM run WHERE namespace_id = ?1)"
    " AND NOT EXISTS (SELECT 1 FROM outbox WHERE namespace_id = ?1 OR receiver_namespace_id = ?1)"
    " AND NOT EXISTS (SELECT 1 FROM discarded_history WHERE namespace_id = ?1)"
)
_DELETE_NAMESPACE = "DELETE FROM namespace WHERE namespace_id = ?"

_BEFORE_ALL = RunPosition(-(2**63), "")

_closed_runs = msgspec.json.Decoder(list[ClosedRun])
_run_names = msgspec.json.Decoder(list[RunName])
_histories = msgspec.json.Decoder(list[DiscardedHistory])


def closed_runs(
    connection: sqlite3.Connection, namespace_id: str, limit: int, after: RunPosition | None
) -> list[ClosedRun]:
    """See `Store.closed_runs`."""
    [text] = connection.execute(CLOSED_RUNS, (namespace_id, *(after or _BEFORE_ALL), limit)).fetchone()
    return _closed_runs.decode(text)


def page_runs(
    connection: sqlite3.Connection, namespace_id: str, limit: int, after: RunPosition | None
) -> list[RunName]:
    """See `Store.page_runs`."""
    [text] = connection.execute(PAGE_RUNS, (namespace_id, *(after or _BEFORE_ALL), limit)).fetchone()
    return _run_names.decode(text)


def discarded_histories(connection: sqlite3.Connection, limit: int) -> list[DiscardedHistory]:
    """See `Store.discarded_histories`."""
    [text] = connection.execute(_DISCARDED_HISTORIES, (limit,)).fetchone()
    return _histories.decode(text)


def delete_history(connection: sqlite3.Connection, run_id: str, limit: int) -> bool:
    """See `Store.delete_history`. One transaction: each has to wait for the disk."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        is_gone = _delete_some(connection, run_id, limit)
        connection.execute("COMMIT")
    except BaseException:
        roll_back(connection)
        raise
    return is_gone


def _delete_some(connection: sqlite3.Connection, run_id: str, limit: int) -> bool:
    [is_discarded] = connection.execute(_IS_DISCARDED, (run_id,)).fetchone()
    if not is_discarded:
        return True
    events = connection.execute(DELETE_EVENTS, (run_id, limit)).rowcount
    requests = connection.execute(DELETE_REQUESTS, (run_id, limit)).rowcount
    if max(events, requests) == limit:
        return False
    connection.execute(_FORGET_HISTORY, (run_id,))
    return True


def is_namespace_empty(connection: sqlite3.Connection, namespace_id: str) -> bool:
    """See `Store.is_namespace_empty`."""
    [is_empty] = connection.execute(IS_EMPTY, (namespace_id,)).fetchone()
    return bool(is_empty)


def delete_namespace(connection: sqlite3.Connection, namespace_id: str) -> bool:
    """See `Store.delete_namespace`. In the writer's thread, where nothing comes between the two."""
    is_empty = is_namespace_empty(connection, namespace_id)
    if is_empty:
        connection.execute(_DELETE_NAMESPACE, (namespace_id,))
    return is_empty
