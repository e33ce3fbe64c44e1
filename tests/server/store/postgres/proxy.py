"""A network that fails at will: a TCP proxy between a store and its database that looks for what commits.

That is COMMIT, and the statement of a batch that is written by a single one: it is known by its text, and from then on
by the name under which it was prepared.

It cuts the connection that commits, or lets everything stand still from a COMMIT on: for the database that is a process
that was suspended there, for the process a database that does not answer.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import Enum
from urllib.parse import urlsplit

COMMIT = b"COMMIT\0"
PREPARES_A_BATCH = re.compile(rb"(\w+)\0WITH fence AS ")


class Cut(Enum):
    """Where a connection is cut, or held up, that commits."""

    NEVER = "never"
    BEFORE_COMMIT_ARRIVES = "before COMMIT arrives"
    BEFORE_ITS_ANSWER = "before its answer"


class Proxy:
    """Passes everything on, until it is told to cut.

    Args:
        url: The database behind it.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None and parts.port is not None
        self._parts = parts
        self._address = (parts.hostname, parts.port)
        self._port = 0
        self._connections: set[asyncio.Task[None]] = set()
        self.next_commit = Cut.NEVER
        """What is done to the next COMMIT; those after it pass."""
        self.next_hold = Cut.NEVER
        """Where everything is held up next, until `let_go`."""
        self.is_held = asyncio.Event()
        """Set from then on."""
        self._flows = asyncio.Event()
        self._flows.set()

    @property
    def url(self) -> str:
        """The database as seen through the proxy."""
        user, separator, _ = self._parts.netloc.rpartition("@")
        return self._parts._replace(netloc=f"{user}{separator}127.0.0.1:{self._port}").geturl()

    def let_go(self) -> None:
        """Let everything on that was held up."""
        self.is_held.clear()
        self._flows.set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Proxy]:
        """Listen for as long as the block lasts."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self._port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for connection in self._connections:
                connection.cancel()
            await asyncio.gather(*self._connections, return_exceptions=True)
            await server.wait_closed()

    async def _serve(self, from_store: asyncio.StreamReader, to_store: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        from_database, to_database = await asyncio.open_connection(*self._address)
        back = asyncio.create_task(self._pass_back(from_database, to_store))
        committing = [COMMIT]
        try:
            while data := await from_store.read(65_536):
                await self._flows.wait()
                commits = any(each in data for each in committing)
                committing += [b"\0" + name + b"\0" for name in PREPARES_A_BATCH.findall(data)]
                if commits and self.next_hold is not Cut.NEVER:
                    await self._hold()
                elif commits and self.next_commit is not Cut.NEVER:
                    await self._cut(data, to_database, back, from_database)
                    return
                to_database.write(data)
                await to_database.drain()
        except (OSError, asyncio.CancelledError):
            return
        finally:
            back.cancel()
            to_database.close()
            to_store.close()
            self._connections.discard(task)

    async def _hold(self) -> None:
        hold, self.next_hold = self.next_hold, Cut.NEVER
        self._flows.clear()
        self.is_held.set()
        if hold is Cut.BEFORE_COMMIT_ARRIVES:
            await self._flows.wait()

    async def _cut(
        self,
        data: bytes,
        to_database: asyncio.StreamWriter,
        back: asyncio.Task[None],
        from_database: asyncio.StreamReader,
    ) -> None:
        cut, self.next_commit = self.next_commit, Cut.NEVER
        if cut is Cut.BEFORE_ITS_ANSWER:
            back.cancel()
            await asyncio.gather(back, return_exceptions=True)
            to_database.write(data)
            await from_database.read(65_536)

    async def _pass_back(self, from_database: asyncio.StreamReader, to_store: asyncio.StreamWriter) -> None:
        try:
            while data := await from_database.read(65_536):
                await self._flows.wait()
                to_store.write(data)
                await to_store.drain()
            await self._flows.wait()
            to_store.close()
        except OSError:
            return
