"""What the database's catalog says of our schema."""

# ruff: noqa: S608 - views are named by this package.

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from perdure.server.store.postgres.dialect import PostgresDialect
from perdure.server.store.postgres.tool_queries import ToolQueries
from perdure.server.store.tools.interface import CatalogColumn, CatalogIndex, CatalogTable, Row
from perdure.server.store.views import views

if TYPE_CHECKING:
    from asyncpg import Record
    from asyncpg.prepared_stmt import PreparedStatement

    from perdure.server.store.postgres.connections import Connection


class _Asked(Protocol):
    async def fetch(self, query: str) -> Sequence[Row]:
        """Return the rows of a query."""


class _Index(NamedTuple):
    table: str
    name: str
    is_primary: bool
    is_unique: bool
    is_valid: bool
    columns: list[str]
    where: str | None
    is_split: bool


async def read_tables(database: _Asked, queries: ToolQueries) -> Mapping[str, CatalogTable]:
    """Return the tables of the schema, less those that belong to an extension."""
    columns: defaultdict[str, dict[str, CatalogColumn]] = defaultdict(dict)
    for table, name, kind, nullable, has_default in await database.fetch(queries.columns):
        columns[str(table)][str(name)] = CatalogColumn(str(kind), bool(nullable), bool(has_default))
    keys: dict[str, tuple[str, ...]] = {}
    indexes: defaultdict[str, dict[str, CatalogIndex]] = defaultdict(dict)
    for row in await database.fetch(queries.indexes):
        index = _Index._make(row)
        if index.is_primary:
            keys[index.table] = tuple(index.columns)
        else:
            where = None if index.where is None else _plain(index.where)
            indexes[index.table][index.name] = CatalogIndex(
                tuple(index.columns), index.is_unique, where, index.is_valid, index.is_split
            )
    triggers: defaultdict[str, list[str]] = defaultdict(list)
    for table, name in await database.fetch(queries.triggers) if queries.triggers else ():
        triggers[str(table)].append(str(name))
    return {
        table: CatalogTable(found, keys.get(table, ()), indexes[table], tuple(triggers[table]))
        for table, found in columns.items()
    }


def _plain(condition: str) -> str:
    """Take away the parentheses that databases put around a condition."""
    return condition[1:-1] if condition.startswith("(") and condition.endswith(")") else condition


async def wrong_views(connection: Connection, dialect: PostgresDialect) -> Mapping[str, str]:
    """Return what is wrong with this release's views. Their columns are compared: no view's text is kept as it was."""
    present = {name for (name,) in await connection.fetch(dialect.tools.views)}
    wrong: dict[str, str] = {}
    for view in views(dialect):
        if view.name not in present:
            wrong[view.name] = "is missing"
            continue
        # Views read others: with one missing, not every text can be looked at.
        if not wrong:
            made = await connection.prepare(f"SELECT * FROM {view.name}")
            meant = await connection.prepare(view.query)
            if _columns(made) != _columns(meant):
                wrong[view.name] = "has other columns than this release makes"
    return wrong


def _columns(query: PreparedStatement[Record]) -> list[tuple[str, str]]:
    return [(column.name, column.type.name) for column in query.get_attributes()]
