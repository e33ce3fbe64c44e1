"""The steps that lead an older SQLite database to this release's schema."""

# ruff: noqa: S608 - built at import, of constants.

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from typing import TypeAlias

from perdure.server.core.records import WorkflowKey
from perdure.server.core.shards import shard_of
from perdure.server.store.sqlite.dialect import SqliteViewDialect
from perdure.server.store.steps import (
    CREATE_CLOSED_INDEX,
    CREATE_CLUSTER_VERSION,
    CREATE_SHARDED_INDEXES,
    DROP_ALARMS_OF_CLOSED_RUNS,
    DROP_UNSHARDED_INDEXES,
    FENCE_ALL,
    SHARDED,
    create_cluster_views,
)

Step: TypeAlias = str | Callable[[sqlite3.Connection], None]
"""A statement, or what takes more than statements."""

Steps: TypeAlias = Mapping[int, tuple[Step, ...]]
"""For each version the steps that lead there from the version before."""


def _add_shards(connection: sqlite3.Connection) -> None:
    connection.create_function("shard_of", 2, lambda *key: shard_of(WorkflowKey(*key)), deterministic=True)
    for table in SHARDED:
        # SQLite adds no column without a default where NULL is not allowed.
        connection.execute(f"ALTER TABLE {table} ADD COLUMN shard INTEGER NOT NULL DEFAULT 0")
        connection.execute(f"UPDATE {table} SET shard = shard_of(namespace_id, workflow_id)")


STEPS: Steps = {
    2: (
        FENCE_ALL,
        "ALTER TABLE node ADD COLUMN nonce TEXT",
        *DROP_UNSHARDED_INDEXES,
        _add_shards,
        *CREATE_SHARDED_INDEXES,
        "CREATE TABLE member (node TEXT NOT NULL, session TEXT NOT NULL, release TEXT NOT NULL,"
        " started_at INTEGER NOT NULL, lease_until INTEGER NOT NULL, is_leaving INTEGER NOT NULL,"
        " PRIMARY KEY (node)) STRICT",
        "CREATE TABLE shard (shard INTEGER NOT NULL, owner TEXT NOT NULL, epoch INTEGER NOT NULL,"
        " PRIMARY KEY (shard)) STRICT",
        CREATE_CLUSTER_VERSION,
        *create_cluster_views(SqliteViewDialect()),
    ),
    3: (
        CREATE_CLOSED_INDEX,
        DROP_ALARMS_OF_CLOSED_RUNS,
        "ALTER TABLE namespace ADD COLUMN delete_delay_seconds INTEGER",
        "ALTER TABLE namespace ADD COLUMN drained_at INTEGER",
        "CREATE TABLE discarded_history (run_id TEXT NOT NULL, namespace_id TEXT NOT NULL, workflow_id TEXT NOT NULL,"
        " shard INTEGER NOT NULL, PRIMARY KEY (run_id)) STRICT, WITHOUT ROWID",
    ),
}
