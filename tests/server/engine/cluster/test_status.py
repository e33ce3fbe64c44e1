"""What a node tells people of its cluster."""

from __future__ import annotations

from perdure.server.engine.cluster.status import status_of
from perdure.server.store.interface import ClusterView, Member, ShardOwner

SECOND = 1_000_000_000


def member(node: str, lease_until: float, *, is_alive: bool = True) -> Member:
    return Member(node, f"session of {node}", "1.0", 0, int(lease_until * SECOND), False, is_alive)


def test_leases_are_told_by_the_database_s_clock() -> None:
    view = ClusterView(1, [member("a", 105), member("b", 103), member("c", 98, is_alive=False)], [])
    status = status_of(view, "a", {"b"}, lease_seconds=5)
    assert [(node.node, node.lease_seconds_left) for node in status.nodes] == [("a", 5), ("b", 3), ("c", -2)]
    assert [node.is_linked for node in status.nodes] == [True, True, False]


def test_shards_of_a_node_that_is_no_member_are_told_too() -> None:
    view = ClusterView(1, [member("a", 105)], [ShardOwner(0, "a", 1), ShardOwner(1, "gone", 1)])
    status = status_of(view, "a", (), lease_seconds=5)
    assert [(node.node, node.shards, node.is_alive) for node in status.nodes] == [("a", 1, True), ("gone", 1, False)]
