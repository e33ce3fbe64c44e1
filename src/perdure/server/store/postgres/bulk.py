"""Statements over any number of rows: one array per column, which `unnest` makes rows of again.

One text serves every number of rows, so each is prepared once per connection. Texts are built at import.
"""

# ruff: noqa: S608 - built at import, of the names in the schema.

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from perdure.server.store.postgres.dialect import TYPE_NAMES
from perdure.server.store.rounds import Row
from perdure.server.store.schema import RUN, ColumnType, Table

if TYPE_CHECKING:
    from perdure.server.store.postgres.connections import Session


class Bulk:
    """One statement over many rows.

    Args:
        text: The statement; its parameters are the arrays of `rows_of`.
        key_width: How many values at the beginning of a row are its key, where only the last row of a key is to count:
            PostgreSQL refuses to replace a row that the same statement has written. 0 takes all rows.
    """

    def __init__(self, text: str, *, key_width: int = 0) -> None:
        self.text = text
        self._key_width = key_width

    async def execute(self, session: Session, rows: Sequence[Row]) -> int:
        """Execute over the rows and return how many rows of the table were changed; without rows, do nothing."""
        if not rows:
            return 0
        if self._key_width and len(rows) > 1:
            rows = list({tuple(row[: self._key_width]): row for row in rows}.values())
        status = await session.execute(self.text, *columns_of(rows))
        return int(status.rpartition(" ")[2])


def columns_of(rows: Sequence[Row]) -> list[tuple[object, ...]]:
    """Turn rows into columns."""
    return list(zip(*rows, strict=True))


def rows_of(types: Sequence[ColumnType]) -> str:
    """Return the source of rows: one parameter for each column."""
    arrays = ", ".join(f"${number}::{TYPE_NAMES[column]}[]" for number, column in enumerate(types, start=1))
    return f"unnest({arrays})"


def insert(table: Table, *, conflict: str = "") -> str:
    """Return the statement that inserts rows with all columns."""
    source = rows_of([column.type for column in table.columns])
    return f"INSERT INTO {table.name} ({', '.join(table.column_names)}) SELECT * FROM {source}{conflict}"


def upsert(table: Table) -> Bulk:
    """Return the statement that inserts rows, or replaces those with the same key, which are their first columns."""
    assert table.column_names[: len(table.primary_key)] == table.primary_key
    changed = ", ".join(f"{name} = excluded.{name}" for name in table.column_names if name not in table.primary_key)
    text = insert(table, conflict=f" ON CONFLICT ({', '.join(table.primary_key)}) DO UPDATE SET {changed}")
    return Bulk(text, key_width=len(table.primary_key))


def delete(table: Table, key: Sequence[str], *, up_to: str | None = None) -> str:
    """Return the statement that deletes the rows with these keys or beginnings of keys.

    Args:
        table: From which table.
        key: The columns that are compared.
        up_to: One more column, of which the row's value must not be greater than the one given.
    """
    condition = " AND ".join(f"{table.name}.{name} = gone.{name}" for name in key)
    names = list(key)
    if up_to is not None:
        condition += f" AND {table.name}.{up_to} <= gone.{up_to}"
        names.append(up_to)
    source = rows_of([_type_of(table, name) for name in names])
    return f"DELETE FROM {table.name} USING {source} AS gone ({', '.join(names)}) WHERE {condition}"


def update_runs(columns: Sequence[str]) -> str:
    """Return the statement that updates these columns of runs where they are stored in the expected version.

    Args:
        columns: The run's id and its stored version, then those that are set.
    """
    types = [_type_of(RUN, "version" if name == "stored_version" else name) for name in columns]
    changes = ", ".join(f"{name} = changed.{name}" for name in columns[2:])
    return (
        f"UPDATE run SET {changes} FROM {rows_of(types)} AS changed ({', '.join(columns)})"
        " WHERE run.run_id = changed.run_id AND run.version = changed.stored_version"
    )


def _type_of(table: Table, name: str) -> ColumnType:
    return next(column.type for column in table.columns if column.name == name)
