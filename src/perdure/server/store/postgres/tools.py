"""A PostgreSQL database for the tools: one connection, without time limits for what reads everything."""

# ruff: noqa: S608 - texts are made of the names in the schema.

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from typing import TYPE_CHECKING, Final, cast

import asyncpg
from asyncpg.connect_utils import SessionAttribute

from perdure.server.store.postgres import catalog, members
from perdure.server.store.postgres.bulk import columns_of, insert
from perdure.server.store.postgres.connections import reading_session, writing_session
from perdure.server.store.postgres.dialect import TYPE_NAMES
from perdure.server.store.postgres.errors import FAILURES, map_error
from perdure.server.store.postgres.listings import numbered
from perdure.server.store.postgres.migrations import migrate
from perdure.server.store.schema import ColumnType, Table
from perdure.server.store.settings import PostgresSettings
from perdure.server.store.tools.interface import (
    DEFAULT_LIMITS,
    Access,
    CatalogTable,
    PageLimits,
    Row,
    TableSize,
    ToolError,
    Unreachable,
    Value,
)

if TYPE_CHECKING:
    from perdure.server.store.postgres.connections import Connection

_COUNTED_ROWS: Final = 100_000
"""Above so many rows a table is not counted."""

_FAREWELL_SECONDS: Final = 5.0

_OF_TOOLS: Final = {
    "application_name": "perdure tools",
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
}
"""What reads a whole database takes what it takes, and nobody waits for it."""

_SERVERS = (
    "SELECT format('session %s from %s, which writes for a server, since %s UTC', pid,"
    " coalesce(host(client_addr), 'this machine'), to_char(backend_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI'))"
    " FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'perdure writer'"
    " ORDER BY backend_start"
)
"""The sessions that servers write through; every role may see them."""

_HAS_MEMBERS = "SELECT to_regclass('member') IS NOT NULL"

_SIZE = "SELECT pg_total_relation_size(oid), reltuples::bigint FROM pg_class WHERE oid = to_regclass(?)"


class PostgresDatabase:
    """A PostgreSQL database.

    Args:
        url: As `PostgresStore` takes it.
        shown: What people may see of it.
        limits: Of a page.
    """

    column_types: Mapping[ColumnType, str] = {
        kind: f'{name} COLLATE "C"' if kind is ColumnType.TEXT else name for kind, name in TYPE_NAMES.items()
    }

    def __init__(self, url: str, shown: str, limits: PageLimits = DEFAULT_LIMITS) -> None:
        self._url = url
        self._limits = limits
        self._shown = shown
        self._opened: Connection | None = None

    @property
    def shown(self) -> str:
        """See `Database.shown`."""
        return self._shown

    @property
    def _connection(self) -> Connection:
        assert self._opened is not None, "open the database before using it"
        return self._opened

    async def open(self, access: Access) -> None:
        """See `Database.open`."""
        reads = access in (Access.READ, Access.COPY_FROM)
        self._opened = await self._connect(reads=reads)
        try:
            if access in (Access.COPY_FROM, Access.COPY_INTO) and (others := await self._servers()):
                raise ToolError(
                    f"A server runs on {self._shown}: {'; '.join(others)}. Stop it, and keep it stopped while the"
                    " database is copied."
                )
            if reads:
                await self._begin_to_read()
        except BaseException:
            await self.close()
            raise

    async def _connect(self, *, reads: bool) -> Connection:
        settings = PostgresSettings()
        session = reading_session(settings) if reads else writing_session(settings)
        try:
            return await asyncpg.connect(
                self._url,
                timeout=settings.connect_timeout_seconds,
                server_settings={**session, **_OF_TOOLS},
                target_session_attrs=SessionAttribute.any if reads else SessionAttribute.primary,
            )
        except FAILURES as error:
            raise Unreachable(f"{self._shown} cannot be reached: {_reason(error)}") from error

    async def close(self) -> None:
        """See `Database.close`."""
        connection, self._opened = self._opened, None
        if connection is None:
            return
        try:
            # The server undoes what is not committed.
            await connection.close(timeout=_FAREWELL_SECONDS)
        except FAILURES:
            connection.terminate()

    async def refresh(self) -> None:
        """See `Database.refresh`."""
        await self.execute("COMMIT")
        await self._begin_to_read()

    async def _begin_to_read(self) -> None:
        await self.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        # The transaction sees what is there at its first query.
        await self.fetch("SELECT 1")

    async def fetch(self, query: str, *parameters: Value) -> Sequence[Row]:
        """See `Database.fetch`."""
        with _store_errors():
            return [tuple(row) for row in await self._connection.fetch(numbered(query), *parameters)]

    async def execute(self, statement: str, *parameters: Value) -> int:
        """See `Database.execute`."""
        with _store_errors():
            status = await self._connection.execute(numbered(statement), *parameters)
        count = status.rpartition(" ")[2]
        return int(count) if count.isdigit() else 0

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        """See `Database.transaction`."""
        with _store_errors():
            async with self._connection.transaction():
                yield

    async def read_page(self, table: Table, after: Row | None) -> list[Row]:
        """See `Database.read_page`."""
        rows = await self.fetch(_page_query(table, after is not None), *(after or ()), *self._limits)
        return list(rows)

    async def insert(self, table: Table, rows: Sequence[Row]) -> None:
        """See `Database.insert`."""
        with _store_errors():
            await self._connection.execute(_insert(table), *columns_of(rows))

    # --- what it says of itself -----------------------------------------------------------------------------------

    async def product(self) -> str:
        """See `Database.product`."""
        [(version,)] = await self.fetch("SELECT version()")
        return " ".join(str(version).split()[:2]).rstrip(",")

    async def migrate(self) -> None:
        """See `Database.migrate`."""
        with _store_errors():
            await migrate(self._connection)

    async def tables(self) -> Mapping[str, CatalogTable]:
        """See `Database.tables`."""
        return await catalog.read_tables(self)

    async def wrong_views(self) -> Mapping[str, str]:
        """See `Database.wrong_views`."""
        with _store_errors():
            return await catalog.wrong_views(self._connection)

    async def table_size(self, table: Table) -> TableSize:
        """See `Database.table_size`."""
        [(rows,)] = await self.fetch(f"SELECT count(*) FROM (SELECT 1 FROM {table.name} LIMIT {_COUNTED_ROWS}) AS head")
        [(size, estimate)] = cast("Sequence[tuple[int, int]]", await self.fetch(_SIZE, table.name))
        assert isinstance(rows, int)
        return TableSize(max(rows, estimate) if rows == _COUNTED_ROWS else rows, rows == _COUNTED_ROWS, size)

    async def total_bytes(self) -> int:
        """See `Database.total_bytes`. What is not ours in the same database is in it."""
        [(size,)] = await self.fetch("SELECT pg_database_size(current_database())")
        assert isinstance(size, int)
        return size

    async def servers(self) -> list[str]:
        """See `Database.servers`."""
        self._opened = await self._connect(reads=True)
        try:
            return await self._servers()
        finally:
            await self.close()

    async def _servers(self) -> list[str]:
        sessions = [str(line) for (line,) in await self.fetch(_SERVERS)]
        [(has_members,)] = await self.fetch(_HAS_MEMBERS)
        if not has_members:
            return sessions
        with _store_errors():
            view = await members.read_view(self._connection)
        alive = [member for member in view.members if member.is_alive]
        return [f"node {member.node} of release {member.release}, whose lease runs" for member in alive] + sessions

    async def damage(self) -> list[str]:
        """See `Database.damage`. PostgreSQL has a program of its own for that, which reads all its files."""
        return []


_ADVICE: Final = {
    "28P01": "give the right password, in the URL, PGPASSWORD or ~/.pgpass",
    "28000": "let the role in, in pg_hba.conf, or name another one",
    "3D000": "make the database (createdb), or name another one",
    "42501": "grant the role what it lacks: CONNECT on the database, USAGE and CREATE on the schema",
    "53300": "it has no connection left: raise max_connections, or close some",
    "57P03": "it is starting or stopping: try again in a moment",
}
"""By SQLSTATE: what would do."""


def _reason(error: Exception) -> str:
    advice = ""
    if isinstance(error, asyncpg.PostgresError):
        advice = _ADVICE.get(error.sqlstate or "", "")
    elif isinstance(error, TimeoutError):
        return "it did not answer in time; does it run, and is the way to it open?"
    elif isinstance(error, OSError):
        advice = "does it run, and are host and port the right ones?"
    elif isinstance(error, ValueError):
        advice = "write postgresql://user:password@host:port/database"
    return f"{error}{': ' if advice else ''}{advice}"


@contextmanager
def _store_errors() -> Iterator[None]:
    try:
        yield
    except asyncpg.InsufficientPrivilegeError as error:
        raise ToolError(f"The role lacks a right: {error}. A table's owner, or a superuser, can GRANT it.") from error
    except FAILURES as error:
        raise map_error(error) from error


@cache
def _page_query(table: Table, follows: bool) -> str:
    """Return a query for a page. Sizes are added up on the way, which reads no large value of its own."""
    columns = ", ".join(table.column_names)
    key = ", ".join(table.primary_key)
    sizes = [
        f"coalesce(length({column.name}), 0)"
        for column in table.columns
        if column.type in (ColumnType.TEXT, ColumnType.BYTES)
    ]
    condition = f" WHERE ({key}) > ({', '.join('?' * len(table.primary_key))})" if follows else ""
    return (
        f"SELECT {columns} FROM (SELECT {columns}, row_number() OVER rising AS position_,"
        f" sum({' + '.join(sizes) or '0'}) OVER rising AS total_"
        f" FROM (SELECT {columns} FROM {table.name}{condition} ORDER BY {key} LIMIT ?) AS head"
        f" WINDOW rising AS (ORDER BY {key} ROWS UNBOUNDED PRECEDING)) AS measured"
        f" WHERE position_ = 1 OR total_ <= ? ORDER BY {key}"
    )


@cache
def _insert(table: Table) -> str:
    return insert(table)
