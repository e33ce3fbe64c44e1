"""How PostgreSQL writes the schema: the one place for what differs from other databases in it."""

from __future__ import annotations

from collections.abc import Mapping

from perdure.server.store.schema import Column, ColumnType, Table

TYPE_NAMES: Mapping[ColumnType, str] = {
    ColumnType.TEXT: "text",
    ColumnType.INTEGER: "bigint",
    ColumnType.BOOLEAN: "boolean",
    ColumnType.BYTES: "bytea",
}

_BY_CODE_POINT = ' COLLATE "C"'
"""Pages and ranges of text follow the order of code points, whatever language the database was made for."""


class PostgresViewDialect:
    """The expressions of views."""

    def utc(self, column: str) -> str:
        """Return an expression for UTC text with milliseconds, in whole numbers: a float would round some of them."""
        return (
            f"to_char(timestamp '1970-01-01' + {column} / 1000000 * interval '1 millisecond',"
            """ 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')"""
        )


def create_table(table: Table) -> str:
    """Return the statement that makes a table."""
    columns = ", ".join(map(_column, table.columns))
    return f"CREATE TABLE {table.name} ({columns}, PRIMARY KEY ({', '.join(table.primary_key)}))"


def _column(column: Column) -> str:
    collation = _BY_CODE_POINT if column.type is ColumnType.TEXT else ""
    return f"{column.name} {TYPE_NAMES[column.type]}{collation}{'' if column.nullable else ' NOT NULL'}"
