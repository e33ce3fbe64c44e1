"""The lock of a database file: one holder, named to others, gone with its process and in no reader's way."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from perdure.server.store.interface import StoreMismatch, StoreUnavailable
from perdure.server.store.sqlite import FileHeld, FileLock, SqliteStore
from perdure.server.store.sqlite import lock as lock_module

HOLD = """
import asyncio, sys
from perdure.server.store.sqlite import FileLock
lock = FileLock(sys.argv[1])
asyncio.run(lock.acquire(0))
print("held", flush=True)
sys.stdin.read()
"""

FORK = """
import asyncio, os, sys
from perdure.server.store.sqlite import FileLock
lock = FileLock(sys.argv[1])
asyncio.run(lock.acquire(0))
if os.fork() == 0:
    sys.stdin.read()
os._exit(0)
"""


@pytest.fixture
def database(tmp_path: Path) -> str:
    return str(tmp_path / "perdure.db")


async def held(database: str) -> FileLock:
    lock = FileLock(database)
    await lock.acquire(0)
    return lock


def holder(database: str) -> subprocess.Popen[bytes]:
    """Start a process that holds the lock until its standard input ends."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, database], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    return process


async def test_the_second_one_is_told_who_holds_it(database: str) -> None:
    lock = await held(database)
    told = rf"perdure\.db is in use by process {os.getpid()} on \S+, since \d{{4}}-\S+\. .*: stop that one$"
    with pytest.raises(FileHeld, match=told):
        await FileLock(database).acquire(0)
    lock.release()
    (await held(database)).release()


async def test_a_refused_attempt_takes_nothing_away_from_the_holder(database: str) -> None:
    """As a lock by `lockf` would be: closing any descriptor of the file gives it back."""
    with holder(database) as process:
        for _ in range(2):
            with pytest.raises(FileHeld, match=rf"process {process.pid} on "):
                await FileLock(database).acquire(0)
        process.kill()


async def test_it_ends_with_its_process_however_that_ends(database: str) -> None:
    with holder(database) as process:
        process.kill()
    assert Path(database + ".lock").read_text(), "what the process wrote is still there, and means nothing"
    (await held(database)).release()


async def test_whoever_is_asked_to_waits_for_the_end_of_the_holder(database: str) -> None:
    lock = await held(database)
    waiting = asyncio.create_task(FileLock(database).acquire(30))
    for _ in range(3):
        await asyncio.sleep(0)
    assert not waiting.done()
    lock.release()
    await waiting


async def test_waiting_ends_when_the_time_is_over(database: str) -> None:
    lock = await held(database)
    with pytest.raises(FileHeld):
        await FileLock(database).acquire(0.15)
    lock.release()


async def test_another_path_to_the_same_file_is_no_way_around_it(database: str, tmp_path: Path) -> None:
    link = tmp_path / "link.db"
    link.symlink_to(database)
    lock = await held(database)
    for path in (str(link), os.path.relpath(database)):
        with pytest.raises(FileHeld):
            await FileLock(path).acquire(0)
    lock.release()


@pytest.mark.parametrize("content", [b"", b"\xff{", b"[1]", b"null", b'{"pid": 1}'])
async def test_what_the_file_says_matters_to_nobody(content: bytes, database: str) -> None:
    path = Path(database + ".lock")
    path.write_bytes(content)
    lock = await held(database)
    path.write_bytes(content)
    with pytest.raises(FileHeld, match="in use by another process"):
        await FileLock(database).acquire(0)
    lock.release()


async def test_readers_and_the_database_itself_are_not_disturbed(database: str) -> None:
    lock = await held(database)
    store = SqliteStore(database)
    await store.open()
    shell = sqlite3.connect(database)
    assert shell.execute("SELECT count(*) FROM run").fetchone() == (0,)
    shell.close()
    await store.claim("node")
    await store.close()
    lock.release()


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
async def test_a_forked_child_does_not_keep_it(database: str) -> None:
    """In a process of its own, which may fork safely: its child outlives it."""
    with subprocess.Popen([sys.executable, "-c", FORK, database], stdin=subprocess.PIPE) as process:
        assert process.wait(30) == 0
        lock = FileLock(database)
        # The child may not have come to closing what it got.
        await lock.acquire(10)
        lock.release()


async def test_a_folder_that_is_not_there_is_said_clearly(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match=r"there is no folder .*missing: make it first"):
        await FileLock(str(tmp_path / "missing" / "perdure.db")).acquire(0)


@pytest.mark.parametrize("content", [b"Dear Sir or Madam, ", b"SQLite"], ids=["a letter", "too short"])
async def test_a_file_that_is_no_database_gets_no_lock(content: bytes, database: str) -> None:
    Path(database).write_bytes(content)
    with pytest.raises(StoreMismatch, match="is not an SQLite database: name another file"):
        await FileLock(database).acquire(0)
    assert not Path(database + ".lock").exists()


async def test_a_folder_gets_no_lock(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(StoreMismatch, match="is not a file"):
        await FileLock(str(tmp_path / "folder")).acquire(0)
    assert not (tmp_path / "folder.lock").exists()


async def test_an_empty_file_and_a_database_are_locked(database: str) -> None:
    Path(database).touch()
    (await held(database)).release()
    Path(database + ".lock").unlink()
    sqlite3.connect(database).execute("PRAGMA user_version = 1").connection.close()
    (await held(database)).release()


def test_looking_makes_no_file(database: str) -> None:
    assert FileLock(database).holder() is None
    assert not Path(database + ".lock").exists()


async def test_looking_names_the_holder_and_is_in_nobodys_way(database: str) -> None:
    lock = await held(database)
    told = FileLock(database).holder()
    assert told is not None
    assert re.fullmatch(rf"process {os.getpid()} on \S+, since \S+", told)
    lock.release()
    assert FileLock(database).holder() is None
    (await held(database)).release()


@pytest.mark.skipif(sys.platform == "win32", reason="locks there are never shared")
async def test_two_that_look_at_once_do_not_take_each_other_for_a_holder(database: str) -> None:
    import fcntl

    (await held(database)).release()
    with open(database + ".lock", "rb") as other:
        fcntl.flock(other, fcntl.LOCK_SH)
        assert FileLock(database).holder() is None


@pytest.mark.skipif(sys.platform == "win32", reason="it does not tell who owns a file")
async def test_a_lock_of_another_user_is_told_with_what_would_do(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbid(path: str, *_: int) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    (await held(database)).release()
    told = rf"owned by {Path(database).parent.owner()}: chown it, or delete it while no server runs"
    monkeypatch.setattr(os, "open", forbid)
    with pytest.raises(StoreUnavailable, match=told):
        await FileLock(database).acquire(0)
    with pytest.raises(StoreUnavailable, match=told):
        FileLock(database).holder()
    Path(database + ".lock").unlink()
    with pytest.raises(StoreUnavailable, match="must be allowed to make files in its folder"):
        await FileLock(database).acquire(0)


async def test_without_locks_of_the_file_system_nobody_is_kept_out(
    database: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_locks(descriptor: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(lock_module, "_try_lock", no_locks)
    first, second = await held(database), await held(database)
    assert re.search("has no locks", caplog.text)
    first.release()
    second.release()
