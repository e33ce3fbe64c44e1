"""The namespaces of a cluster: one node makes all changes, and the others read them before the caller is answered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perdure.server.engine.cluster.services import READ_NAMESPACES

if TYPE_CHECKING:
    from perdure.server.engine.cluster.cluster import Cluster


class NamespaceFellows:
    """The other nodes of a cluster, as `Namespaces` knows them."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def require_registry(self) -> None:
        """See `Fellows.require_registry`."""
        self._cluster.ownership.require_registry()

    async def tell(self) -> bool:
        """See `Fellows.tell`. One that cannot be reached reads them when it can."""
        answers = await self._cluster.ask_all(READ_NAMESPACES, b"")
        return len(answers) == self._cluster.others_count
