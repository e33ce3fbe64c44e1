"""What leads an older database to this release's schema, as far as every SQL database does it alike.

A step is for ever: it makes what its version was, and no later change of the schema may change it. So its texts are
written out, and come from nothing that describes the present.
"""

# ruff: noqa: S608 - built at import, of constants.

from __future__ import annotations

from typing import Final

from perdure.server.store.views import ViewDialect

FENCE_ALL: Final = "UPDATE node SET incarnation = incarnation + 1"
"""For a step that the previous release could not write beside: as if other processes had taken the places of all."""

SHARDED: Final = ("run", "activity", "outbox")
"""The tables that got the shard of their workflow id in version 2."""

DROP_UNSHARDED_INDEXES: Final = ("DROP INDEX run_ready_task", "DROP INDEX run_alarm", "DROP INDEX activity_ready")

CREATE_SHARDED_INDEXES: Final = (
    "CREATE INDEX run_ready_task ON run (namespace_id, task_ready_queue, task_ready_at, run_id, shard)"
    " WHERE task_ready_queue IS NOT NULL",
    "CREATE INDEX run_alarm ON run (alarm_at, run_id, shard) WHERE alarm_at IS NOT NULL",
    "CREATE INDEX activity_ready ON activity (namespace_id, task_queue, ready_at, run_id, scheduled_event_id, shard)"
    " WHERE ready_at IS NOT NULL",
)

CREATE_CLUSTER_VERSION: Final = "INSERT INTO meta (name, value) VALUES ('cluster_version', '0')"


def create_cluster_views(dialect: ViewDialect) -> tuple[str, ...]:
    """Return the statements that make the views of version 2 on the cluster."""
    return (
        f"""CREATE VIEW nodes AS SELECT member.node, member.release, {dialect.utc("member.started_at")} AS started,
       {dialect.utc("member.lease_until")} AS lease_until, member.is_leaving,
       (SELECT count(*) FROM shard WHERE shard.owner = member.node) AS shards
FROM member""",
        """CREATE VIEW shards_by_node AS SELECT shard.owner AS node, count(*) AS shards,
       count(member.node) > 0 AS is_member
FROM shard
LEFT JOIN member ON member.node = shard.owner
GROUP BY shard.owner""",
    )
