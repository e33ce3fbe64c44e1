"""Listing and counting runs: the list filter as SQL.

A filter is the one thing whose SQL is made per call; what a caller wrote enters it as parameters only.
"""

# ruff: noqa: S608 - what a caller wrote enters the text as parameters only.

from __future__ import annotations

import sqlite3

import msgspec

from perdure.server.core.records import RunRecord
from perdure.server.store.interface import CountGroup, ListPosition
from perdure.server.store.rounds import SqlValue
from perdure.server.store.sqlite.queries import RUN_COLUMNS, RunRow, run_record
from perdure.server.store.visibility.filter import Filter
from perdure.server.store.visibility.sql import translate

_ORDER = "ORDER BY started_at DESC, run_id DESC LIMIT ?"

_run_rows = msgspec.json.Decoder(list[RunRow])
_groups = msgspec.json.Decoder(list[tuple[int, int]])


def list_runs(
    connection: sqlite3.Connection, namespace_id: str, filter: Filter, limit: int, after: ListPosition | None
) -> list[RunRecord]:
    """See `Store.list_runs`."""
    condition, parameters = translate(filter)
    position: tuple[SqlValue, ...] = ()
    if after is not None:
        condition = f"(started_at, run_id) < (?, ?) AND {condition}"
        position = after
    text = _only(
        connection,
        f"SELECT json_group_array(json_array({RUN_COLUMNS}))"
        f" FROM (SELECT * FROM run WHERE namespace_id = ? AND {condition} {_ORDER}) AS run",
        (namespace_id, *position, *parameters, limit),
    )
    return [run_record(row) for row in _run_rows.decode(text)]


def count_runs(connection: sqlite3.Connection, namespace_id: str, filter: Filter) -> int:
    """See `Store.count_runs`."""
    return sum(group.count for group in count_runs_by_status(connection, namespace_id, filter))


def count_runs_by_status(connection: sqlite3.Connection, namespace_id: str, filter: Filter) -> list[CountGroup]:
    """See `Store.count_runs_by_status`."""
    condition, parameters = translate(filter)
    text = _only(
        connection,
        "SELECT json_group_array(json_array(status, runs)) FROM (SELECT status, count(*) AS runs FROM run"
        f" WHERE namespace_id = ? AND {condition} GROUP BY status ORDER BY status)",
        (namespace_id, *parameters),
    )
    return [CountGroup(status, runs) for status, runs in _groups.decode(text)]


def _only(connection: sqlite3.Connection, query: str, parameters: tuple[SqlValue, ...]) -> str:
    row: tuple[str] = connection.execute(query, parameters).fetchone()
    return row[0]
