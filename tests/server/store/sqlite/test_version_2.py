"""From version 1 to version 2: every row gets its shard, and who still has version 1 in mind is fenced."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from perdure.server.core.records import WorkflowKey
from perdure.server.core.shards import shard_of
from perdure.server.store.interface import Claim
from perdure.server.store.schema import TABLES
from perdure.server.store.sqlite import SqliteStore
from perdure.server.store.sqlite.migrations import migrate
from tests.server.store import rows, versions
from tests.server.store.writing import Writer


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database of version 1."""
    path = tmp_path / "perdure.db"
    connection = sqlite3.connect(path, isolation_level=None)
    for statement in versions.schema(1, "sqlite"):
        connection.execute(statement)
    for table, row in versions.rows_of_version_1():
        names, marks = ", ".join(row), ", ".join("?" * len(row))
        connection.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", list(row.values()))
    connection.close()
    return path


def test_every_row_gets_the_shard_of_its_workflow_id(path: Path) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    migrate(connection)
    for table, count in (("run", 5), ("activity", 10), ("outbox", 6)):
        found = connection.execute(f"SELECT namespace_id, workflow_id, shard FROM {table}").fetchall()
        assert len(found) == count
        assert all(shard == shard_of(WorkflowKey(*key)) for *key, shard in found)
    connection.close()


def test_the_schema_is_that_of_a_new_database(path: Path) -> None:
    led, new = sqlite3.connect(path, isolation_level=None), sqlite3.connect(":memory:", isolation_level=None)
    migrate(led)
    migrate(new)
    assert _columns(led) == _columns(new)
    assert _definitions(led) == _definitions(new)
    led.close()
    new.close()


async def test_runs_go_on_where_they_were(path: Path) -> None:
    store = SqliteStore(str(path))
    await store.open()
    assert await store.cluster_id() == "4a3b2c1d-0000-4000-8000-000000000000"
    [loaded] = await store.load_current_runs([rows.key("order-2")])
    assert loaded is not None
    assert (loaded.run.run_id, loaded.started_event, len(loaded.activities)) == ("run of order-2", b"event", 2)
    assert len(await store.ready_workflow_tasks(rows.NAMESPACE, "orders", 10)) == 5
    assert len(await store.ready_activity_tasks(rows.NAMESPACE, "orders", rows.START, 100)) == 10
    writer = await Writer.claim(store)
    await writer.commit(rows.write("order-2", rows.run("order-2", "run of order-2", stored_version=1)))
    await writer.commit(rows.write("order-9", rows.run("order-9", "run of order-9")))
    await store.close()


async def test_a_server_of_the_release_before_is_fenced(path: Path) -> None:
    store = SqliteStore(str(path))
    await store.open()
    # Its own claim was of incarnation 3.
    assert await store.claim("node") == Claim(incarnation=5, batch=17)
    await store.close()


def _columns(connection: sqlite3.Connection) -> dict[str, list[tuple[object, ...]]]:
    """Return name, type, NOT NULL and place in the key of each column; a default is all that may differ."""
    return {
        table.name: [
            (name, type_, is_not_null, place)
            for _, name, type_, is_not_null, _, place in connection.execute(f"PRAGMA table_info({table.name})")
        ]
        for table in TABLES
    }


def _definitions(connection: sqlite3.Connection) -> dict[str, str]:
    """Return the texts of indexes and views, and of the tables that are new."""
    found = connection.execute("SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL")
    return {
        name: " ".join(text.split())
        for kind, name, text in found
        if kind != "table" or name in ("member", "shard", "discarded_history")
    }
