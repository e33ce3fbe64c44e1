"""Writing a batch: one transaction behind the fence, with one statement per table.

The fence comes first, so that the row of a node is locked before any other row: a process that has lost its place waits
there, or is refused there, before it touches anything. The order within a round keeps the unique index of current runs
whole at every statement: runs give the place up before others take it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from perdure.server.store.interface import Fenced, ShardMove, StaleVersion
from perdure.server.store.postgres import members
from perdure.server.store.postgres.bulk import Bulk, delete, insert, update_runs, upsert
from perdure.server.store.rounds import ADVANCED_COLUMNS, CHANGED_COLUMNS, Fence, Round
from perdure.server.store.schema import (
    ACTIVITY,
    BUFFERED_EVENT,
    CHILD,
    DISCARDED_HISTORY,
    EVENT,
    INBOX,
    OUTBOX,
    REQUEST,
    RUN,
    TIMER,
    Table,
)

if TYPE_CHECKING:
    from perdure.server.store.postgres.connections import Session

_OF_RUN = ("run_id",)
_PENDING = (ACTIVITY, TIMER, BUFFERED_EVENT)
"""What hangs on a run while it is open."""
_HISTORY = (EVENT, REQUEST)
"""What stays with a closed run."""

FENCE = "UPDATE node SET batch = $3::bigint WHERE node = $1 AND incarnation = $2 AND batch = $3::bigint - 1"
_ADVANCE_RUNS = Bulk(update_runs(ADVANCED_COLUMNS))
_UPDATE_RUNS = Bulk(update_runs(CHANGED_COLUMNS))
_INSERT_RUNS = Bulk(insert(RUN))
_DELETE_RUNS = Bulk(delete(RUN, _OF_RUN))
_INSERT_EVENTS = Bulk(insert(EVENT))
_UPSERT_ACTIVITIES = upsert(ACTIVITY)
_DELETE_ACTIVITIES = Bulk(delete(ACTIVITY, ACTIVITY.primary_key))
_UPSERT_TIMERS = upsert(TIMER)
_DELETE_TIMERS = Bulk(delete(TIMER, TIMER.primary_key))
_INSERT_BUFFERED = Bulk(insert(BUFFERED_EVENT))
_DELETE_BUFFERED_OF_RUNS = Bulk(delete(BUFFERED_EVENT, _OF_RUN))
_INSERT_REQUESTS = Bulk(insert(REQUEST, conflict=" ON CONFLICT DO NOTHING"))
_INSERT_DISCARDED = Bulk(insert(DISCARDED_HISTORY))
_UPSERT_CHILDREN = upsert(CHILD)
_DELETE_CHILDREN = Bulk(delete(CHILD, CHILD.primary_key))
_INSERT_OUTBOX = Bulk(insert(OUTBOX))
_DELETE_OUTBOX = Bulk(delete(OUTBOX, OUTBOX.primary_key))
_UPSERT_INBOX = upsert(INBOX)
_DELETE_INBOX = Bulk(delete(INBOX, INBOX.primary_key, up_to="number"))


def _delete_of_runs(tables: Sequence[Table]) -> Bulk:
    """One statement for several tables: each round trip counts, and no row of one is a row of another.

    What is returned nobody reads, but CockroachDB takes no part of a WITH that returns nothing.
    """
    deletions = ", ".join(f"{table.name}_gone AS ({delete(table, _OF_RUN)} RETURNING 1)" for table in tables)
    return Bulk(f"WITH {deletions} SELECT cardinality($1::text[])")


_DELETE_PENDING_OF_RUNS = _delete_of_runs(_PENDING)
_DELETE_HISTORY_OF_RUNS = _delete_of_runs(_HISTORY)


async def write_batch(session: Session, fence: Fence, rounds: Sequence[Round], moves: Sequence[ShardMove] = ()) -> None:
    """Write all rounds in the open transaction, then give shards away.

    Raises Fenced and StaleVersion; PostgreSQL's errors pass through.
    """
    if await session.execute(FENCE, *fence) == "UPDATE 0":
        raise Fenced(
            f"Batch {fence.batch} of node {fence.node!r} is refused: another process has taken its place"
            f" since incarnation {fence.incarnation}."
        )
    for rows in rounds:
        await _write_runs(session, rows)
        await _write_parts(session, rows)
        await _write_mail(session, rows)
    await members.move(session, fence.node, moves)


async def _write_runs(session: Session, rows: Round) -> None:
    changed = await _ADVANCE_RUNS.execute(session, rows.runs_advanced)
    changed += await _UPDATE_RUNS.execute(session, rows.runs_not_current)
    await _DELETE_RUNS.execute(session, rows.runs_deleted)
    changed += await _UPDATE_RUNS.execute(session, rows.runs_current)
    expected = len(rows.runs_advanced) + len(rows.runs_not_current) + len(rows.runs_current)
    if changed != expected:
        raise StaleVersion(f"{expected - changed} of {expected} runs are not stored in the expected version.")
    await _INSERT_RUNS.execute(session, rows.runs_new)


async def _write_parts(session: Session, rows: Round) -> None:
    await _INSERT_EVENTS.execute(session, rows.events)
    await _UPSERT_ACTIVITIES.execute(session, rows.activities)
    await _DELETE_ACTIVITIES.execute(session, rows.activities_removed)
    await _UPSERT_TIMERS.execute(session, rows.timers)
    await _DELETE_TIMERS.execute(session, rows.timers_removed)
    await _DELETE_BUFFERED_OF_RUNS.execute(session, rows.buffered_cleared)
    await _INSERT_BUFFERED.execute(session, rows.buffered)
    await _INSERT_REQUESTS.execute(session, rows.requests)
    await _DELETE_PENDING_OF_RUNS.execute(session, rows.runs_closed)
    await _DELETE_HISTORY_OF_RUNS.execute(session, rows.histories_deleted)
    await _INSERT_DISCARDED.execute(session, rows.histories_discarded)


async def _write_mail(session: Session, rows: Round) -> None:
    await _UPSERT_CHILDREN.execute(session, rows.children)
    await _DELETE_CHILDREN.execute(session, rows.children_removed)
    await _INSERT_OUTBOX.execute(session, rows.outbox)
    await _DELETE_OUTBOX.execute(session, rows.outbox_removed)
    # The row of the next message of a pair takes the place of the last one's: it must not go with it.
    await _DELETE_INBOX.execute(session, rows.inbox_removed)
    await _UPSERT_INBOX.execute(session, rows.inbox)
