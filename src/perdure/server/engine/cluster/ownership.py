"""Who owns which shard, and whether this node may serve a workflow now.

A node serves a shard from the moment at which it has read that the shard is its own, until it begins to give it away or
learns that it was taken. What it does not serve it never touches: `require` is asked before every step.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Protocol

from perdure.server.core.errors import Unavailable
from perdure.server.core.records import WorkflowKey
from perdure.server.core.shards import SHARDS, shard_of
from perdure.server.engine.cluster.lease import Lease
from perdure.server.store.interface import ShardOwner


class Elsewhere(Unavailable):
    """Another node owns what the request touches: whoever took the request in passes it on.

    Args:
        shard: The shard it is about.
    """

    def __init__(self, shard: int) -> None:
        super().__init__(f"shard {shard} is being moved to another node; try again")
        self.shard = shard


class Ownership(Protocol):
    """Whether this node may serve a workflow."""

    def require(self, key: WorkflowKey) -> int:
        """Return this node's term, if it may change and show this workflow now.

        Between two calls that return the same term no other node has owned the shard.

        Raises:
            Elsewhere: Another node owns its shard, or will in a moment.
            Unavailable: This node owns it, but cannot be sure of that now.
        """

    def require_registry(self) -> None:
        """Do nothing, if this node is the one that changes namespaces. Raises as `require`."""


class SoleOwner:
    """A node that has its database for itself."""

    def require(self, key: WorkflowKey) -> int:
        """See `Ownership.require`."""
        return 0

    def require_registry(self) -> None:
        """See `Ownership.require_registry`."""


REGISTRY_SHARD = 0
"""Its owner makes all changes of namespaces, so that they go one after the other."""


class ShardOwnership:
    """What one node of a cluster knows about all shards.

    Args:
        node: This node.
        lease: Its lease.
    """

    def __init__(self, node: str, lease: Lease) -> None:
        self._node = node
        self._lease = lease
        self._served = bytearray(SHARDS)
        self._owners = [""] * SHARDS
        self._epochs = [0] * SHARDS
        self._terms = [0] * SHARDS
        """How often this node has begun to serve each shard."""
        self._changed = asyncio.Event()

    def require(self, key: WorkflowKey) -> int:
        """See `Ownership.require`."""
        shard = shard_of(key)
        self.require_shard(shard)
        return self._terms[shard]

    def require_registry(self) -> None:
        """See `Ownership.require_registry`."""
        self.require_shard(REGISTRY_SHARD)

    def require_shard(self, shard: int) -> None:
        """Do nothing, if this node may serve the shard now. Raises as `require`."""
        if not self._served[shard]:
            raise Elsewhere(shard)
        if not self._lease.is_valid():
            raise Unavailable("this node has not reached the database for as long as its lease lasts; try again")

    def serves(self, shard: int) -> bool:
        """Return whether this node serves a shard, its lease aside."""
        return bool(self._served[shard])

    @property
    def served(self) -> frozenset[int]:
        """The shards that this node serves."""
        return frozenset(shard for shard in range(SHARDS) if self._served[shard])

    def owner(self, shard: int) -> str:
        """Return the node that was last known to own a shard, empty for none."""
        return self._owners[shard]

    def serve(self, shards: Iterable[int]) -> None:
        """Begin to serve shards."""
        for shard in shards:
            self._served[shard] = 1
            self._terms[shard] += 1
        self._tell()

    def cease(self, shards: Iterable[int]) -> None:
        """Serve shards no longer."""
        for shard in shards:
            self._served[shard] = 0

    def learn(self, owners: Sequence[ShardOwner]) -> None:
        """Take in what the shard table says; what is older than what is known is passed over."""
        for shard, owner, epoch in owners:
            if epoch >= self._epochs[shard]:
                self._owners[shard] = owner
                self._epochs[shard] = epoch
        self._tell()

    def doubt(self) -> None:
        """Take in what comes next as the truth, however old: the database may have been restored to an older state."""
        self._epochs = [0] * SHARDS

    async def wait_for_change(self, seconds: float) -> None:
        """Return when something of all this has changed, or after that time."""
        changed = self._changed
        try:
            async with asyncio.timeout(seconds):
                await changed.wait()
        except TimeoutError:
            return

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
