"""A network that fails at will: a TCP proxy between a store and its database that looks for COMMIT."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import Enum
from urllib.parse import urlsplit

COMMIT = b"COMMIT\0"


class Cut(Enum):
    """Where a connection is cut that commits."""

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

    @property
    def url(self) -> str:
        """The database as seen through the proxy."""
        user, separator, _ = self._parts.netloc.rpartition("@")
        return self._parts._replace(netloc=f"{user}{separator}127.0.0.1:{self._port}").geturl()

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
        back = asyncio.create_task(_pass_on(from_database, to_store))
        try:
            while data := await from_store.read(65_536):
                if COMMIT in data and self.next_commit is not Cut.NEVER:
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


async def _pass_on(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    try:
        while data := await source.read(65_536):
            target.write(data)
            await target.drain()
        target.close()
    except OSError:
        return
