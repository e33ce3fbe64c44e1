"""Who the nodes are and what they own: the tables of members and of shards.

Leases are judged by the database's clock, read at the start of a transaction: whoever waited for a lock gets a lease
that ends too early, or takes over too late, and never the other way round.

Locks are taken in one order: member, then the fence in `node`, then shards, then the version. A batch begins with its
fence, and so holds the rows of those it gives shards to no stronger than their renewals allow.
"""

# ruff: noqa: S608 - built at import, of constants of this module.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from perdure.server.core.shards import SHARDS
from perdure.server.store.interface import Claim, ClusterView, Fenced, Member, ShardMove, ShardOwner
from perdure.server.store.postgres import nodes
from perdure.server.store.postgres.bulk import columns_of

if TYPE_CHECKING:
    from perdure.server.store.postgres.connections import Reader, Session

_NOW = "(extract(epoch FROM now()) * 1000000)::bigint * 1000"
_VERSION = "SELECT value FROM meta WHERE name = 'cluster_version'"

JOIN = (
    "INSERT INTO member (node, session, release, started_at, lease_until, is_leaving)"
    f" VALUES ($1, $2, $3, {_NOW}, {_NOW} + $4::bigint, false) ON CONFLICT (node) DO UPDATE SET"
    " session = excluded.session, release = excluded.release, started_at = excluded.started_at,"
    " lease_until = excluded.lease_until, is_leaving = excluded.is_leaving"
)
TAKE_UNOWNED = (
    f"INSERT INTO shard (shard, owner, epoch) SELECT number, $1::text, 1 FROM generate_series(0, {SHARDS - 1})"
    " AS all_of (number) ON CONFLICT (shard) DO NOTHING"
)
RENEW = (
    f"WITH renewed AS (UPDATE member SET lease_until = {_NOW} + $3::bigint WHERE node = $1 AND session = $2"
    " RETURNING node) SELECT meta.value FROM renewed CROSS JOIN meta WHERE meta.name = 'cluster_version'"
)
VIEW = (
    f"SELECT ({_VERSION}), ARRAY(SELECT ROW(node, session, release, started_at, lease_until, is_leaving,"
    f" lease_until > {_NOW}) FROM member ORDER BY node),"
    " ARRAY(SELECT ROW(shard, owner, epoch) FROM shard ORDER BY shard)"
)
LOCK_DEAD = f"SELECT session = $2 AND lease_until <= {_NOW} FROM member WHERE node = $1 FOR UPDATE"
LOCK_FENCE = "SELECT node FROM node WHERE node = $1 FOR UPDATE"
IS_ORPHANING = (
    "SELECT EXISTS (SELECT 1 FROM shard WHERE owner = $1) AND NOT EXISTS (SELECT 1 FROM member WHERE node = $1)"
)
BUMP_FENCE = "UPDATE node SET incarnation = incarnation + 1, nonce = NULL WHERE node = $1"
REMOVE = "DELETE FROM member WHERE node = $1"
LOCK_TAKERS = "SELECT node, is_leaving FROM member WHERE node = ANY($1::text[]) ORDER BY node FOR KEY SHARE"
"""No stronger: they may go on renewing, but not go away."""
LOCK_OURSELVES = "SELECT node FROM member WHERE node = $1 AND session = $2 FOR KEY SHARE"
GIVE = (
    "UPDATE shard SET owner = given.owner, epoch = shard.epoch + 1"
    " FROM unnest($2::bigint[], $3::text[]) AS given (shard, owner)"
    " WHERE shard.shard = given.shard AND shard.owner = $1 AND given.owner <> $1"
)
SET_LEAVING = (
    "WITH changed AS (UPDATE member SET is_leaving = true WHERE node = $1 AND session = $2 AND NOT is_leaving"
    f" RETURNING node) {nodes.BUMP_VERSION} AND EXISTS (SELECT 1 FROM changed)"
)
LEAVE = (
    "WITH changed AS (DELETE FROM member WHERE node = $1 AND session = $2 RETURNING node)"
    f" {nodes.BUMP_VERSION} AND EXISTS (SELECT 1 FROM changed)"
)


async def join(session: Session, node: str, life: str, release: str, lease_seconds: float) -> Claim:
    """See `ClusterStore.join`; within a transaction."""
    await session.execute(JOIN, node, life, release, _nanoseconds(lease_seconds))
    claim = await nodes.claim(session, node)
    await session.execute(TAKE_UNOWNED, node)
    await session.execute(nodes.BUMP_VERSION)
    return claim


async def renew(session: Session, node: str, life: str, lease_seconds: float) -> int:
    """See `ClusterStore.renew`."""
    rows = await session.fetch(RENEW, node, life, _nanoseconds(lease_seconds))
    if not rows:
        raise _no_member(node)
    return int(rows[0][0])


async def read_view(reader: Reader) -> ClusterView:
    """See `ClusterStore.read_view`."""
    [(version, members, shards)] = await reader.fetch(VIEW)
    return ClusterView(int(version), [Member(*row) for row in members], [ShardOwner(*row) for row in shards])


async def take_over(
    session: Session, place: tuple[str, str], node: str, life: str | None, shards: Mapping[str, Sequence[int]]
) -> bool:
    """See `ClusterStore.take_over`; within a transaction. `place` is ours: the node and the session."""
    if not await (_lock_orphaning(session, node) if life is None else _lock_dead(session, node, life)):
        return False
    # From here on no batch of the node passes its fence; one that has passed is waited for.
    await session.execute(BUMP_FENCE, node)
    await session.execute(REMOVE, node)
    if not await session.fetch(LOCK_OURSELVES, *place):
        raise _no_member(place[0])
    moves = [ShardMove(shard, to) for to, given in shards.items() for shard in given]
    await _give(session, node, moves, is_leaving_allowed=True)
    await session.execute(nodes.BUMP_VERSION)
    return True


async def move(session: Session, node: str, moves: Sequence[ShardMove]) -> None:
    """See `Batch.moves`; within a transaction that has passed the fence of the node."""
    if moves and await _give(session, node, moves, is_leaving_allowed=False):
        await session.execute(nodes.BUMP_VERSION)


async def set_leaving(session: Session, node: str, life: str) -> None:
    """See `ClusterStore.set_leaving`."""
    await session.execute(SET_LEAVING, node, life)


async def leave(session: Session, node: str, life: str) -> None:
    """See `ClusterStore.leave`."""
    await session.execute(LEAVE, node, life)


async def _lock_dead(session: Session, node: str, life: str) -> bool:
    rows = await session.fetch(LOCK_DEAD, node, life)
    return bool(rows and rows[0][0])


async def _lock_orphaning(session: Session, node: str) -> bool:
    """Lock what a process that joins under that name, or another that takes over, has to pass; then look."""
    await session.fetch(LOCK_FENCE, node)
    [(is_orphaning,)] = await session.fetch(IS_ORPHANING, node)
    return bool(is_orphaning)


async def _give(session: Session, node: str, moves: Sequence[ShardMove], *, is_leaving_allowed: bool) -> bool:
    """Give shards of a node to those who are members; return whether any changed its owner."""
    members = await session.fetch(LOCK_TAKERS, sorted({move.to for move in moves}))
    takers = {name for name, is_leaving in members if is_leaving_allowed or not is_leaving}
    given = [move for move in moves if move.to in takers]
    return bool(given) and await session.execute(GIVE, node, *columns_of(given)) != "UPDATE 0"


def _no_member(node: str) -> Fenced:
    return Fenced(f"Node {node!r} is no member any more: another node or process has taken its place.")


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1_000_000_000)
