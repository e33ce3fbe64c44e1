"""Which node should own which shard."""

from __future__ import annotations

from collections import Counter

import pytest

from perdure.server.core.shards import SHARDS
from perdure.server.engine.cluster.placement import spread, wished_owners

NODES = tuple(f"10.0.0.{number}:7233" for number in range(1, 9))


@pytest.mark.parametrize("count", range(1, 9))
def test_every_node_gets_about_its_share(count: int) -> None:
    shares = Counter(wished_owners(NODES[:count]))
    assert sum(shares.values()) == SHARDS
    assert min(shares.values()) > SHARDS / count * 0.7
    assert max(shares.values()) < SHARDS / count * 1.3


def test_a_node_that_comes_takes_shards_and_moves_none_between_others() -> None:
    before, after = wished_owners(NODES[:3]), wished_owners(NODES[:4])
    assert {new for old, new in zip(before, after, strict=True) if old != new} == {NODES[3]}


def test_the_order_of_the_names_does_not_matter() -> None:
    assert wished_owners(NODES[:3]) == wished_owners(NODES[2::-1])


def test_shards_are_spread_as_they_wish() -> None:
    by_node = spread([1, 5, 9], NODES)
    wishes = wished_owners(NODES)
    assert {shard: node for node, shards in by_node.items() for shard in shards} == {
        shard: wishes[shard] for shard in (1, 5, 9)
    }
