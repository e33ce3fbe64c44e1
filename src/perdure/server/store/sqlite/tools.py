"""An SQLite file for the tools. They have the process for themselves, so nothing here needs a thread of its own.

Who must be alone takes the lock of servers, and then the file in SQLite's exclusive locking mode. That is refused while
any other process has the file open, a shell too, and keeps others out until it is closed.
"""

# ruff: noqa: S608 - texts are made of the names in the schema.

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from typing import Final, TypeVar

from perdure.server.store.definitions import create_index, create_view
from perdure.server.store.interface import StoreError
from perdure.server.store.schema import ColumnType, Index, Table
from perdure.server.store.sqlite.adapters import register_adapters
from perdure.server.store.sqlite.dialect import TYPE_NAMES, SqliteViewDialect
from perdure.server.store.sqlite.errors import map_error
from perdure.server.store.sqlite.lock import FileHeld, FileLock
from perdure.server.store.sqlite.migrations import migrate
from perdure.server.store.tools.interface import (
    DEFAULT_LIMITS,
    Access,
    CatalogColumn,
    CatalogIndex,
    CatalogTable,
    PageLimits,
    Row,
    TableSize,
    ToolError,
    Unreachable,
    Value,
)
from perdure.server.store.views import views

T = TypeVar("T")

_COUNTED_ROWS: Final = 100_000
"""Above so many rows a table is not counted."""
_FINDINGS: Final = 100
_BUSY_MILLISECONDS: Final = 5_000

_USERS_TABLES = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
_TRIGGERS = "SELECT name FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = ? ORDER BY name"


class SqliteDatabase:
    """An SQLite file.

    Args:
        path: Where it is.
        limits: Of a page.
    """

    column_types: Mapping[ColumnType, str] = TYPE_NAMES
    makes_schema_at_once = True

    def __init__(self, path: str, limits: PageLimits = DEFAULT_LIMITS) -> None:
        self._path = path
        self._limits = limits
        self._lock = FileLock(path)
        self._opened: sqlite3.Connection | None = None

    @property
    def shown(self) -> str:
        """See `Database.shown`."""
        return self._path

    @property
    def _connection(self) -> sqlite3.Connection:
        assert self._opened is not None, "open the database before using it"
        return self._opened

    async def open(self, access: Access) -> None:
        """See `Database.open`."""
        makes_file = access in (Access.MIGRATE, Access.COPY_INTO)
        _require_place(self._path, makes_file=makes_file)
        if access in (Access.COPY_FROM, Access.COPY_INTO):
            await self._keep_servers_out()
        await self._open(access, makes_file=makes_file)

    async def _open(self, access: Access, *, makes_file: bool) -> None:
        register_adapters()
        try:
            self._opened = _connect(self._path, makes_file=makes_file)
            self._set_up(access)
        except sqlite3.Error as error:
            await self.close()
            raise _unreachable(self._path, error, access) from error

    async def _keep_servers_out(self) -> None:
        """Hold the lock that a server holds, so that either names the other."""
        try:
            await self._lock.acquire(0)
        except FileHeld as error:
            raise ToolError(f"{error}.") from error
        except StoreError as error:
            raise Unreachable(f"{error}.") from error

    def _set_up(self, access: Access) -> None:
        execute = self._connection.execute
        if access in (Access.COPY_FROM, Access.COPY_INTO):
            execute("PRAGMA busy_timeout = 0")
            execute("PRAGMA locking_mode = exclusive").fetchall()
            execute("BEGIN EXCLUSIVE")
            execute("COMMIT")
        execute(f"PRAGMA busy_timeout = {_BUSY_MILLISECONDS}")
        execute("PRAGMA synchronous = full")
        if access in (Access.MIGRATE, Access.COPY_INTO):
            # Says whether it is a database. The journal's mode waits until `migrate` has not refused it.
            self._read()
            return
        execute("PRAGMA query_only = on")
        self._begin_to_read()

    def _begin_to_read(self) -> None:
        self._connection.execute("BEGIN")
        # The transaction sees what is there at its first read.
        self._read()

    def _read(self) -> None:
        self._connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()

    async def refresh(self) -> None:
        """See `Database.refresh`."""
        with _store_errors():
            self._connection.execute("COMMIT")
            self._begin_to_read()

    async def close(self) -> None:
        """See `Database.close`."""
        connection, self._opened = self._opened, None
        if connection is not None:
            connection.close()
        self._lock.release()

    async def fetch(self, query: str, *parameters: Value) -> Sequence[Row]:
        """See `Database.fetch`."""
        with _store_errors():
            return self._connection.execute(query, parameters).fetchall()

    async def execute(self, statement: str, *parameters: Value) -> int:
        """See `Database.execute`."""
        with _store_errors():
            return self._connection.execute(statement, parameters).rowcount

    async def transact(self, work: Callable[[], Awaitable[T]]) -> T:
        """See `Database.transact`."""
        await self.execute("BEGIN IMMEDIATE")
        try:
            result = await work()
            await self.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                await self.execute("ROLLBACK")
            raise
        return result

    async def read_page(self, table: Table, after: Row | None) -> list[Row]:
        """See `Database.read_page`."""
        # Nothing else here ever waits, so this is where whoever interrupts the tool is heard.
        await asyncio.sleep(0)
        page: list[Row] = []
        size = 0
        booleans = [at for at, column in enumerate(table.columns) if column.type is ColumnType.BOOLEAN]
        with (
            _store_errors(),
            closing(self._connection.execute(_page_query(table, after is not None), after or ())) as rows,
        ):
            for row in rows:
                page.append(_with_booleans(row, booleans))
                size += sum(len(value) for value in row if isinstance(value, str | bytes))
                if len(page) == self._limits.rows or size >= self._limits.size_bytes:
                    break
        return page

    async def insert(self, table: Table, rows: Sequence[Row]) -> None:
        """See `Database.insert`."""
        with _store_errors():
            self._connection.executemany(_insert(table), rows)

    # --- what it says of itself -----------------------------------------------------------------------------------

    async def product(self) -> str:
        """See `Database.product`."""
        return f"SQLite {sqlite3.sqlite_version}"

    async def migrate(self) -> None:
        """See `Database.migrate`."""
        with _store_errors():
            migrate(self._connection)
            self._connection.execute("PRAGMA journal_mode = wal").fetchall()

    async def tables(self) -> Mapping[str, CatalogTable]:
        """See `Database.tables`."""
        names = [str(name) for (name,) in await self.fetch(_USERS_TABLES)]
        return {name: await self._table(name) for name in names}

    async def _table(self, name: str) -> CatalogTable:
        columns = await self.fetch('SELECT name, type, "notnull", dflt_value, pk FROM pragma_table_info(?)', name)
        in_key = sorted((int(str(place)), str(column)) for column, _, _, _, place in columns if place)
        return CatalogTable(
            {
                str(column): CatalogColumn(str(kind), not required, default is not None)
                for column, kind, required, default, _ in columns
            },
            tuple(column for _, column in in_key),
            await self._indexes(name),
            tuple(str(trigger) for (trigger,) in await self.fetch(_TRIGGERS, name)),
        )

    async def _indexes(self, table: str) -> dict[str, CatalogIndex]:
        found = await self.fetch(
            'SELECT list.name, list."unique", master.sql FROM pragma_index_list(?) AS list'
            " JOIN sqlite_schema AS master ON master.type = 'index' AND master.name = list.name"
            " WHERE list.origin = 'c'",
            table,
        )
        return {
            str(name): CatalogIndex(
                tuple(
                    str(column)
                    for (column,) in await self.fetch("SELECT name FROM pragma_index_info(?) ORDER BY seqno", name)
                ),
                bool(unique),
                str(sql).partition(" WHERE ")[2] or None,
            )
            for name, unique, sql in found
        }

    def create_index(self, table: Table, index: Index) -> str:
        """See `Database.create_index`."""
        return create_index(table, index)

    def catalog_index(self, index: Index) -> CatalogIndex:
        """See `Database.catalog_index`."""
        return CatalogIndex(index.columns, index.unique, index.where)

    async def wrong_views(self) -> Mapping[str, str]:
        """See `Database.wrong_views`."""
        rows = await self.fetch("SELECT name, sql FROM sqlite_schema WHERE type = 'view'")
        found = {str(name): _words(str(sql)) for name, sql in rows}
        return {
            view.name: "is not what this release makes" if view.name in found else "is missing"
            for view in views(SqliteViewDialect())
            if found.get(view.name) != _words(create_view(view))
        }

    async def table_size(self, table: Table) -> TableSize:
        """See `Database.table_size`."""
        [(rows,)] = await self.fetch(f"SELECT count(*) FROM (SELECT 1 FROM {table.name} LIMIT {_COUNTED_ROWS})")
        assert isinstance(rows, int)
        if rows < _COUNTED_ROWS or table.clustered:
            return TableSize(rows, rows == _COUNTED_ROWS, None)
        # Row ids count up; those of deleted rows are in it.
        [(estimate,)] = await self.fetch(f"SELECT max(rowid) FROM {table.name}")
        assert isinstance(estimate, int)
        return TableSize(estimate, is_estimate=True, size_bytes=None)

    async def total_bytes(self) -> int:
        """See `Database.total_bytes`."""
        return sum(file.stat().st_size for file in (Path(self._path), Path(f"{self._path}-wal")) if file.exists())

    async def servers(self) -> list[str]:
        """See `Database.servers`. Whoever has the file open counts, a shell too; only a server is told by its id."""
        assert self._opened is None, "our own connection would count as another's"
        try:
            _require_place(self._path, makes_file=False)
            if (holder := self._lock.holder()) is not None:
                return [f"{self._path} is in use by {holder}"]
            await self._open(Access.COPY_FROM, makes_file=False)
        except (StoreError, Unreachable) as error:
            return [f"not known: {error}"]
        except ToolError as error:
            return [str(error)]
        await self.close()
        return []

    async def damage(self) -> list[str]:
        """See `Database.damage`."""
        found: list[str] = []
        try:
            for (finding,) in self._connection.execute(f"PRAGMA integrity_check({_FINDINGS})"):
                found += [str(finding)] * (finding != "ok")
        except sqlite3.DatabaseError as error:
            # Too damaged for more to be said.
            found.append(str(error))
        return found


def _require_place(path: str, *, makes_file: bool) -> None:
    """Say what SQLite would only call a file that it is unable to open."""
    if not makes_file and not Path(path).exists():
        raise Unreachable(f"There is no file {path}. `perdure db migrate` or a server would make it.")
    if not Path(path).absolute().parent.is_dir():
        raise Unreachable(f"There is no folder for the file {path}: make it first.")


def _connect(path: str, *, makes_file: bool) -> sqlite3.Connection:
    if makes_file:
        return sqlite3.connect(path, isolation_level=None)
    return sqlite3.connect(f"{Path(path).absolute().as_uri()}?mode=rw", uri=True, isolation_level=None)


def _unreachable(path: str, error: sqlite3.Error, access: Access) -> ToolError:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return ToolError(
            f"Another process has {path} open ({error}): stop the server that runs on it, or leave the shell, and try"
            " again."
        )
    if code == sqlite3.SQLITE_NOTADB:
        return Unreachable(f"{path} is not an SQLite database.")
    if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
        wanted = "read and write" if access is not Access.READ else "read"
        return Unreachable(
            f"{path} cannot be opened ({error}). Who calls must be allowed to {wanted} it, and to make files beside it."
        )
    return Unreachable(f"{path} cannot be opened: {error}")


@contextmanager
def _store_errors() -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, UnicodeError, OverflowError, StoreError) as error:
        raise map_error(error) from error


def _words(sql: str) -> list[str]:
    """Return the words of a text, which lines broken elsewhere do not change."""
    return sql.split()


def _with_booleans(row: Row, booleans: Sequence[int]) -> Row:
    if not booleans:
        return row
    values = list(row)
    for at in booleans:
        # Whatever else is there stays as it is, for the check to find.
        if values[at] in (0, 1):
            values[at] = bool(values[at])
    return tuple(values)


@cache
def _page_query(table: Table, follows: bool) -> str:
    key = ", ".join(table.primary_key)
    condition = f" WHERE ({key}) > ({', '.join('?' * len(table.primary_key))})" if follows else ""
    return f"SELECT {', '.join(table.column_names)} FROM {table.name}{condition} ORDER BY {key}"


@cache
def _insert(table: Table) -> str:
    return f"INSERT INTO {table.name} ({', '.join(table.column_names)}) VALUES ({', '.join('?' * len(table.columns))})"
