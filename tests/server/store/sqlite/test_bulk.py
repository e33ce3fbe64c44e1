"""Statements over many rows: few steps, and no row lost or added."""

from __future__ import annotations

import sqlite3

import pytest

from perdure.server.store.sqlite.bulk import Bulk

INSERT = "INSERT INTO t (a, b) SELECT * FROM (VALUES {rows}) WHERE column1 IS NOT NULL"


@pytest.mark.parametrize(
    ("count", "steps"), [(0, 0), (1, 1), (2, 1), (3, 1), (7, 1), (8, 1), (9, 2), (16, 2), (17, 3), (100, 13)]
)
def test_rows_are_written_once_in_few_steps(count: int, steps: int) -> None:
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE t (a, b)")
    bulk = Bulk(INSERT, 2, largest=8)
    rows = [(f"row-{number}", None if number % 2 else b"\0") for number in range(count)]
    assert len(list(bulk.steps(rows))) == steps
    assert bulk.execute(connection, rows) == count
    assert connection.execute("SELECT a, b FROM t ORDER BY rowid").fetchall() == rows
    connection.close()
