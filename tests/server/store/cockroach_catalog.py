"""CockroachDB's `information_schema.statistics`, made of PostgreSQL's catalogue, as its documentation shows it.

An index that is split by a hash begins with a hidden column; the columns of the primary key that an index does not name
come at its end. Both are called implicit.
"""

from __future__ import annotations

from perdure.server.store.postgres.cockroach_tools import COCKROACH_TOOLS
from perdure.server.store.postgres.tool_queries import POSTGRES_TOOLS, ToolQueries
from perdure.server.store.schema import TABLES

_SPLIT = ", ".join(f"'{index.name}'" for table in TABLES for index in table.indexes if index.rises)
_NAMES = (
    "current_schema()::text AS table_schema, held.relname::text AS table_name, made.relname::text AS index_name,"
    " CASE WHEN indisunique THEN 'NO' ELSE 'YES' END AS non_unique"
)
_INDEXES = (
    "pg_index JOIN pg_class AS held ON held.oid = indrelid JOIN pg_class AS made ON made.oid = indexrelid"
    " AND held.relnamespace = current_schema()::regnamespace"
)


def _columns(key: str, *, implicit: str, first: int) -> str:
    return (
        f"SELECT {_NAMES}, {first} + part.place AS seq_in_index, attname::text AS column_name, 'NO' AS storing,"
        f" '{implicit}' AS implicit FROM {_INDEXES}"
        f" CROSS JOIN unnest({key}::int2[]) WITH ORDINALITY AS part (number, place)"
        " JOIN pg_attribute ON attrelid = indrelid AND attnum = part.number"
    )


_PRIMARY_KEY = "(SELECT own.indkey FROM pg_index AS own WHERE own.indrelid = pg_index.indrelid AND own.indisprimary)"
_STATISTICS = " UNION ALL ".join(
    (
        f"SELECT {_NAMES}, 1 AS seq_in_index, 'crdb_internal_' || made.relname || '_shard_16' AS column_name,"
        f" 'NO' AS storing, 'YES' AS implicit FROM {_INDEXES} WHERE made.relname IN ({_SPLIT})",
        _columns("indkey", implicit="NO", first=1),
        f"{_columns(_PRIMARY_KEY, implicit='YES', first=100)} WHERE NOT indisprimary AND attnum <> ALL (indkey)",
    )
)

ON_POSTGRES: ToolQueries = COCKROACH_TOOLS._replace(
    indexes=COCKROACH_TOOLS.indexes.replace("information_schema.statistics", f"({_STATISTICS})"),
    size=POSTGRES_TOOLS.size,
    snapshot_beside_writers=POSTGRES_TOOLS.snapshot,
)
"""What the tools ask CockroachDB, of PostgreSQL; for what only the one of them has, what the other has."""
