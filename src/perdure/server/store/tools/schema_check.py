"""Whether a database has the tables, columns and indexes that this release makes. Pure: two descriptions are compared.

What is there besides does no harm, except where it makes a batch fail or changes what it writes: a column that must be
filled, a trigger, a unique index.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from perdure.server.store.schema import ColumnType, Table
from perdure.server.store.tools.interface import CatalogColumn, CatalogIndex, CatalogTable, Database
from perdure.server.store.tools.problem import Problem

_BY_HAND = "The schema was changed by hand. Undo that, or copy the data into a new database with `perdure db copy`."


def schema_problems(
    expected: Sequence[Table], found: Mapping[str, CatalogTable], database: Database
) -> Iterator[Problem]:
    """Yield what is not as it should be.

    Args:
        expected: The tables of this release.
        found: The tables of the database.
        database: Says how its catalog names types and describes indexes; nothing is asked of it.
    """
    for table in expected:
        there = found.get(table.name)
        if there is None:
            yield Problem(f"table {table.name}", "is missing", "Restore a backup that has it.", is_fatal=True)
            continue
        yield from _column_problems(table, there, database.column_types)
        yield from _index_problems(table, there, database)
        for trigger in there.triggers:
            yield Problem(f"table {table.name}", f"has a trigger {trigger}, which runs within every batch", _BY_HAND)
    for name in sorted(found.keys() - {table.name for table in expected}):
        yield Problem(f"table {name}", "is none of Perdure's", "Move it to a database or schema of its own.")


def _column_problems(table: Table, there: CatalogTable, types: Mapping[ColumnType, str]) -> Iterator[Problem]:
    where = f"table {table.name}"
    if there.primary_key != table.primary_key:
        key = ", ".join(there.primary_key) or "none"
        yield Problem(where, f"has the primary key {key}, not {', '.join(table.primary_key)}", _BY_HAND)
    for column in table.columns:
        is_there = there.columns.get(column.name)
        if is_there is None:
            yield Problem(where, f"has no column {column.name}", "Restore a backup that has it.", is_fatal=True)
        elif is_there.type != types[column.type]:
            yield Problem(where, f"column {column.name} is {is_there.type}, not {types[column.type]}", _BY_HAND)
        elif is_there.nullable != column.nullable:
            differs = "must be filled here, and may be empty" if column.nullable else "may be empty here, and must not"
            yield Problem(where, f"column {column.name} {differs}", _BY_HAND)
    for name, extra in there.columns.items():
        if name not in table.column_names and _must_be_filled(extra):
            yield Problem(where, f"has a column {name} that no server fills, and that must not be empty", _BY_HAND)


def _must_be_filled(column: CatalogColumn) -> bool:
    return not column.nullable and not column.has_default


def _index_problems(table: Table, there: CatalogTable, database: Database) -> Iterator[Problem]:
    for index in table.indexes:
        found = there.indexes.get(index.name)
        meant = database.catalog_index(index)
        make = f"{database.create_index(table, index)};"
        where = f"index {index.name}"
        if found is None:
            yield Problem(where, "is missing: what it serves reads whole tables", f"Make it: {make}")
        elif not found.is_valid:
            yield Problem(where, "is not valid: making it was interrupted", f"DROP INDEX {index.name}; {make}")
        elif found != meant:
            yield Problem(
                where, f"is over {_described(found)}, not {_described(meant)}", f"DROP INDEX {index.name}; {make}"
            )
    known = {index.name for index in table.indexes}
    for name, extra in there.indexes.items():
        if name not in known and extra.unique:
            yield Problem(
                f"index {name}", "is none of Perdure's and refuses rows that are right", f"DROP INDEX {name};"
            )


def _described(index: CatalogIndex) -> str:
    unique = "unique " if index.unique else ""
    split = " split by a hash" if index.is_split else ""
    where = f" where {index.where}" if index.where else ""
    return f"{unique}({', '.join(index.columns)}){split}{where}"
