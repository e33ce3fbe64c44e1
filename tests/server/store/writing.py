"""A claimed store that numbers its batches, so that tests speak of entities only."""

from __future__ import annotations

from collections.abc import Sequence

from perdure.server.core.records import EntityWrite
from perdure.server.store.interface import Batch, ClusterStore, ShardMove, Store


class Writer:
    """Commits batches as one node does, numbering them as the fence asks for."""

    def __init__(self, store: Store, batch: int) -> None:
        self.store = store
        self.batch = batch

    @classmethod
    async def claim(cls, store: Store, node: str = "node") -> Writer:
        claim = await store.claim(node)
        return cls(store, claim.batch)

    async def commit(self, *writes: EntityWrite) -> None:
        """Commit the entities in one batch; a batch that fails gives its number back."""
        await self.store.commit(Batch(self.batch + 1, list(writes)))
        self.batch += 1


class Node:
    """A node of a cluster: a store that joined under a name, and numbers its batches.

    Args:
        name: Its address.
        store: Its own store on the database of all.
    """

    def __init__(self, name: str, store: ClusterStore) -> None:
        self.name = name
        self.store = store
        self.batch = 0

    async def join(self, session: str, lease_seconds: float, release: str = "1.0") -> None:
        """Join under its name; a lease of no seconds has ended at once."""
        claim = await self.store.join(self.name, session, release, lease_seconds)
        self.batch = claim.batch

    async def commit(self, *writes: EntityWrite, moves: Sequence[ShardMove] = ()) -> None:
        """Commit entities and moves of shards in one batch; a batch that fails gives its number back."""
        await self.store.commit(Batch(self.batch + 1, list(writes), list(moves)))
        self.batch += 1

    async def take_over(self, node: str, session: str | None, *shards: int) -> bool:
        """Declare a node dead and take these shards of it, or all."""
        taken = shards or [each.shard for each in (await self.store.read_view()).shards if each.owner == node]
        return await self.store.take_over(node, session, {self.name: taken})

    async def shards(self) -> set[int]:
        """Return the shards it owns."""
        return {each.shard for each in (await self.store.read_view()).shards if each.owner == self.name}
