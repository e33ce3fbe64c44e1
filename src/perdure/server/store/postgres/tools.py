"""A PostgreSQL database, or one that speaks its protocol, for the tools.

One connection, without time limits for what reads everything.
"""

# ruff: noqa: S608 - texts are made of the names in the schema.

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Final, TypeVar, cast

import asyncpg
from asyncpg.connect_utils import SessionAttribute

from perdure.server.store.interface import StoreMismatch
from perdure.server.store.postgres import catalog, members
from perdure.server.store.postgres.bulk import columns_of, insert
from perdure.server.store.postgres.connections import reading_session, writing_session
from perdure.server.store.postgres.dialect import POSTGRES, TYPE_NAMES, PostgresDialect
from perdure.server.store.postgres.errors import FAILURES, map_error
from perdure.server.store.postgres.listings import numbered
from perdure.server.store.postgres.migrations import check_server, migrate
from perdure.server.store.postgres.transactions import in_transaction, retried
from perdure.server.store.schema import MEMBER, META, SHARD, ColumnType, Index, Table
from perdure.server.store.settings import PostgresSettings
from perdure.server.store.tools.interface import (
    DEFAULT_LIMITS,
    Access,
    CatalogIndex,
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

T = TypeVar("T")

_COUNTED_ROWS: Final = 100_000
"""Above so many rows a table is not counted."""

_FAREWELL_SECONDS: Final = 5.0

_OF_TOOLS: Final = {
    "application_name": "perdure tools",
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
}
"""What reads a whole database takes what it takes, and nobody waits for it."""

_PATIENT: Final = PostgresSettings(statement_timeout_seconds=3_600.0, transaction_attempts=100)
"""What a tool does in one transaction takes what it takes, too; nobody waits for it."""


class PostgresDatabase:
    """A PostgreSQL database.

    Args:
        url: As `PostgresStore` takes it.
        shown: What people may see of it.
        limits: Of a page.
        dialect: Which kind of database it is.
    """

    def __init__(
        self, url: str, shown: str, limits: PageLimits = DEFAULT_LIMITS, dialect: PostgresDialect = POSTGRES
    ) -> None:
        self._url = dialect.dsn(url)
        self._dialect = dialect
        self._snapshot = dialect.tools.snapshot
        self._is_at_work = False
        self._limits = limits
        self._shown = shown
        self._opened: Connection | None = None

    @property
    def shown(self) -> str:
        """See `Database.shown`."""
        return self._shown

    @property
    def column_types(self) -> Mapping[ColumnType, str]:
        """See `Database.column_types`."""
        collation = self._dialect.by_code_point()
        return {kind: f"{name}{collation}" if kind is ColumnType.TEXT else name for kind, name in TYPE_NAMES.items()}

    @property
    def makes_schema_at_once(self) -> bool:
        """See `Database.makes_schema_at_once`."""
        return self._dialect.changes_schema_at_once

    @property
    def _connection(self) -> Connection:
        assert self._opened is not None, "open the database before using it"
        return self._opened

    async def open(self, access: Access) -> None:
        """See `Database.open`."""
        reads = access in (Access.READ, Access.COPY_FROM)
        queries = self._dialect.tools
        self._snapshot = queries.snapshot_beside_writers if access is Access.READ else queries.snapshot
        try:
            await self._enter(reads=reads)
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

    async def _enter(self, *, reads: bool) -> None:
        """Connect; raise ToolError where no server of ours would start, before what is asked fails in other words."""
        self._opened = await self._connect(reads=reads)
        try:
            await check_server(self._connection, self._dialect)
        except StoreMismatch as error:
            raise ToolError(f"{self._shown}: {error}") from error

    async def _connect(self, *, reads: bool) -> Connection:
        settings, dialect = PostgresSettings(), self._dialect
        session = reading_session(settings, dialect) if reads else writing_session(settings, dialect)
        try:
            return await asyncpg.connect(
                self._url,
                timeout=settings.connect_timeout_seconds,
                server_settings={**session, **_OF_TOOLS},
                target_session_attrs=SessionAttribute.any if reads else dialect.which_server,
                connection_class=dialect.connection_class,
            )
        except FAILURES as error:
            raise Unreachable(f"{self._shown} cannot be reached: {_reason(error, dialect.scheme)}") from error

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
        await self.execute(self._snapshot)
        # The transaction sees what is there at its first query.
        await self.fetch("SELECT 1")

    async def fetch(self, query: str, *parameters: Value) -> Sequence[Row]:
        """See `Database.fetch`."""
        with self._store_errors():
            rows = await self._persistently(lambda: self._connection.fetch(numbered(query), *parameters))
            return [tuple(row) for row in rows]

    async def execute(self, statement: str, *parameters: Value) -> int:
        """See `Database.execute`."""
        with self._store_errors():
            status = await self._persistently(lambda: self._connection.execute(numbered(statement), *parameters))
        count = status.rpartition(" ")[2]
        return int(count) if count.isdigit() else 0

    async def _persistently(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask; ask again what is a transaction of its own, where the database gave it up."""
        if self._connection.is_in_transaction():
            return await ask()
        return await retried(ask, _PATIENT.transaction_attempts)

    async def transact(self, work: Callable[[], Awaitable[T]]) -> T:
        """See `Database.transact`."""
        with self._store_errors():
            self._is_at_work = True
            try:
                return await in_transaction(self._connection, work, _PATIENT)
            finally:
                self._is_at_work = False

    @contextmanager
    def _store_errors(self) -> Iterator[None]:
        """Raise store errors; but within a transaction what the database says, which tells whether to begin it anew."""
        try:
            yield
        except asyncpg.InsufficientPrivilegeError as error:
            raise ToolError(
                f"The role lacks a right: {error}. A superuser can GRANT it, or the owner: of a schema USAGE and CREATE"
                " on it, of a table what the tables are asked for."
            ) from error
        except FAILURES as error:
            if self._is_at_work:
                raise
            raise map_error(error) from error

    async def read_page(self, table: Table, after: Row | None) -> list[Row]:
        """See `Database.read_page`."""
        rows = await self.fetch(_page_query(table, after is not None), *(after or ()), *self._limits)
        return list(rows)

    async def insert(self, table: Table, rows: Sequence[Row]) -> None:
        """See `Database.insert`."""
        with self._store_errors():
            await self._connection.execute(_insert(table), *columns_of(rows))

    # --- what it says of itself -----------------------------------------------------------------------------------

    async def product(self) -> str:
        """See `Database.product`."""
        [(version,)] = await self.fetch("SELECT version()")
        return re.split(r",| \(| on ", str(version), maxsplit=1)[0]

    async def migrate(self) -> None:
        """See `Database.migrate`."""
        with self._store_errors():
            await migrate(self._connection, dialect=self._dialect)
        if self._connection.is_closed():
            self._opened = await self._connect(reads=False)

    def create_index(self, table: Table, index: Index) -> str:
        """See `Database.create_index`."""
        return self._dialect.create_index(table, index)

    def catalog_index(self, index: Index) -> CatalogIndex:
        """See `Database.catalog_index`."""
        is_split = index.rises and self._dialect.splits_indexes
        return CatalogIndex(index.columns, index.unique, index.where, is_split=is_split)

    async def tables(self) -> Mapping[str, CatalogTable]:
        """See `Database.tables`."""
        return await catalog.read_tables(self, self._dialect.tools)

    async def wrong_views(self) -> Mapping[str, str]:
        """See `Database.wrong_views`."""
        with self._store_errors():
            return await catalog.wrong_views(self._connection, self._dialect)

    async def table_size(self, table: Table) -> TableSize:
        """See `Database.table_size`."""
        [(rows,)] = await self.fetch(f"SELECT count(*) FROM (SELECT 1 FROM {table.name} LIMIT {_COUNTED_ROWS}) AS head")
        found = await self.fetch(self._dialect.tools.size, table.name)
        [(size, estimate)] = cast("Sequence[tuple[int | None, int | None]]", found)
        assert isinstance(rows, int)
        return TableSize(max(rows, estimate or 0) if rows == _COUNTED_ROWS else rows, rows == _COUNTED_ROWS, size)

    async def total_bytes(self) -> int | None:
        """See `Database.total_bytes`. What is not ours in the same database is in it."""
        if self._dialect.tools.total_bytes is None:
            return None
        [(size,)] = await self.fetch(self._dialect.tools.total_bytes)
        assert isinstance(size, int)
        return size

    async def servers(self) -> list[str]:
        """See `Database.servers`."""
        try:
            await self._enter(reads=True)
            return await self._servers()
        finally:
            await self.close()

    async def _servers(self) -> list[str]:
        writers = self._dialect.tools.writers
        sessions = [] if writers is None else [str(line) for (line,) in await self.fetch(writers)]
        if not await self._has_members():
            return sessions
        with self._store_errors():
            view = await self._persistently(lambda: members.read_view(self._connection))
        alive = [member for member in view.members if member.is_alive]
        return [f"node {member.node} of release {member.release}, whose lease runs" for member in alive] + sessions

    async def _has_members(self) -> bool:
        """Whether the schema is as far made, and as new, that there may be members."""
        tables = {str(name) for (name,) in await self.fetch(self._dialect.table_names)}
        if not {META.name, MEMBER.name, SHARD.name} <= tables:
            return False
        return bool(await self.fetch("SELECT 1 FROM meta WHERE name = 'cluster_version'"))

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


def _reason(error: Exception, scheme: str) -> str:
    advice = ""
    if isinstance(error, asyncpg.PostgresError):
        advice = _ADVICE.get(error.sqlstate or "", "")
    elif isinstance(error, TimeoutError):
        return "it did not answer in time; does it run, and is the way to it open?"
    elif isinstance(error, OSError):
        advice = "does it run, and are host and port the right ones?"
    elif isinstance(error, ValueError):
        advice = f"write {scheme}://user:password@host:port/database"
    return f"{error}{': ' if advice else ''}{advice}"


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
        f" WHERE position_ = 1 OR total_ <= ?::bigint ORDER BY {key}"
    )


@cache
def _insert(table: Table) -> str:
    return insert(table).of_many()
