"""SQLite's errors, made to happen: who is told what, and that nothing half is ever left."""

from __future__ import annotations

import asyncio
import os
import resource
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from perdure.server.core.records import EntityWrite
from perdure.server.store.interface import (
    Batch,
    BatchRejected,
    Claim,
    CommitUnknown,
    StoreMismatch,
    StoreUnavailable,
)
from perdure.server.store.sqlite import SqliteStore
from tests.server.store import rows
from tests.server.store.writing import Writer


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the database's write lock from another connection."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        connection.close()


@contextmanager
def _disk_ends_at(size_bytes: int) -> Iterator[None]:
    """Have every write beyond a size of a file fail, as on a disk that breaks."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_locked_database_is_away_for_now(file_store: SqliteStore, tmp_path: Path) -> None:
    writer = await Writer.claim(file_store)
    write = rows.write("w", rows.run("w", "r"))
    with _locked(tmp_path / "perdure.db"):
        with pytest.raises(StoreUnavailable, match="locked"):
            await writer.commit(write)
        assert await file_store.load_run(rows.key("w"), "r") is None
    await writer.commit(write)
    assert await file_store.load_run(rows.key("w"), "r") is not None


async def test_a_full_database_is_away_for_now(tmp_path: Path) -> None:
    store = SqliteStore(str(tmp_path / "perdure.db"), {"max_page_count": "60"})
    await store.open()
    writer = await Writer.claim(store)
    with pytest.raises(StoreUnavailable, match="full"):
        await writer.commit(rows.write("w", rows.run("w", "r", state=b"x" * 1_000_000)))
    await writer.commit(rows.write("w", rows.run("w", "r")))
    await store.close()


async def test_a_full_database_that_failed_a_batch_is_away_until_there_is_room(tmp_path: Path) -> None:
    store = SqliteStore(str(tmp_path / "perdure.db"), {"max_page_count": "80"})
    await store.open()
    writer = await Writer.claim(store)
    names = [f"w{number}" for number in range(100)]
    stored = []
    with pytest.raises(StoreUnavailable, match="full"):
        for name in names:
            await writer.commit(rows.write(name, rows.run(name, name, state=b"x" * 4_000)))
            stored.append(name)
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="full"):
            await store.check()
    await writer.commit(*(EntityWrite(rows.key(name), runs_deleted=[name]) for name in stored))
    await store.check()
    await store.close()


async def test_a_disk_that_breaks_during_the_commit_leaves_its_fate_unknown(
    file_store: SqliteStore, tmp_path: Path
) -> None:
    writer = await Writer.claim(file_store)
    write = rows.write("w", rows.run("w", "r", state=b"x" * 100_000))
    with _disk_ends_at(os.path.getsize(tmp_path / "perdure.db-wal") + 10_000), pytest.raises(CommitUnknown):
        await writer.commit(write)
    assert await file_store.resolve() == Claim(incarnation=2, batch=0)
    assert await file_store.load_run(rows.key("w"), "r") is None
    await writer.commit(write)
    assert await file_store.load_run(rows.key("w"), "r") is not None


@pytest.mark.parametrize(
    "run",
    [
        rows.run("w", "r", started_at=2**63),
        rows.run("w", "r", alarm_at=-(2**63) - 1),
        rows.run("w", "r", task_queue="\udfff"),
    ],
    ids=["integer too large", "integer too small", "lone surrogate"],
)
async def test_values_the_database_cannot_hold_are_refused(file_store: SqliteStore, run: object) -> None:
    writer = await Writer.claim(file_store)
    assert isinstance(run, type(rows.run("w", "r")))
    with pytest.raises(BatchRejected):
        await writer.commit(rows.write("innocent", rows.run("innocent", "q")), rows.write("w", run))
    assert await file_store.load_run(rows.key("innocent"), "q") is None
    await writer.commit(rows.write("innocent", rows.run("innocent", "q")))


async def test_a_value_of_the_wrong_type_is_refused(file_store: SqliteStore) -> None:
    writer = await Writer.claim(file_store)
    event = rows.event("r", 1)._replace(data="not bytes")  # type: ignore[arg-type]  # what a bug would pass
    write = rows.write("w", rows.run("w", "r"))
    write.events = [event]
    with pytest.raises(BatchRejected):
        await writer.commit(write)


async def test_a_value_larger_than_the_database_allows_is_refused(file_store: SqliteStore) -> None:
    writer = await Writer.claim(file_store)
    write = rows.write("w", rows.run("w", "r", state=bytes(1_000_000_001)))
    with pytest.raises(BatchRejected):
        await writer.commit(write)


async def test_a_store_that_is_not_open_refuses_and_may_be_closed(tmp_path: Path) -> None:
    store = SqliteStore(str(tmp_path / "perdure.db"))
    await store.close()
    with pytest.raises(StoreUnavailable, match="not open"):
        await store.claim("node")
    await store.open()
    await store.claim("node")
    await store.close()
    await store.close()
    with pytest.raises(StoreUnavailable, match="not open"):
        await store.commit(Batch(1, []))


async def test_closing_finishes_what_is_being_written(tmp_path: Path) -> None:
    store = SqliteStore(str(tmp_path / "perdure.db"))
    await store.open()
    writer = await Writer.claim(store)
    commit = asyncio.create_task(writer.commit(rows.write("w", rows.run("w", "r"))))
    await asyncio.sleep(0)
    await store.close()
    await commit
    again = SqliteStore(str(tmp_path / "perdure.db"))
    await again.open()
    assert await again.load_run(rows.key("w"), "r") is not None
    await again.close()


async def test_a_caller_that_gives_up_does_not_stop_the_commit(file_store: SqliteStore) -> None:
    writer = await Writer.claim(file_store)
    commit = asyncio.create_task(writer.commit(rows.write("w", rows.run("w", "r"))))
    await asyncio.sleep(0)
    commit.cancel()
    with pytest.raises(asyncio.CancelledError):
        await commit
    assert await file_store.resolve() == Claim(incarnation=2, batch=1)
    assert await file_store.load_run(rows.key("w"), "r") is not None


async def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "letter.txt"
    path.write_bytes(b"Dear Sir or Madam, " * 1_000)
    store = SqliteStore(str(path))
    with pytest.raises(StoreMismatch):
        await store.open()
    await store.close()


async def test_a_directory_that_is_not_there_is_reported(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="unable to open"):
        await SqliteStore(str(tmp_path / "missing" / "perdure.db")).open()


@pytest.mark.parametrize(
    ("name", "value"), [("journal_mode", "wal; DROP TABLE run"), ("x = 1; --", "1"), ("", "1"), ("cache_size", "")]
)
def test_a_pragma_is_a_name_and_a_plain_word(name: str, value: str) -> None:
    with pytest.raises(ValueError, match="Not a pragma"):
        SqliteStore(None, {name: value})


def test_a_pragma_that_sqlite_does_not_have_is_refused() -> None:
    with pytest.raises(ValueError, match=r"has no pragma nonsense, synchronus: see the spelling"):
        SqliteStore(None, {"cache_size": "1", "synchronus": "off", "nonsense": "1"})


async def test_a_database_that_has_lost_its_id_is_refused(file_store: SqliteStore, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "perdure.db", isolation_level=None)) as connection:
        connection.execute("DELETE FROM meta WHERE name = 'cluster_id'")
    with pytest.raises(StoreMismatch, match=r"no row cluster_id\. Restore a backup"):
        await file_store.cluster_id()


async def test_pragmas_reach_every_connection_and_safety_is_the_default(tmp_path: Path) -> None:
    path = tmp_path / "perdure.db"
    store = SqliteStore(str(path))
    await store.open()
    assert _journal_mode(path) == "wal"
    await store.close()
    store = SqliteStore(str(tmp_path / "other.db"), {"journal_mode": "delete"})
    await store.open()
    assert _journal_mode(tmp_path / "other.db") == "delete"
    await store.close()


def _journal_mode(path: Path) -> object:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("PRAGMA journal_mode").fetchone()[0]
