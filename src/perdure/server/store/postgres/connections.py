"""Connections and what they are set to: those that write, one job at a time, and pools that read.

Each is made anew when it is needed and the last one was lost, so a database that was away is found again by itself. Hot
sessions are kept from plans that read whole tables: statistics of a young table would recommend one, and it would stay
in use while the table grows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Protocol, TypeAlias, TypeVar

import asyncpg
import msgspec

from perdure.server.store.interface import CommitUnknown, StoreError, StoreUnavailable
from perdure.server.store.postgres.dialect import POSTGRES, PostgresDialect
from perdure.server.store.postgres.errors import FAILURES, is_lost_connection, leaves_connection_usable, map_error
from perdure.server.store.postgres.transactions import retried
from perdure.server.store.settings import PostgresSettings

T = TypeVar("T")

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Job: TypeAlias = Callable[[Connection], Awaitable[T]]

_CACHED_STATEMENTS: Final = 256
_NETWORK_SECONDS: Final = 5.0
"""How long after its own time limit the database may take to say so."""

_SHORTEST_LEASE_SECONDS: Final = 1.0
"""Below this a renewal could not be told from one that takes its time."""


class Reader(Protocol):
    """What a query needs."""

    async def fetch(self, query: str, *arguments: object) -> list[asyncpg.Record]:
        """Return the rows of a query."""


class Session(Reader, Protocol):
    """What a statement of a batch needs."""

    async def execute(self, query: str, *arguments: object) -> str:
        """Execute a statement and return its tag, which ends in how many rows it changed."""


def writing_session(
    settings: PostgresSettings, dialect: PostgresDialect = POSTGRES, name: str = "perdure writer"
) -> dict[str, str]:
    """Return what the session is set to that writes batches, or whatever else it is named for."""
    return {
        "application_name": name,
        "idle_in_transaction_session_timeout": _milliseconds(settings.idle_transaction_timeout_seconds),
        **_limits(settings),
        **dialect.writing,
        **dialect.by_index,
    }


def reading_session(settings: PostgresSettings, dialect: PostgresDialect = POSTGRES) -> dict[str, str]:
    """Return what a session is set to that reads for the engine."""
    return {
        "application_name": "perdure reader",
        "default_transaction_read_only": "on",
        **_limits(settings),
        **dialect.by_index,
    }


def listing_session(settings: PostgresSettings, dialect: PostgresDialect = POSTGRES) -> dict[str, str]:
    """Return what a session is set to that lists and counts: there a scan may be the best plan."""
    return {
        "application_name": "perdure lister",
        "default_transaction_read_only": "on",
        **_limits(settings),
        **dialect.listing,
    }


def _limits(settings: PostgresSettings) -> dict[str, str]:
    return {
        "statement_timeout": _milliseconds(settings.statement_timeout_seconds),
        "lock_timeout": _milliseconds(settings.lock_timeout_seconds),
    }


def _milliseconds(seconds: float) -> str:
    return str(max(1, round(seconds * 1_000)))


class Writer:
    """A connection that writes: jobs run on it one after the other, each to its end, whoever gave up waiting.

    Args:
        url: The database.
        settings: Sizes and times.
        dialect: Which kind of database it is.
        name: What the database shows of it.
        network_seconds: How long after its own time limit the database may take to say so.
    """

    def __init__(
        self,
        url: str,
        settings: PostgresSettings,
        dialect: PostgresDialect,
        *,
        name: str = "perdure writer",
        network_seconds: float = _NETWORK_SECONDS,
    ) -> None:
        self._dialect = dialect
        self._url = dialect.dsn(url)
        self._settings = settings
        self._network_seconds = network_seconds
        self._session = writing_session(settings, dialect, name)
        self._connection: Connection | None = None
        self._turn = asyncio.Lock()
        self._jobs: set[asyncio.Task[object]] = set()
        self._is_open = False

    async def open(self, job: Job[None] | None = None) -> None:
        """Let jobs begin; with a first one, connect and do it. Raises what it raises, as a store error."""
        self._is_open = True
        if job is None:
            return
        try:
            await self.run(job)
        except BaseException:
            await self.close()
            raise

    async def run(self, job: Job[T]) -> T:
        """Do a job, which limits its own time, after those before it; PostgreSQL's errors come as store errors."""
        if not self._is_open:
            raise StoreUnavailable("The store is not open.")
        task = asyncio.create_task(self._do(job), name="write")
        self._jobs.add(task)
        task.add_done_callback(self._done)
        return await asyncio.shield(task)

    async def ask(self, job: Job[T]) -> T:
        """Do a job of a single statement, in the time that one may take; again, if the database gave it up."""

        async def limited(connection: Connection) -> T:
            try:
                async with asyncio.timeout(self._settings.statement_timeout_seconds + self._network_seconds):
                    return await retried(lambda: job(connection), self._settings.transaction_attempts)
            except TimeoutError:
                connection.terminate()
                raise

        return await self.run(limited)

    async def close(self) -> None:
        """Do the jobs that are waiting, then disconnect."""
        self._is_open = False
        await asyncio.gather(*self._jobs, return_exceptions=True)
        if self._connection is not None:
            await _close(self._connection)
            self._connection = None

    def _done(self, task: asyncio.Task[object]) -> None:
        self._jobs.discard(task)
        if not task.cancelled():
            # Whoever waited may have gone: then nobody reads the exception, and that is no mistake.
            task.exception()

    async def _do(self, job: Job[T]) -> T:
        async with self._turn:
            try:
                connection = await self._connected()
                try:
                    return await job(connection)
                except BaseException as error:
                    ours = isinstance(error, StoreError) and not isinstance(error, CommitUnknown)
                    usable = ours or leaves_connection_usable(error)
                    if not usable or connection.is_closed() or connection.is_in_transaction():
                        self._connection = None
                        connection.terminate()
                    raise
            except StoreError:
                raise
            except FAILURES as error:
                raise map_error(error) from error

    async def _connected(self) -> Connection:
        if self._connection is None or self._connection.is_closed():
            self._connection = await asyncpg.connect(
                self._url,
                timeout=self._settings.connect_timeout_seconds,
                statement_cache_size=_CACHED_STATEMENTS,
                max_cached_statement_lifetime=0,
                server_settings=self._session,
                target_session_attrs=self._dialect.which_server,
                connection_class=self._dialect.connection_class,
            )
        return self._connection


def keeper(url: str, settings: PostgresSettings, dialect: PostgresDialect, lease_seconds: float) -> Writer:
    """Return the connection that renews a lease: within a third of it, connecting included, it has or it gives up."""
    third = max(lease_seconds, _SHORTEST_LEASE_SECONDS) / 3
    hasty = msgspec.structs.replace(
        settings,
        connect_timeout_seconds=third / 2,
        statement_timeout_seconds=third / 3,
        lock_timeout_seconds=third / 3,
    )
    return Writer(url, hasty, dialect, name="perdure keeper", network_seconds=third / 6)


class Readers:
    """A pool of connections that read.

    Args:
        url: The database.
        settings: Sizes and times.
        dialect: Which kind of database it is.
        session: What each connection is set to.
        most: Most connections at the same time.
    """

    def __init__(
        self, url: str, settings: PostgresSettings, dialect: PostgresDialect, session: dict[str, str], most: int
    ) -> None:
        self._dialect = dialect
        self._url = dialect.dsn(url)
        self._settings = settings
        self._session = session
        self._most = most
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None

    async def open(self) -> None:
        """Make the pool; its connections are made when they are needed."""
        self._pool = await asyncpg.create_pool(
            self._url,
            min_size=0,
            max_size=self._most,
            timeout=self._settings.connect_timeout_seconds,
            command_timeout=self._settings.statement_timeout_seconds + _NETWORK_SECONDS,
            statement_cache_size=_CACHED_STATEMENTS,
            max_cached_statement_lifetime=0,
            server_settings=self._session,
            target_session_attrs=self._dialect.which_server,
            connection_class=self._dialect.connection_class,
            reset=_leave_as_it_is,
        )

    async def close(self) -> None:
        """Let queries end, then disconnect; closing twice does nothing."""
        pool, self._pool = self._pool, None
        if pool is not None:
            try:
                async with asyncio.timeout(self._settings.statement_timeout_seconds):
                    await pool.close()
            except FAILURES:
                pool.terminate()

    async def fetch(self, query: str, *arguments: object) -> list[asyncpg.Record]:
        """Return the rows of a query; PostgreSQL's errors come as store errors.

        A connection that was lost unnoticed, as by a restart of the database, is no reason to fail: reading again on a
        new one does no harm. Nor is a query that the database gave up.
        """
        attempts = self._settings.transaction_attempts
        try:
            try:
                return await retried(lambda: self._fetch(query, arguments), attempts)
            except FAILURES as error:
                if not is_lost_connection(error):
                    raise
            return await retried(lambda: self._fetch(query, arguments), attempts)
        except FAILURES as error:
            raise map_error(error) from error

    async def _fetch(self, query: str, arguments: tuple[object, ...]) -> list[asyncpg.Record]:
        if self._pool is None:
            raise StoreUnavailable("The store is not open.")
        async with self._pool.acquire(timeout=self._settings.connect_timeout_seconds) as connection:
            try:
                return await connection.fetch(query, *arguments)
            except BaseException as error:
                if not leaves_connection_usable(error):
                    connection.terminate()
                raise


async def _leave_as_it_is(connection: object) -> None:
    """Reset nothing: queries here leave nothing behind, and a reset would cost each a round trip."""


async def _close(connection: Connection) -> None:
    try:
        await connection.close(timeout=_NETWORK_SECONDS)
    except FAILURES:
        connection.terminate()
