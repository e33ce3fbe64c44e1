"""One process per database file: a lock on a file beside it, which says who holds it.

The lock is the operating system's, so it ends with its process, however that ends; what the file says is for people
only, and may be old. It is not on the database itself: closing any descriptor of that would take SQLite's own locks
away from this process, and readers such as the `sqlite3` shell must not be kept out. The file stays when the lock is
given back, since a process that waits may have it open already.

Where a file system has no such locks, as some network ones, nothing is held: then the fence of the node still keeps two
processes from writing, only that the second one takes the first one's place instead of being refused.
"""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import socket
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TypeAlias

from perdure.server.store.interface import StoreMismatch, StoreUnavailable

if sys.platform == "win32":
    import msvcrt

    def _try_lock(descriptor: int) -> None:
        # The range lies behind all that is written, because on Windows nobody else can read what is locked.
        os.lseek(descriptor, _LOCKED_OFFSET, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

    _try_to_share = _try_lock

else:
    import fcntl

    def _try_lock(descriptor: int) -> None:
        # Not by `lockf`: that lock would be lost as soon as anything else in this process had opened and closed the
        # file.
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _try_to_share(descriptor: int) -> None:
        # So that two who only look do not take each other for a server.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)


_logger = logging.getLogger(__name__)

_LOCKED_OFFSET: Final = 1 << 30
_LOOK_SECONDS: Final = 0.1
_CONTENT_BYTES: Final = 4096
_BEGINNING: Final = b"SQLite format 3\0"
"""Of every SQLite file that is not empty."""
_IS_HELD: Final = frozenset({errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK})
_HAS_NO_LOCKS: Final = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL})

_Holder: TypeAlias = dict[str, str | int]

_held: set[int] = set()
"""The descriptors of all locks of this process."""


class FileHeld(StoreUnavailable):
    """Another process works on the database file."""


class FileLock:
    """The lock of a database file.

    Args:
        database: The path of the database, which need not be there yet.
    """

    def __init__(self, database: str) -> None:
        self._database = database
        # Whoever comes by another path, or by a link, must find the same file.
        self.path = os.path.realpath(database) + ".lock"
        self._descriptor: int | None = None

    async def acquire(self, wait_seconds: float) -> None:
        """Take the lock.

        Args:
            wait_seconds: How long to wait for a process that holds it.

        Raises:
            FileHeld: Another process holds it; the message says which.
            StoreMismatch: The database is something else, and nothing was put beside it.
            StoreUnavailable: The file beside the database cannot be opened.
        """
        assert self._descriptor is None, "it is held already"
        descriptor = self._open()
        try:
            await self._lock(descriptor, wait_seconds)
            _write_holder(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        _held.add(descriptor)

    def release(self) -> None:
        """Give the lock back; without effect where it is not held."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None and descriptor in _held:
            _held.remove(descriptor)
            os.ftruncate(descriptor, 0)
            os.close(descriptor)

    def holder(self) -> str | None:
        """Say who holds the lock, None for nobody, and make nothing: whoever makes the file owns it.

        Raises:
            StoreUnavailable: The file beside the database cannot be opened.
        """
        try:
            descriptor = os.open(self.path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _cannot_open(self.path, error) from error
        try:
            return None if self._is_locked(descriptor, _try_to_share) else _holder(descriptor)
        finally:
            os.close(descriptor)

    def _open(self) -> int:
        if not os.path.exists(self.path):
            # Only then: beside a file that is there somebody may work on the database, in this process too, and its
            # locks would be lost by closing it.
            _require_database(self._database)
        try:
            return os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise _cannot_open(self.path, error) from error

    async def _lock(self, descriptor: int, wait_seconds: float) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait_seconds
        has_told = False
        while not self._is_locked(descriptor, _try_lock):
            holder = _holder(descriptor)
            if loop.time() >= deadline:
                raise FileHeld(
                    f"{self._database} is in use by {holder}. Only one process at a time may work on an SQLite file:"
                    " stop that one"
                )
            if not has_told:
                _logger.info("waiting for the end of %s, which works on %s", holder, self._database)
                has_told = True
            await asyncio.sleep(_LOOK_SECONDS)

    def _is_locked(self, descriptor: int, try_it: Callable[[int], None]) -> bool:
        """Try to take the lock; True also where the file system has none."""
        try:
            try_it(descriptor)
        except OSError as error:
            if error.errno in _IS_HELD:
                return False
            if error.errno not in _HAS_NO_LOCKS:
                raise StoreUnavailable(f"{self.path} cannot be locked: {error}") from error
            _logger.warning("the file system of %s has no locks: let only one process work on it", self._database)
        return True


def _require_database(path: str) -> None:
    """Refuse what is no SQLite database, before a lock is put beside it. What is empty or not there may become one."""
    folder = os.path.dirname(os.path.realpath(path))
    if not os.path.isdir(folder):
        raise StoreUnavailable(f"there is no folder {folder}: make it first")
    if not os.path.exists(path):
        return
    if not os.path.isfile(path):
        raise StoreMismatch(f"{path} is not a file: name one, or one that is not there yet")
    try:
        with open(path, "rb") as file:
            beginning = file.read(len(_BEGINNING))
    except OSError as error:
        raise StoreUnavailable(
            f"{path} cannot be read ({error.strerror}): whoever runs this must be allowed to read and write it"
        ) from error
    if beginning not in (b"", _BEGINNING):
        raise StoreMismatch(f"{path} is not an SQLite database: name another file, or one that is not there yet")


def _cannot_open(path: str, error: OSError) -> StoreUnavailable:
    """Say why the file beside a database cannot be opened, and what would do."""
    told = f"the file that keeps other processes out cannot be opened: {error}"
    if not isinstance(error, PermissionError):
        return StoreUnavailable(told)
    if not os.path.exists(path):
        return StoreUnavailable(f"{told}; whoever runs this must be allowed to make files in its folder")
    return StoreUnavailable(f"{told}; it is owned by {_owner(path)}: chown it, or delete it while no server runs")


def _owner(path: str) -> str:
    try:
        return Path(path).owner()
    except (OSError, KeyError, NotImplementedError):
        # A user without a name, or a system that does not tell.
        return "another user"


def _leave_to_parent() -> None:
    """Close what a forked child has got of its parent: else it would hold the locks for as long as it lives."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_leave_to_parent)


def _write_holder(descriptor: int) -> None:
    holder: _Holder = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    os.ftruncate(descriptor, 0)
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.write(descriptor, json.dumps(holder).encode() + b"\n")


def _holder(descriptor: int) -> str:
    """Say who holds the lock, as far as the file tells: it may have been taken a moment ago."""
    os.lseek(descriptor, 0, os.SEEK_SET)
    try:
        holder: _Holder = json.loads(os.read(descriptor, _CONTENT_BYTES))
        return f"process {holder['pid']} on {holder['host']}, since {holder['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
