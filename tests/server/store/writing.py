"""A claimed store that numbers its batches, so that tests speak of entities only."""

from __future__ import annotations

from perdure.server.core.records import EntityWrite
from perdure.server.store.interface import Batch, Store


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
