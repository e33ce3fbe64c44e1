"""Passing on what another node has to answer: one hop, to the owner of the shard that it is about.

While a shard is on its way from one node to another, or its owner cannot be reached, a request waits here for a while.
It is sent again only where the other node cannot have carried it out, or where that would do no harm.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from perdure.server.core.errors import Unavailable
from perdure.server.engine.client_software import UNKNOWN, ClientSoftware
from perdure.server.engine.cluster.errors import LinkDown, LinkLost
from perdure.server.engine.cluster.link import Late
from perdure.server.engine.cluster.links import Links
from perdure.server.engine.cluster.ownership import Elsewhere, ShardOwnership
from perdure.server.engine.cluster.settings import ClusterSettings

_FIRST_PAUSE_SECONDS = 0.005
_LAST_PAUSE_SECONDS = 0.25


class Forwarding:
    """Asks owners.

    Args:
        node: This node.
        ownership: Who owns what.
        links: How to reach them.
        look_soon: Has the view read anew, where it seems to be old.
        settings: Times.
    """

    def __init__(
        self,
        node: str,
        ownership: ShardOwnership,
        links: Links,
        look_soon: Callable[[], None],
        settings: ClusterSettings,
    ) -> None:
        self._node = node
        self._ownership = ownership
        self._links = links
        self._look_soon = look_soon
        self._patience_seconds = settings.patience_seconds

    async def ask_owner(
        self,
        shard: int,
        service: str,
        body: bytes,
        *,
        deadline: float | None = None,
        client: ClientSoftware = UNKNOWN,
        is_repeatable: bool = True,
        late: Late | None = None,
    ) -> bytes | None:
        """Have the node that owns a shard answer.

        Args:
            shard: The shard.
            service: Which service of that node.
            body: The question.
            deadline: Until when the caller waits, as `loop.time()`.
            client: Which software the caller uses.
            is_repeatable: Whether it may be sent again where it may have been carried out already.
            late: What to do with an answer that comes when this call was cancelled.

        Returns:
            The answer; None where this node has come to own the shard.

        Raises:
            ServerError: What the owner answers instead, or that nobody could be asked in time.
        """
        loop = asyncio.get_running_loop()
        patience_ends = loop.time() + self._patience_seconds
        if deadline is not None:
            patience_ends = min(patience_ends, deadline)
        pause = _FIRST_PAUSE_SECONDS
        reason: Unavailable = Elsewhere(shard)
        while True:
            owner = self._ownership.owner(shard)
            if owner == self._node:
                if self._ownership.serves(shard):
                    return None
            elif owner:
                try:
                    link = self._links.to(owner)
                    return await link.call(service, body, deadline=deadline, client=client, late=late)
                except Elsewhere:
                    # Either this node does not know yet whose the shard is, or the owner itself does not.
                    self._look_soon()
                except LinkDown as error:
                    reason = error
                except LinkLost as error:
                    if not is_repeatable:
                        raise
                    reason = error
            if self._links.is_stopped:
                raise Unavailable("the server is stopping")
            if loop.time() >= patience_ends:
                raise Unavailable(reason.message)
            await self._ownership.wait_for_change(min(pause, patience_ends - loop.time()))
            pause = min(2 * pause, _LAST_PAUSE_SECONDS)
