"""Who the nodes are and what they own, in memory: each call is one transaction of the real database.

Every lease is judged by the one clock given here, however far apart the clocks of the nodes are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from perdure.server.core.shards import SHARDS
from perdure.server.store.interface import ClusterView, Fenced, Member, ShardMove, ShardOwner


class Place(NamedTuple):
    """Who a store joined as."""

    node: str
    session: str


class _Row(msgspec.Struct):
    session: str
    release: str
    started_at: int
    lease_until: int
    is_leaving: bool = False


class Members:
    """The tables of nodes and of shards.

    Args:
        now: The database's clock, in nanoseconds.
    """

    def __init__(self, now: Callable[[], int]) -> None:
        self._now = now
        self._rows: dict[str, _Row] = {}
        self._owners: dict[int, ShardOwner] = {}
        self._version = 0
        self._shown = (-1, list[ShardOwner]())
        """The owners in order, as of a version."""

    def join(self, place: Place, release: str, lease_seconds: float) -> None:
        """Make it a member, and give it every shard that nobody ever owned."""
        now = self._now()
        self._rows[place.node] = _Row(place.session, release, now, now + _nanoseconds(lease_seconds))
        for shard in range(SHARDS):
            self._owners.setdefault(shard, ShardOwner(shard, place.node, 1))
        self._version += 1

    def renew(self, place: Place, lease_seconds: float) -> int:
        """Prolong its lease and return the version. Raises Fenced where it is no member any more."""
        row = self._row_of(place)
        if row is None:
            raise _no_member(place)
        row.lease_until = self._now() + _nanoseconds(lease_seconds)
        return self._version

    def view(self) -> ClusterView:
        """Return all there is."""
        now = self._now()
        members = [
            Member(
                node,
                row.session,
                row.release,
                row.started_at,
                row.lease_until,
                row.is_leaving,
                is_alive=row.lease_until > now,
            )
            for node, row in sorted(self._rows.items())
        ]
        if self._shown[0] != self._version:
            self._shown = (self._version, [owner for _, owner in sorted(self._owners.items())])
        return ClusterView(self._version, members, self._shown[1])

    def may_be_taken_over(self, node: str, session: str | None) -> bool:
        """Whether that life of the node is over; of one that is no member, whether it still owns shards."""
        row = self._rows.get(node)
        if session is None:
            return row is None and any(owner.owner == node for owner in self._owners.values())
        return row is not None and row.session == session and row.lease_until <= self._now()

    def take_over(self, place: Place, node: str, shards: Mapping[str, Sequence[int]]) -> None:
        """Remove a node and give its shards to others. Raises Fenced where who asks is no member."""
        if self._row_of(place) is None:
            raise _no_member(place)
        self._rows.pop(node, None)
        for to, given in shards.items():
            if to in self._rows:
                for shard in given:
                    self._give(shard, node, to)
        self._version += 1

    def move(self, node: str, moves: Iterable[ShardMove]) -> None:
        """Give shards of a node away, to members that stay."""
        moved = [
            self._give(shard, node, to) for shard, to in moves if to in self._rows and not self._rows[to].is_leaving
        ]
        self._version += any(moved)

    def set_leaving(self, place: Place) -> None:
        """Note that it should be given no shards any more."""
        row = self._row_of(place)
        if row is not None and not row.is_leaving:
            row.is_leaving = True
            self._version += 1

    def leave(self, place: Place) -> None:
        """Remove it."""
        if self._row_of(place) is not None:
            del self._rows[place.node]
            self._version += 1

    def note_change(self) -> None:
        """Have every node look: something besides members and shards has changed."""
        self._version += 1

    def _row_of(self, place: Place) -> _Row | None:
        row = self._rows.get(place.node)
        return row if row is not None and row.session == place.session else None

    def _give(self, shard: int, node: str, to: str) -> bool:
        owner = self._owners.get(shard)
        if owner is None or owner.owner != node or node == to:
            return False
        self._owners[shard] = ShardOwner(shard, to, owner.epoch + 1)
        return True


def _no_member(place: Place) -> Fenced:
    return Fenced(f"Node {place.node!r} is no member any more: another node or process has taken its place.")


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1_000_000_000)
