"""What deletes runs in the background asks of the database: which runs, and histories that go piece by piece."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perdure.server.core.records import DiscardedHistory
from perdure.server.store.interface import ClosedRun, RunName, RunPosition
from perdure.server.store.postgres.nodes import BUMP_VERSION

if TYPE_CHECKING:
    from perdure.server.store.postgres.connections import Connection, Reader

CLOSED_RUNS = (
    "SELECT run.workflow_id, head.run_id, head.closed_at FROM ("
    " SELECT run_id, closed_at FROM run WHERE namespace_id = $1 AND closed_at IS NOT NULL"
    " AND (closed_at, run_id) > ($2, $3) AND get_byte($5, shard::integer) = 1 ORDER BY closed_at, run_id LIMIT $4"
    ") AS head JOIN run ON run.run_id = head.run_id ORDER BY head.closed_at, head.run_id"
)
"""As of every index over the state, its part that is searched looks at no row of the table; see `queries.py`."""
PAGE_RUNS = (
    "SELECT workflow_id, run_id, started_at FROM run WHERE namespace_id = $1 AND (started_at, run_id) > ($2, $3)"
    " AND get_byte($5, shard::integer) = 1 ORDER BY started_at, run_id LIMIT $4"
)
_DISCARDED_HISTORIES = (
    "SELECT run_id, namespace_id, workflow_id FROM discarded_history WHERE get_byte($2, shard::integer) = 1"
    " ORDER BY run_id LIMIT $1"
)
DELETE_SOME = (
    "WITH discarded AS (SELECT run_id FROM discarded_history WHERE run_id = $1),"
    " events AS (DELETE FROM event WHERE run_id = (SELECT run_id FROM discarded) AND event_id IN"
    " (SELECT event_id FROM event WHERE run_id = $1 ORDER BY event_id LIMIT $2) RETURNING 1),"
    " requests AS (DELETE FROM request WHERE run_id = (SELECT run_id FROM discarded) AND request_id IN"
    " (SELECT request_id FROM request WHERE run_id = $1 ORDER BY request_id LIMIT $2) RETURNING 1)"
    " SELECT greatest((SELECT count(*) FROM events), (SELECT count(*) FROM requests))"
)
_FORGET_HISTORY = (
    "WITH forgotten AS (DELETE FROM discarded_history WHERE run_id = $1"
    " AND NOT EXISTS (SELECT 1 FROM event WHERE run_id = $1)"
    " AND NOT EXISTS (SELECT 1 FROM request WHERE run_id = $1) RETURNING 1)"
    " SELECT EXISTS (SELECT 1 FROM forgotten) OR NOT EXISTS (SELECT 1 FROM discarded_history WHERE run_id = $1)"
)
"""It looks for itself: who deletes beside others counts few, or none, where they took what was chosen."""
_IS_EMPTY = (
    "NOT EXISTS (SELECT 1 FROM run WHERE namespace_id = $1)"
    " AND NOT EXISTS (SELECT 1 FROM outbox WHERE namespace_id = $1 OR receiver_namespace_id = $1)"
    " AND NOT EXISTS (SELECT 1 FROM discarded_history WHERE namespace_id = $1)"
)
IS_EMPTY = f"SELECT {_IS_EMPTY}"
_DELETE_NAMESPACE = (
    f"WITH gone AS (DELETE FROM namespace WHERE namespace_id = $1 AND {_IS_EMPTY} RETURNING namespace_id)"  # noqa: S608 - built at import.
    f" {BUMP_VERSION} AND EXISTS (SELECT 1 FROM gone)"
)
_IS_THERE = "SELECT EXISTS (SELECT 1 FROM namespace WHERE namespace_id = $1)"

_BEFORE_ALL = RunPosition(-(2**63), "")


async def closed_runs(
    reader: Reader, shards: bytes, namespace_id: str, limit: int, after: RunPosition | None
) -> list[ClosedRun]:
    """See `Store.closed_runs`."""
    rows = await reader.fetch(CLOSED_RUNS, namespace_id, *(after or _BEFORE_ALL), limit, shards)
    return [ClosedRun(*row) for row in rows]


async def page_runs(
    reader: Reader, shards: bytes, namespace_id: str, limit: int, after: RunPosition | None
) -> list[RunName]:
    """See `Store.page_runs`."""
    rows = await reader.fetch(PAGE_RUNS, namespace_id, *(after or _BEFORE_ALL), limit, shards)
    return [RunName(*row) for row in rows]


async def discarded_histories(reader: Reader, shards: bytes, limit: int) -> list[DiscardedHistory]:
    """See `Store.discarded_histories`."""
    return [DiscardedHistory(*row) for row in await reader.fetch(_DISCARDED_HISTORIES, limit, shards)]


async def delete_history(connection: Connection, run_id: str, limit: int) -> bool:
    """See `Store.delete_history`. What a crash leaves between its two statements is done again."""
    if await connection.fetchval(DELETE_SOME, run_id, limit) == limit:
        return False
    return bool(await connection.fetchval(_FORGET_HISTORY, run_id))


async def is_namespace_empty(reader: Reader, namespace_id: str) -> bool:
    """See `Store.is_namespace_empty`."""
    [(is_empty,)] = await reader.fetch(IS_EMPTY, namespace_id)
    return bool(is_empty)


async def delete_namespace(connection: Connection, namespace_id: str) -> bool:
    """See `Store.delete_namespace`."""
    await connection.execute(_DELETE_NAMESPACE, namespace_id)
    return not await connection.fetchval(_IS_THERE, namespace_id)
