"""Writing a batch: one statement where it can be, else a transaction of several; behind the fence either way.

The row of a node is locked before any other row: a process that has lost its place waits there, or is refused there,
before it touches anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

import asyncpg

from perdure.server.store.interface import Fenced, ShardMove, StaleVersion
from perdure.server.store.postgres import members
from perdure.server.store.postgres.statements import FENCE, Change, FewRows, Statement, group_changes, statement
from perdure.server.store.postgres.transactions import in_one_statement, in_transaction
from perdure.server.store.rounds import Fence, Round
from perdure.server.store.settings import PostgresSettings

if TYPE_CHECKING:
    from perdure.server.store.postgres.connections import Connection, Session
    from perdure.server.store.postgres.dialect import PostgresDialect

Part: TypeAlias = tuple[tuple[Change, ...], Round]
"""Changes that go into one statement, and the round whose rows they are about."""


async def write_batch(
    connection: Connection,
    fence: Fence,
    rounds: Sequence[Round],
    moves: Sequence[ShardMove],
    dialect: PostgresDialect,
    settings: PostgresSettings,
    few: FewRows,
) -> None:
    """Write all rounds, then give shards away, in one transaction.

    Raises Fenced, StaleVersion, CommitUnknown and StoreUnavailable; PostgreSQL's errors pass through.
    """
    parts = parts_of(rounds, dialect)
    if len(parts) == 1 and not moves:
        whole = statement(*parts[0], fence, few)
        if not await in_one_statement(connection, lambda: execute(connection, whole), settings):
            raise _fenced(fence)
        return
    await in_transaction(connection, lambda: write_in_transaction(connection, fence, parts, moves), settings)


def parts_of(rounds: Sequence[Round], dialect: PostgresDialect) -> list[Part]:
    """Return the parts in which a database of this kind takes the rounds."""
    once = dialect.changes_tables_once
    return [(changes, rows) for rows in rounds for changes in group_changes(rows, changes_tables_once=once)]


async def write_in_transaction(
    session: Session, fence: Fence, parts: Sequence[Part], moves: Sequence[ShardMove]
) -> None:
    """Write all parts in the open transaction, then give shards away.

    Raises Fenced and StaleVersion; PostgreSQL's errors pass through.
    """
    if await session.execute(FENCE, *fence) == "UPDATE 0":
        raise _fenced(fence)
    for changes, rows in parts:
        await execute(session, statement(changes, rows))
    await members.move(session, fence.node, moves)


async def execute(session: Session, part: Statement) -> bool:
    """Execute what is a part of a batch, or all of it; return whether it happened, which a fence may refuse.

    Raises StaleVersion; PostgreSQL's errors pass through.
    """
    try:
        return bool(await session.fetch(part.text, *part.parameters))
    except asyncpg.DivisionByZeroError as error:
        raise StaleVersion("Not all of the runs are stored in the expected version.") from error


def _fenced(fence: Fence) -> Fenced:
    return Fenced(
        f"Batch {fence.batch} of node {fence.node!r} is refused: another process has taken its place"
        f" since incarnation {fence.incarnation}."
    )
