"""Which node should own which shard: a wish. What is true is in the shard table; see `membership.py`.

Rendezvous hashing: each shard wishes for the node whose hash with it is highest, so a node that comes takes an equal
part from each of the others, and one that goes leaves its shards to all of them. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b

from perdure.server.core.shards import SHARDS


@lru_cache(maxsize=64)
def wished_owners(nodes: tuple[str, ...]) -> tuple[str, ...]:
    """Return the node that each shard wishes for.

    Args:
        nodes: The names of all nodes that may own shards, in any order; at least one.
    """
    return tuple(max(nodes, key=lambda node: _attraction(node, shard)) for shard in range(SHARDS))


def spread(shards: Iterable[int], nodes: Sequence[str]) -> Mapping[str, Sequence[int]]:
    """Return which of the shards should go to which node."""
    wishes = wished_owners(tuple(sorted(nodes)))
    by_node: dict[str, list[int]] = {}
    for shard in shards:
        by_node.setdefault(wishes[shard], []).append(shard)
    return by_node


def _attraction(node: str, shard: int) -> bytes:
    # Not a CRC: that is linear, and three nodes would share 2 to 1 to 1.
    return blake2b(f"{node}\0{shard}".encode(), digest_size=8).digest()
