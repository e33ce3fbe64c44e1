"""Databases of other releases: newer ones are refused, older ones are led to the present, all or nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from perdure.server.store.interface import StoreMismatch
from perdure.server.store.schema import SCHEMA_VERSION, TABLES
from perdure.server.store.sqlite import SqliteStore
from perdure.server.store.sqlite.migrations import migrate
from perdure.server.store.sqlite.steps import STEPS, Steps


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        yield connection


def _versions(connection: sqlite3.Connection) -> list[int]:
    return [version for (version,) in connection.execute("SELECT version FROM migration ORDER BY version")]


def _tables(connection: sqlite3.Connection) -> set[str]:
    return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def test_a_new_database_gets_the_whole_schema(connection: sqlite3.Connection) -> None:
    migrate(connection)
    assert _tables(connection) == {table.name for table in TABLES}
    assert _versions(connection) == [SCHEMA_VERSION]


def test_migrating_twice_changes_nothing(connection: sqlite3.Connection) -> None:
    migrate(connection)
    schema = connection.execute("SELECT * FROM sqlite_master").fetchall()
    meta = connection.execute("SELECT * FROM meta").fetchall()
    migrate(connection)
    assert connection.execute("SELECT * FROM sqlite_master").fetchall() == schema
    assert connection.execute("SELECT * FROM meta").fetchall() == meta


def test_every_older_version_has_its_step() -> None:
    assert set(STEPS) == set(range(2, SCHEMA_VERSION + 1))


def test_an_older_database_is_led_there_step_by_step(connection: sqlite3.Connection) -> None:
    migrate(connection, target=1, steps={})
    steps: Steps = {2: ("CREATE TABLE second (id TEXT)",), 3: ("ALTER TABLE second ADD COLUMN more TEXT",)}
    migrate(connection, target=3, steps=steps)
    assert _versions(connection) == [1, 2, 3]
    connection.execute("SELECT more FROM second")


def test_a_step_that_fails_leaves_the_database_as_it_was(connection: sqlite3.Connection) -> None:
    migrate(connection, target=1, steps={})
    with pytest.raises(sqlite3.OperationalError):
        migrate(connection, target=3, steps={2: ("CREATE TABLE second (id TEXT)",), 3: ("DROP TABLE missing",)})
    assert _versions(connection) == [1]
    assert "second" not in _tables(connection)


async def test_a_database_of_a_newer_release_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "perdure.db"
    connection = sqlite3.connect(path, isolation_level=None)
    migrate(connection, target=SCHEMA_VERSION)
    connection.execute("INSERT INTO migration (version, applied_at) VALUES (?, 0)", (SCHEMA_VERSION + 1,))
    with pytest.raises(StoreMismatch, match=f"version {SCHEMA_VERSION + 1}"):
        await SqliteStore(str(path)).open()
    assert _versions(connection) == [SCHEMA_VERSION, SCHEMA_VERSION + 1]
    connection.close()


async def test_a_database_of_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "music.db"
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("CREATE TABLE album (title TEXT)")
    with pytest.raises(StoreMismatch, match="not Perdure's"):
        await SqliteStore(str(path)).open()
    assert _tables(connection) == {"album"}
    connection.close()
