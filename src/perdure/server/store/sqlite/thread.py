"""A database connection with a thread of its own, called from asyncio.

The connection is made, used and closed in its thread and nowhere else. Jobs run in the order in which they were given.
`sqlite3` gives up the interpreter lock around every step of a statement, and getting it back from a busy event loop can
take milliseconds: a job must therefore take few steps, whatever the number of its rows.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import TypeVar

from perdure.server.store.interface import StoreError, StoreUnavailable
from perdure.server.store.sqlite.errors import map_error

T = TypeVar("T")
U = TypeVar("U")

Job = Callable[[sqlite3.Connection], T]
_Work = Callable[[], None]


class DatabaseThread:
    """Runs jobs on a connection, one after the other.

    Args:
        name: The thread's name.
        connect: Makes the connection; called once, in the thread.
    """

    def __init__(self, name: str, connect: Callable[[], sqlite3.Connection]) -> None:
        self._connect = connect
        self._connection: sqlite3.Connection | None = None
        self._work: SimpleQueue[_Work | None] = SimpleQueue()
        # A daemon: a process that dies without `stop` must not hang on it, and a transaction cut short is void.
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)
        self._is_open = False

    async def start(self) -> None:
        """Start the thread and connect. Raises what `connect` raises, as a store error."""
        self._thread.start()
        try:
            await self._submit(self._open)
        except BaseException:
            self._work.put(None)
            raise
        self._is_open = True

    def run(self, job: Job[T]) -> asyncio.Future[T]:
        """Queue a job at once and return the future of its result; SQLite's errors come as store errors."""
        if not self._is_open:
            raise StoreUnavailable("The store is not open.")
        return self._submit(lambda: job(self._opened()))

    async def stop(self) -> None:
        """Do the jobs that are queued, then close the connection and end the thread."""
        if not self._is_open:
            return
        self._is_open = False
        try:
            await self._submit(lambda: self._opened().close())
        finally:
            self._work.put(None)

    def _open(self) -> None:
        self._connection = self._connect()

    def _opened(self) -> sqlite3.Connection:
        assert self._connection is not None
        return self._connection

    def _submit(self, call: Callable[[], T]) -> asyncio.Future[T]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def work() -> None:
            try:
                result = call()
            except (sqlite3.Error, StoreError, UnicodeError, OverflowError) as error:
                _post(loop, _fail, future, map_error(error))
            except BaseException as error:  # noqa: BLE001 - raised where the result is awaited
                _post(loop, _fail, future, error)
            else:
                _post(loop, _succeed, future, result)

        self._work.put(work)
        return future

    def _main(self) -> None:
        while (work := self._work.get()) is not None:
            work()


def _post(
    loop: asyncio.AbstractEventLoop, settle: Callable[[asyncio.Future[T], U], None], future: asyncio.Future[T], value: U
) -> None:
    try:
        loop.call_soon_threadsafe(settle, future, value)
    except RuntimeError:
        # The loop was closed meanwhile: nobody waits any more.
        assert loop.is_closed()


def _succeed(future: asyncio.Future[T], result: T) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[T], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
