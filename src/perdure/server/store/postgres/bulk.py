"""Changes of rows: of any number as one array per column, which `unnest` makes rows of again; of a few value by value.

One text serves every number of rows. Arrays cost the driver and the database more than the values in them, so few rows
have texts of their own. A change is made to be a part of a statement of several (`statements.py`): it has no effect
where its guard is false.
"""

# ruff: noqa: S608 - made of the names in the schema.

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final

from perdure.server.store.postgres.dialect import TYPE_NAMES
from perdure.server.store.rounds import Row
from perdure.server.store.schema import RUN, ColumnType, Table

ALWAYS: Final = "TRUE"
"""The guard of what is always to be done."""


class Bulk:
    """One change of a table over many rows.

    Args:
        table: What it changes.
        template: The change, with `{rows}` where its rows come from and `{guard}` in its condition.
        types: Those of the values of a row.
        key_width: How many values at the beginning of a row are its key, where only the last row of a key is to count:
            PostgreSQL refuses to replace a row that the same statement has written. 0 takes all rows.
    """

    def __init__(self, table: Table, template: str, types: Sequence[ColumnType], *, key_width: int = 0) -> None:
        self.table = table
        self._template = template
        self._types = list(types)
        self._key_width = key_width

    @property
    def width(self) -> int:
        """How many parameters it has."""
        return len(self._types)

    def of_many(self, *, first_parameter: int = 1, guard: str = ALWAYS) -> str:
        """Return the change for any number of rows, whose columns are its parameters.

        Args:
            first_parameter: From which number on its parameters count.
            guard: A condition without which it has no effect.
        """
        columns = (f"{parameter}::{name}[]" for parameter, name in self._parameters(first_parameter))
        return self._template.format(rows=f"unnest({', '.join(columns)})", guard=guard)

    def of_few(self, count: int, *, first_parameter: int = 1, guard: str = ALWAYS) -> str:
        """Return the change for so many rows, whose values are its parameters, row by row; else as `of_many`."""
        parameters = self._parameters(first_parameter, count)
        rows = (
            f"({', '.join(f'{parameter}::{name}' for parameter, name in islice(parameters, self.width))})"
            for _ in range(count)
        )
        return self._template.format(rows=f"(VALUES {', '.join(rows)})", guard=guard)

    def that_count(self, rows: Sequence[Row]) -> Sequence[Row]:
        """Return the rows that are to be given to the change."""
        if self._key_width and len(rows) > 1:
            return list({tuple(row[: self._key_width]): row for row in rows}.values())
        return rows

    def _parameters(self, first: int, rows: int = 1) -> Iterator[tuple[str, str]]:
        return ((f"${number}", TYPE_NAMES[column]) for number, column in enumerate(self._types * rows, start=first))


def columns_of(rows: Sequence[Row]) -> list[tuple[object, ...]]:
    """Turn rows into columns."""
    return list(zip(*rows, strict=True))


def insert(table: Table, *, conflict: str = "", key_width: int = 0) -> Bulk:
    """Return what inserts rows with all columns."""
    names = ", ".join(table.column_names)
    template = f"INSERT INTO {table.name} ({names}) SELECT * FROM {{rows}} AS given WHERE {{guard}}{conflict}"
    return Bulk(table, template, [column.type for column in table.columns], key_width=key_width)


def upsert(table: Table) -> Bulk:
    """Return what inserts rows, or replaces those with the same key, which are their first columns."""
    assert table.column_names[: len(table.primary_key)] == table.primary_key
    changed = ", ".join(f"{name} = excluded.{name}" for name in table.column_names if name not in table.primary_key)
    conflict = f" ON CONFLICT ({', '.join(table.primary_key)}) DO UPDATE SET {changed}"
    return insert(table, conflict=conflict, key_width=len(table.primary_key))


def delete(table: Table, key: Sequence[str], *, up_to: str | None = None) -> Bulk:
    """Return what deletes the rows with these keys or beginnings of keys.

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
    template = f"DELETE FROM {table.name} USING {{rows}} AS gone ({', '.join(names)}) WHERE {condition} AND {{guard}}"
    return Bulk(table, template, [_type_of(table, name) for name in names])


def update_runs(columns: Sequence[str]) -> Bulk:
    """Return what updates these columns of runs where they are stored in the expected version.

    Args:
        columns: The run's id and its stored version, then those that are set.
    """
    changes = ", ".join(f"{name} = changed.{name}" for name in columns[2:])
    template = (
        f"UPDATE run SET {changes} FROM {{rows}} AS changed ({', '.join(columns)})"
        " WHERE run.run_id = changed.run_id AND run.version = changed.stored_version AND {guard}"
    )
    types = [_type_of(RUN, "version" if name == "stored_version" else name) for name in columns]
    return Bulk(RUN, template, types)


def _type_of(table: Table, name: str) -> ColumnType:
    return next(column.type for column in table.columns if column.name == name)
