"""The steps that lead an older PostgreSQL database to this release's schema."""

# ruff: noqa: S608 - built at import, of constants.

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Final, TypeAlias

from perdure.server.core.records import WorkflowKey
from perdure.server.core.shards import shard_of
from perdure.server.store.postgres.dialect import POSTGRES
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

if TYPE_CHECKING:
    from perdure.server.store.postgres.connections import Connection

Step: TypeAlias = "str | Callable[[Connection], Awaitable[None]]"
"""A statement, or what takes more than statements."""

Steps: TypeAlias = Mapping[int, tuple[Step, ...]]
"""For each version the steps that lead there from the version before."""

_RUNS_AT_ONCE: Final = 5_000

_FILLS: Final = tuple(
    (
        f"SELECT DISTINCT run_id, namespace_id, workflow_id FROM {table} WHERE run_id > $1"
        f" ORDER BY run_id LIMIT {_RUNS_AT_ONCE}",
        f"UPDATE {table} SET shard = filled.shard FROM unnest($1::text[], $2::bigint[]) AS filled (run_id, shard)"
        f" WHERE {table}.run_id = filled.run_id",
    )
    for table in SHARDED
)


async def _fill_shards(connection: Connection) -> None:
    for read, fill in _FILLS:
        last = ""
        while page := await connection.fetch(read, last):
            last = page[-1][0]
            shards = [shard_of(WorkflowKey(namespace_id, workflow_id)) for _, namespace_id, workflow_id in page]
            await connection.execute(fill, [run_id for run_id, _, _ in page], shards)


STEPS: Steps = {
    2: (
        FENCE_ALL,
        'ALTER TABLE node ADD COLUMN nonce text COLLATE "C"',
        *DROP_UNSHARDED_INDEXES,
        *(f"ALTER TABLE {table} ADD COLUMN shard bigint" for table in SHARDED),
        _fill_shards,
        *(f"ALTER TABLE {table} ALTER COLUMN shard SET NOT NULL" for table in SHARDED),
        *CREATE_SHARDED_INDEXES,
        'CREATE TABLE member (node text COLLATE "C" NOT NULL, session text COLLATE "C" NOT NULL,'
        ' release text COLLATE "C" NOT NULL, started_at bigint NOT NULL, lease_until bigint NOT NULL,'
        " is_leaving boolean NOT NULL, PRIMARY KEY (node))",
        'CREATE TABLE shard (shard bigint NOT NULL, owner text COLLATE "C" NOT NULL, epoch bigint NOT NULL,'
        " PRIMARY KEY (shard))",
        CREATE_CLUSTER_VERSION,
        *create_cluster_views(POSTGRES),
    ),
    3: (
        CREATE_CLOSED_INDEX,
        DROP_ALARMS_OF_CLOSED_RUNS,
        "ALTER TABLE namespace ADD COLUMN delete_delay_seconds bigint, ADD COLUMN drained_at bigint",
        'CREATE TABLE discarded_history (run_id text COLLATE "C" NOT NULL, namespace_id text COLLATE "C" NOT NULL,'
        ' workflow_id text COLLATE "C" NOT NULL, shard bigint NOT NULL, PRIMARY KEY (run_id))',
    ),
}

STEPS_ON_COCKROACH: Steps = {}
"""The same for CockroachDB, where the first version is 3. What is here must bear being done again."""
