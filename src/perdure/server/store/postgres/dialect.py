"""What PostgreSQL does in a way of its own: how the schema is written, what sessions are set to, what a server must be.

`cockroach.py` says what CockroachDB does instead. All other statements are for both, and a test holds them to what both
document.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Final

import asyncpg
from asyncpg.connect_utils import SessionAttribute

from perdure.server.store.definitions import create_index, create_view
from perdure.server.store.interface import StoreMismatch
from perdure.server.store.postgres.tool_queries import OURS, POSTGRES_TOOLS, ToolQueries
from perdure.server.store.schema import TABLES, Column, ColumnType, Index, Table
from perdure.server.store.views import View, views

if TYPE_CHECKING:
    from perdure.server.store.postgres.connections import Connection

OLDEST_POSTGRES: Final = 13

TYPE_NAMES: Mapping[ColumnType, str] = {
    ColumnType.TEXT: "text",
    ColumnType.INTEGER: "bigint",
    ColumnType.BOOLEAN: "boolean",
    ColumnType.BYTES: "bytea",
}

_PROVE_ROOM = """DO $$ BEGIN
CREATE TEMPORARY TABLE perdure_room ON COMMIT DROP AS SELECT repeat('x', 1000) FROM generate_series(1, 64);
EXCEPTION WHEN insufficient_privilege THEN NULL;
END $$"""
"""A new file takes room that no deleted row can have left. Who may not make one is not kept from serving."""


class PostgresDialect:
    """PostgreSQL 13 or newer."""

    scheme: ClassVar[str] = "postgresql"
    """What a URL begins with."""
    connection_class: ClassVar[type[asyncpg.Connection[asyncpg.Record]]] = asyncpg.Connection
    """What sessions are made of."""
    which_server: ClassVar[SessionAttribute] = SessionAttribute.primary
    """Of several servers in a URL. Never a standby: what it has not yet heard of would be missing."""
    changes_schema_at_once: ClassVar[bool] = True
    """Whether any number of changes of the schema fit into one transaction with other statements."""
    changes_tables_once: ClassVar[bool] = False
    """Whether a statement may change each table only once."""
    splits_indexes: ClassVar[bool] = False
    """Whether indexes that rise are split up."""
    writing: ClassVar[Mapping[str, str]] = {
        "synchronous_commit": "on",
        "default_transaction_isolation": "read committed",
    }
    """What the session is set to that writes batches."""
    by_index: ClassVar[Mapping[str, str]] = {
        "enable_seqscan": "off",
        "enable_bitmapscan": "off",
        "enable_hashjoin": "off",
        "enable_mergejoin": "off",
        "plan_cache_mode": "force_generic_plan",
        "jit": "off",
    }
    """What keeps hot sessions from plans that read whole tables."""
    listing: ClassVar[Mapping[str, str]] = {"jit": "off"}
    """What sessions are set to that list and count."""
    table_names: ClassVar[str] = f"SELECT relname FROM pg_class WHERE {OURS}"  # noqa: S608 - built at import.
    """The query for the tables of the schema we would use, less those that belong to an extension."""
    prove_room: ClassVar[str | None] = _PROVE_ROOM
    """What fails where the disk is full, and leaves nothing behind; None where a full server does not answer at all."""
    tools: ClassVar[ToolQueries] = POSTGRES_TOOLS
    """What the tools ask."""

    def dsn(self, url: str) -> str:
        """Return a database's URL in the form that the driver takes."""
        return url

    async def check_server(self, connection: Connection) -> None:
        """Do nothing, if this is a server we can work with. Raises StoreMismatch."""
        if hasattr(connection.get_settings(), "crdb_version"):
            raise StoreMismatch("This is CockroachDB: write cockroachdb:// instead of postgresql://.")
        version = connection.get_server_version()
        if version.major < OLDEST_POSTGRES:
            raise StoreMismatch(f"PostgreSQL {OLDEST_POSTGRES} or newer is needed; this is {version.major}.")

    def definitions(self) -> list[str]:
        """Return the statements that make the schema in a new database."""
        return [
            *(self.create_table(table) for table in TABLES),
            *(self.create_index(table, index) for table in TABLES for index in table.indexes),
            *(self.create_view(view) for view in views(self)),
        ]

    def create_table(self, table: Table) -> str:
        """Return the statement that makes a table."""
        columns = ", ".join(map(self._column, table.columns))
        return f"CREATE TABLE {table.name} ({columns}, PRIMARY KEY ({', '.join(table.primary_key)}))"

    def create_index(self, table: Table, index: Index) -> str:
        """Return the statement that makes an index."""
        return create_index(table, index)

    def create_view(self, view: View) -> str:
        """Return the statement that makes a view."""
        return create_view(view)

    def utc(self, column: str) -> str:
        """Return an expression for UTC text with milliseconds, in whole numbers: a float would round some of them."""
        return (
            f"to_char(timestamp '1970-01-01' + {column} / 1000000 * interval '1 millisecond',"
            """ 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')"""
        )

    def by_code_point(self) -> str:
        """Return what makes a column of text compare by code point, whatever language the database was made for."""
        return ' COLLATE "C"'

    def _column(self, column: Column) -> str:
        collation = self.by_code_point() if column.type is ColumnType.TEXT else ""
        return f"{column.name} {TYPE_NAMES[column.type]}{collation}{'' if column.nullable else ' NOT NULL'}"


POSTGRES = PostgresDialect()
