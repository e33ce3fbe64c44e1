"""What PostgreSQL's catalog says of our schema."""

# ruff: noqa: S608 - views are named by this package.

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from perdure.server.store.postgres.dialect import PostgresViewDialect
from perdure.server.store.tools.interface import CatalogColumn, CatalogIndex, CatalogTable, Row
from perdure.server.store.views import views

if TYPE_CHECKING:
    from asyncpg import Record
    from asyncpg.prepared_stmt import PreparedStatement

    from perdure.server.store.postgres.connections import Connection


class _Asked(Protocol):
    async def fetch(self, query: str) -> Sequence[Row]:
        """Return the rows of a query."""


_OURS = (
    "pg_class.relnamespace = current_schema()::regnamespace AND pg_class.relkind IN ('r', 'p')"
    " AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = pg_class.oid"
    " AND deptype = 'e')"
)
_COLUMNS = (
    "SELECT pg_class.relname::text, attname::text, format_type(atttypid, atttypmod)"
    " || coalesce(' COLLATE ' || quote_ident(nullif(collname, 'default')::text), ''),"
    " NOT attnotnull, atthasdef FROM pg_class"
    " JOIN pg_attribute ON attrelid = pg_class.oid AND attnum > 0 AND NOT attisdropped"
    f" LEFT JOIN pg_collation ON pg_collation.oid = attcollation WHERE {_OURS} ORDER BY attrelid, attnum"
)
_INDEXES = (
    "SELECT pg_class.relname::text, made.relname::text, indisprimary, indisunique, indisvalid,"
    " ARRAY(SELECT attname::text FROM unnest(indkey::int2[]) WITH ORDINALITY AS part (number, place)"
    " JOIN pg_attribute ON attrelid = indrelid AND attnum = part.number ORDER BY part.place),"
    " pg_get_expr(indpred, indrelid) FROM pg_class JOIN pg_index ON indrelid = pg_class.oid"
    f" JOIN pg_class AS made ON made.oid = indexrelid WHERE {_OURS}"
)
_TRIGGERS = (
    "SELECT pg_class.relname::text, tgname::text FROM pg_class JOIN pg_trigger ON tgrelid = pg_class.oid"
    f" WHERE NOT tgisinternal AND {_OURS} ORDER BY tgname"
)
_VIEWS = "SELECT relname::text FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind = 'v'"


class _Index(NamedTuple):
    table: str
    name: str
    is_primary: bool
    is_unique: bool
    is_valid: bool
    columns: list[str]
    where: str | None


async def read_tables(database: _Asked) -> Mapping[str, CatalogTable]:
    """Return the tables of the schema, less those that belong to an extension."""
    columns: defaultdict[str, dict[str, CatalogColumn]] = defaultdict(dict)
    for table, name, kind, nullable, has_default in await database.fetch(_COLUMNS):
        columns[str(table)][str(name)] = CatalogColumn(str(kind), bool(nullable), bool(has_default))
    keys: dict[str, tuple[str, ...]] = {}
    indexes: defaultdict[str, dict[str, CatalogIndex]] = defaultdict(dict)
    for row in await database.fetch(_INDEXES):
        index = _Index._make(row)
        if index.is_primary:
            keys[index.table] = tuple(index.columns)
        else:
            where = None if index.where is None else _plain(index.where)
            indexes[index.table][index.name] = CatalogIndex(
                tuple(index.columns), index.is_unique, where, index.is_valid
            )
    triggers: defaultdict[str, list[str]] = defaultdict(list)
    for table, name in await database.fetch(_TRIGGERS):
        triggers[str(table)].append(str(name))
    return {
        table: CatalogTable(found, keys.get(table, ()), indexes[table], tuple(triggers[table]))
        for table, found in columns.items()
    }


def _plain(condition: str) -> str:
    """Take away the parentheses that PostgreSQL puts around a condition."""
    return condition[1:-1] if condition.startswith("(") and condition.endswith(")") else condition


async def wrong_views(connection: Connection) -> Mapping[str, str]:
    """Return what is wrong with this release's views. Their columns are compared: PostgreSQL keeps no view's text."""
    present = {name for (name,) in await connection.fetch(_VIEWS)}
    wrong: dict[str, str] = {}
    for view in views(PostgresViewDialect()):
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
