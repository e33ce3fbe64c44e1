"""What the tools ask PostgreSQL about itself: its catalog, its sizes, its sessions, and for one moment's state.

`cockroach_tools.py` asks CockroachDB the same. What comes back has the same columns from both.
"""

# ruff: noqa: S608 - built at import, of constants of this module.

from __future__ import annotations

from typing import Final, NamedTuple


class ToolQueries(NamedTuple):
    """What differs between databases of what the tools ask; None for what one of them does not know."""

    columns: str
    """Table, column, type, whether it may be NULL, whether it has a default."""
    indexes: str
    """Table, index, whether it is the primary key, unique, valid, its columns, its condition, whether it is split."""
    triggers: str | None
    """Table and trigger."""
    views: str
    size: str
    """How large a table is with its indexes, and about how many rows it has; either may be NULL."""
    total_bytes: str | None
    writers: str | None
    """The sessions through which servers write, a line for each."""
    snapshot: str
    """Begins a transaction that sees what is committed by now, and nothing that comes later."""
    snapshot_beside_writers: str
    """The same for a database that is being written to, which may be a moment behind."""


OURS = (
    "pg_class.relnamespace = quote_ident(current_schema())::regnamespace AND pg_class.relkind IN ('r', 'p')"
    " AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = pg_class.oid"
    " AND deptype = 'e')"
)
_SNAPSHOT = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"

POSTGRES_TOOLS: Final = ToolQueries(
    columns=(
        "SELECT pg_class.relname::text, attname::text, format_type(atttypid, atttypmod)"
        " || coalesce(' COLLATE ' || quote_ident(nullif(collname, 'default')::text), ''),"
        " NOT attnotnull, atthasdef FROM pg_class"
        " JOIN pg_attribute ON attrelid = pg_class.oid AND attnum > 0 AND NOT attisdropped"
        f" LEFT JOIN pg_collation ON pg_collation.oid = attcollation WHERE {OURS} ORDER BY attrelid, attnum"
    ),
    indexes=(
        "SELECT pg_class.relname::text, made.relname::text, indisprimary, indisunique, indisvalid,"
        " ARRAY(SELECT attname::text FROM unnest(indkey::int2[]) WITH ORDINALITY AS part (number, place)"
        " JOIN pg_attribute ON attrelid = indrelid AND attnum = part.number ORDER BY part.place),"
        " pg_get_expr(indpred, indrelid), false FROM pg_class JOIN pg_index ON indrelid = pg_class.oid"
        f" JOIN pg_class AS made ON made.oid = indexrelid WHERE {OURS}"
    ),
    triggers=(
        "SELECT pg_class.relname::text, tgname::text FROM pg_class JOIN pg_trigger ON tgrelid = pg_class.oid"
        f" WHERE NOT tgisinternal AND {OURS} ORDER BY tgname"
    ),
    views=(
        "SELECT relname::text FROM pg_class"
        " WHERE relnamespace = quote_ident(current_schema())::regnamespace AND relkind = 'v'"
    ),
    size="SELECT pg_total_relation_size(oid), reltuples::bigint FROM pg_class WHERE oid = to_regclass(?)",
    total_bytes="SELECT pg_database_size(current_database())",
    # Every role may see these.
    writers=(
        "SELECT format('session %s from %s, which writes for a server, since %s UTC', pid,"
        " coalesce(host(client_addr), 'this machine'), to_char(backend_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI'))"
        " FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'perdure writer'"
        " ORDER BY backend_start"
    ),
    snapshot=_SNAPSHOT,
    snapshot_beside_writers=_SNAPSHOT,
)
