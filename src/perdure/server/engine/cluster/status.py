"""What a node tells people of its cluster."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

import msgspec

from perdure.server.store.interface import ClusterView

_NANOS = 1_000_000_000


class NodeStatus(msgspec.Struct):
    """One node as another knows it."""

    node: str
    release: str
    started_at: int
    """By the database's clock, in nanoseconds since the epoch; 0 where it is not a member."""
    lease_seconds_left: float
    """When the view was read; negative where the lease has ended."""
    is_alive: bool
    is_leaving: bool
    is_linked: bool
    """Whether the node that tells can reach it."""
    shards: int
    """How many it owns."""


class ClusterStatus(msgspec.Struct):
    """The cluster as one node knows it."""

    node: str
    """Who tells."""
    version: int
    """Of the view: rises with every change of members and owners."""
    nodes: list[NodeStatus]


def status_of(view: ClusterView, node: str, linked: Collection[str], lease_seconds: float) -> ClusterStatus:
    """Return what a view tells.

    Args:
        view: The view.
        node: Who has read it; its own lease was prolonged just before.
        linked: The nodes it can reach.
        lease_seconds: How long a lease lasts.
    """
    shards = Counter(row.owner for row in view.shards)
    own = next((member.lease_until for member in view.members if member.node == node), 0)
    now = own - int(lease_seconds * _NANOS)
    nodes = [
        NodeStatus(
            member.node,
            member.release,
            member.started_at,
            (member.lease_until - now) / _NANOS,
            member.is_alive,
            member.is_leaving,
            member.node == node or member.node in linked,
            shards.pop(member.node, 0),
        )
        for member in view.members
    ]
    nodes += [NodeStatus(owner, "", 0, 0.0, False, False, False, count) for owner, count in shards.items()]
    return ClusterStatus(node, view.version, nodes)
