"""A database that is refused stays as it was, to the byte, and nothing is made beside it."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

import pytest

from perdure.server.store.interface import StoreError, StoreMismatch
from perdure.server.store.schema import SCHEMA_VERSION
from perdure.server.store.sqlite import SqliteStore
from perdure.server.store.sqlite.migrations import migrate
from perdure.server.store.sqlite.tools import SqliteDatabase
from perdure.server.store.tools.interface import Access, ToolError


def _foreign(connection: sqlite3.Connection) -> None:
    connection.execute("CREATE TABLE album (title TEXT)")


def _newer(connection: sqlite3.Connection) -> None:
    migrate(connection)
    connection.execute("INSERT INTO migration (version, applied_at) VALUES (?, 0)", (SCHEMA_VERSION + 1,))


def _empty(connection: sqlite3.Connection) -> None:
    """A file with a header and no table."""
    connection.execute("PRAGMA user_version = 7")


async def _migrate(path: str) -> None:
    await _in(path, Access.MIGRATE)


async def _copy_into(path: str) -> None:
    await _in(path, Access.COPY_INTO)


async def _in(path: str, access: Access) -> None:
    database = SqliteDatabase(path)
    await database.open(access)
    try:
        await database.migrate()
    finally:
        await database.close()


async def _serve(path: str) -> None:
    # That pragma would change the file too.
    await SqliteStore(path, {"user_version": "1"}).open()


async def _serve_without_migrating(path: str) -> None:
    await SqliteStore(path, migrates=False).open()


@pytest.mark.parametrize(
    ("make", "refused"),
    [
        (make, refused)
        for make in (_foreign, _newer)
        for refused in (_migrate, _copy_into, _serve, _serve_without_migrating)
    ]
    + [(_empty, _serve_without_migrating)],
)
async def test_what_is_refused_stays_as_it_was(
    make: Callable[[sqlite3.Connection], None], refused: Callable[[str], Awaitable[None]], tmp_path: Path
) -> None:
    path = tmp_path / "orders.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        make(connection)
    before = path.read_bytes()
    with pytest.raises((StoreError, ToolError)):
        await refused(str(path))
    assert path.read_bytes() == before, "in journal mode delete, as before"
    assert set(os.listdir(tmp_path)) - {"orders.db.lock"} == {"orders.db"}


async def test_a_store_that_is_not_to_make_the_schema_makes_no_file(tmp_path: Path) -> None:
    store = SqliteStore(str(tmp_path / "fresh.db"), migrates=False)
    with pytest.raises(StoreMismatch, match=r"no schema.*`perdure db migrate`"):
        store.require_made()
    with pytest.raises(StoreMismatch, match=r"no schema.*`perdure db migrate`"):
        await store.open()
    assert not os.listdir(tmp_path)


async def test_asking_who_uses_a_database_makes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "orders.db"
    await _migrate(str(path))
    before = path.read_bytes()
    assert await SqliteDatabase(str(path)).servers() == []
    assert os.listdir(tmp_path) == ["orders.db"]
    assert path.read_bytes() == before


@pytest.mark.parametrize("make", [_empty, _newer], ids=["found empty", "found with its schema"])
async def test_what_is_not_refused_has_the_journal_of_servers(
    make: Callable[[sqlite3.Connection], None], tmp_path: Path
) -> None:
    """So that who migrates, or serves, a database that was in another mode leaves it where readers disturb nobody."""
    for lead in (_migrate, _serve_and_stop):
        path = tmp_path / f"{lead.__name__}.db"
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            make(connection)
            if make is _newer:
                connection.execute("DELETE FROM migration WHERE version > ?", (SCHEMA_VERSION,))
        await lead(str(path))
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


async def _serve_and_stop(path: str) -> None:
    store = SqliteStore(path)
    await store.open()
    await store.close()


async def test_a_new_file_has_what_can_be_set_only_while_it_is_empty(tmp_path: Path) -> None:
    store = SqliteStore(str(tmp_path / "fresh.db"), {"journal_mode": "delete", "page_size": "8192"})
    await store.open()
    await store.close()
    with closing(sqlite3.connect(tmp_path / "fresh.db")) as connection:
        assert connection.execute("PRAGMA page_size").fetchone() == (8192,)
