"""Listing and counting runs: the list filter as SQL.

A filter is the one thing whose SQL is made per call; what a caller wrote enters it as parameters only. What the filter
means is said by `visibility.filter.matches`, and this translation agrees with it.
"""

# ruff: noqa: S608 - what a caller wrote enters the text as parameters only.

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import assert_never

import msgspec

from perdure.server.core.records import RunRecord
from perdure.server.store.interface import CountGroup, ListPosition
from perdure.server.store.sqlite.bulk import SqlValue
from perdure.server.store.sqlite.queries import RUN_COLUMNS, RunRow, run_record
from perdure.server.store.visibility.filter import And, Attribute, Comparison, Everything, Filter, Not, Operator, Or

_COLUMN_OF: Mapping[Attribute, str] = {
    Attribute.WORKFLOW_ID: "workflow_id",
    Attribute.RUN_ID: "run_id",
    Attribute.WORKFLOW_TYPE: "workflow_type",
    Attribute.TASK_QUEUE: "task_queue",
    Attribute.EXECUTION_STATUS: "status",
    Attribute.START_TIME: "started_at",
    Attribute.EXECUTION_TIME: "execution_at",
    Attribute.CLOSE_TIME: "closed_at",
    Attribute.EXECUTION_DURATION: "(closed_at - execution_at)",
    Attribute.HISTORY_LENGTH: "(next_event_id - 1)",
    Attribute.HISTORY_SIZE_BYTES: "history_size_bytes",
    Attribute.STATE_TRANSITION_COUNT: "transition_count",
}

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


def translate(filter: Filter) -> tuple[str, tuple[SqlValue, ...]]:
    """Return the condition, fit to stand between ANDs, and its parameters in order."""
    match filter:
        case Everything():
            return "1", ()
        case Comparison():
            return _translate_comparison(filter)
        case And():
            return _join(" AND ", filter.filters, "1")
        case Or():
            return _join(" OR ", filter.filters, "0")
        case Not():
            condition, parameters = translate(filter.filter)
            return f"NOT ({condition})", parameters
        case _:
            assert_never(filter)


def _join(word: str, filters: tuple[Filter, ...], empty: str) -> tuple[str, tuple[SqlValue, ...]]:
    parts = [translate(part) for part in filters]
    condition = word.join(condition for condition, _ in parts) or empty
    return f"({condition})", tuple(value for _, values in parts for value in values)


def _translate_comparison(comparison: Comparison) -> tuple[str, tuple[SqlValue, ...]]:
    column, values = _COLUMN_OF[comparison.attribute], comparison.values
    match comparison.operator:
        case Operator.IS_NULL:
            return f"{column} IS NULL", ()
        case Operator.IN:
            return f"{column} IN ({', '.join('?' * len(values))})", values
        case Operator.BETWEEN:
            return f"({column} BETWEEN ? AND ?)", values
        case Operator.STARTS_WITH:
            return _starts_with(column, str(values[0]))
        case operator:
            return f"{column} {operator.value} ?", values


def _starts_with(column: str, prefix: str) -> tuple[str, tuple[SqlValue, ...]]:
    """Say it as a range, which an index serves and LIKE's case folding and wildcards do not touch."""
    end = _least_text_after(prefix)
    if end is None:
        return f"({column} >= ?)", (prefix,)
    return f"({column} >= ? AND {column} < ?)", (prefix, end)


def _least_text_after(prefix: str) -> str | None:
    """Return the least text above all that begin with the prefix; None where there is none."""
    last_code_point, before_surrogates, after_surrogates = "\U0010ffff", "\ud7ff", "\ue000"
    kept = prefix.rstrip(last_code_point)
    if not kept:
        return None
    last = kept[-1]
    return kept[:-1] + (after_surrogates if last == before_surrogates else chr(ord(last) + 1))
