"""How SQLite writes the schema: the one place for what differs from other databases in it."""

from __future__ import annotations

from collections.abc import Mapping

from perdure.server.store.schema import Column, ColumnType, Table

TYPE_NAMES: Mapping[ColumnType, str] = {
    ColumnType.TEXT: "TEXT",
    ColumnType.INTEGER: "INTEGER",
    ColumnType.BOOLEAN: "INTEGER",
    ColumnType.BYTES: "BLOB",
}


class SqliteViewDialect:
    """The expressions of views."""

    def utc(self, column: str) -> str:
        """Return an expression for UTC text with milliseconds."""
        return (
            f"strftime('%Y-%m-%dT%H:%M:%S', {column} / 1000000000, 'unixepoch')"
            f" || printf('.%03dZ', {column} / 1000000 % 1000)"
        )


def create_table(table: Table) -> str:
    """Return the statement that makes a table. STRICT has the database refuse a value of the wrong type."""
    columns = ", ".join(map(_column, table.columns))
    options = "STRICT, WITHOUT ROWID" if table.clustered else "STRICT"
    return f"CREATE TABLE {table.name} ({columns}, PRIMARY KEY ({', '.join(table.primary_key)})) {options}"


def _column(column: Column) -> str:
    return f"{column.name} {TYPE_NAMES[column.type]}{'' if column.nullable else ' NOT NULL'}"
