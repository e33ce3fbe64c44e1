"""What must hold in a cluster: nobody acts on what another one owns, and nothing is left in memory in the end."""

from __future__ import annotations

from collections.abc import Sequence

from tests.simulation.cluster.node import ClusterNode
from tests.simulation.processes import process_of


def check_sole_owner(shard: int, nodes: Sequence[ClusterNode]) -> None:
    """Check, as a node acts on a shard, that it may and that no other node would."""
    acting = process_of(None)
    assert isinstance(acting, ClusterNode), "workflows live in nodes"
    if acting.is_dead:
        # Its tasks are ending; nothing of that reaches anybody.
        return
    assert acting.believes_to_own(shard), f"{acting.name} acts on shard {shard}, which it does not serve"
    for node in nodes:
        if node is not acting and not node.is_dead:
            assert not node.believes_to_own(shard), f"{acting.name} and {node.name} serve shard {shard}"


def check_nothing_left(node: ClusterNode) -> None:
    """Check that a node which nobody has called for a while holds nothing that only callers and shards are held for."""
    engine, cluster = node.engine, node.cluster
    left = {
        "waiters": len(engine._waiters),
        "queries": len(engine._queries._callers) + len(engine._queries._query_ids_of_runs),
        "answered queries": len(engine._queries._answered) + len(engine._queries._queues),
        "turns of deliveries": len(engine._deliveries._turns._locks),
        "messages": len(engine._outbox) + len(engine._outbox._waiting) + len(engine._outbox._unsure),
        "background tasks": len(engine.background._tasks) + len(engine._recoveries._tasks),
        "loads": len(engine._cache._wanted),
        "entries of batches": len(engine._committer._collecting.entries) + len(engine._committer._in_flight.entries),
        "shards being given away": len(cluster.membership._giving),
    }
    for link in cluster.links.peers():
        left[f"calls to {link.peer}"] = len(link._waiting)
        left[f"calls of {link.peer}"] = len(link._serving)
        left[f"answers of {link.peer} that nobody waits for"] = len(link._late)
    for loaded in engine.matcher._queues.values():
        left[f"polls of {loaded.key.name}"] = loaded.tasks.parked_count
        left[f"offers in flight of {loaded.key.name}"] = len(loaded.tasks._in_flight)
    for key, here in cluster.queues._here.items():
        left[f"visits for {key.name}"] = sum(hint.visits for hint in here.hints.values())
    left["shards of others in the indexes"] = len((node.shown_shards or frozenset()) ^ cluster.ownership.served)
    left = {name: count for name, count in left.items() if count}
    assert not left, f"{node.name} holds what nobody needs: {left}"
