"""What the tools ask CockroachDB about itself.

- An index that is split by a hash begins with a column of the database's own, hidden like the primary key at the end.
- How much room a table takes it does not say: tables share ranges.
- Which database a session uses it does not say either. Servers are members of a cluster there, so their leases tell;
  and a copy is void where a server has written meanwhile, whoever saw it.
- A reader that comes across what is just being written may be told to begin anew. One that looks at a moment which is
  past is not.
"""

from __future__ import annotations

from typing import Final

from perdure.server.store.postgres.tool_queries import ToolQueries

COCKROACH_TOOLS: Final = ToolQueries(
    columns=(
        "SELECT columns.table_name, columns.column_name,"
        " columns.data_type || coalesce(' COLLATE ' || columns.collation_name, ''), columns.is_nullable = 'YES',"
        " columns.column_default IS NOT NULL FROM information_schema.columns AS columns"
        " JOIN information_schema.tables AS tables"
        " ON tables.table_schema = columns.table_schema AND tables.table_name = columns.table_name"
        " WHERE columns.table_schema = current_schema() AND tables.table_type = 'BASE TABLE'"
        " AND columns.column_name NOT LIKE 'crdb_internal_%' ORDER BY columns.table_name, columns.ordinal_position"
    ),
    indexes=(
        "SELECT statistics.table_name, statistics.index_name, keys.constraint_type IS NOT NULL,"
        " statistics.non_unique = 'NO', true, array_agg(statistics.column_name ORDER BY statistics.seq_in_index)"
        " FILTER (WHERE statistics.implicit = 'NO' AND statistics.storing = 'NO'),"
        " nullif(split_part(pg_indexes.indexdef, ' WHERE ', 2), ''),"
        " count(*) FILTER (WHERE statistics.column_name LIKE 'crdb_internal_%_shard_%') > 0"
        " FROM information_schema.statistics AS statistics"
        " JOIN pg_indexes ON pg_indexes.schemaname = statistics.table_schema"
        " AND pg_indexes.tablename = statistics.table_name AND pg_indexes.indexname = statistics.index_name"
        " LEFT JOIN information_schema.table_constraints AS keys ON keys.constraint_type = 'PRIMARY KEY'"
        " AND keys.table_schema = statistics.table_schema AND keys.table_name = statistics.table_name"
        " AND keys.constraint_name = statistics.index_name WHERE statistics.table_schema = current_schema()"
        " GROUP BY statistics.table_name, statistics.index_name, keys.constraint_type, statistics.non_unique,"
        " pg_indexes.indexdef"
    ),
    triggers=None,
    views=(
        "SELECT table_name FROM information_schema.tables WHERE table_schema = current_schema() AND table_type = 'VIEW'"
    ),
    size=(
        "SELECT NULL::bigint, estimated_row_count FROM [SHOW TABLES]"
        " WHERE schema_name = current_schema() AND table_name = ?"
    ),
    total_bytes=None,
    writers=None,
    snapshot="BEGIN ISOLATION LEVEL SERIALIZABLE",
    snapshot_beside_writers="BEGIN AS OF SYSTEM TIME '-1ms'",
)
