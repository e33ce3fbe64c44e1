"""A node's cluster, put together: its membership, its links, and what goes over them.

The engine is attached to it and is told what it gains and loses; it must never know a workflow.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

from perdure.server.core.errors import ServerError
from perdure.server.engine.background import run_for_ever
from perdure.server.engine.clock import Clock
from perdure.server.engine.cluster.forwarding import Forwarding
from perdure.server.engine.cluster.lease import Lease
from perdure.server.engine.cluster.link import Link
from perdure.server.engine.cluster.links import Dialer, Links
from perdure.server.engine.cluster.membership import Membership
from perdure.server.engine.cluster.node import Node
from perdure.server.engine.cluster.ownership import ShardOwnership
from perdure.server.engine.cluster.queues import BUSY, KNOCK, POLLS, NeighbourQueues
from perdure.server.engine.cluster.services import NodeServices
from perdure.server.engine.cluster.settings import ClusterSettings
from perdure.server.engine.cluster.status import ClusterStatus, status_of
from perdure.server.engine.cluster.stream import ByteStream
from perdure.server.store.interface import Claim, ClusterStore, Member

_logger = logging.getLogger(__name__)

_VIEW_CHANGED: Final = "view changed"


class Cluster:
    """One node among others.

    Args:
        store: Where the cluster's state is.
        clock: Time and fresh ids.
        node: This node's name: the address, as host:port, at which the others reach it.
        release: The release it runs, for people.
        dialer: How to reach others.
        settings: Limits and times.
    """

    def __init__(
        self,
        store: ClusterStore,
        clock: Clock,
        node: str,
        release: str,
        dialer: Dialer,
        settings: ClusterSettings,
    ) -> None:
        self.node = node
        self._settings = settings
        lease = Lease(clock.uptime, settings.lease_seconds, settings.lease_margin)
        self.ownership = ShardOwnership(node, lease)
        self.services = NodeServices()
        self.membership = Membership(store, clock, node, release, lease, self.ownership, self, settings)
        self.links = Links(
            node,
            release,
            clock.new_nonce,
            lambda: self.membership.session,
            dialer,
            self.services,
            self,
            self.membership.look_soon,
            settings,
        )
        self.queues = NeighbourQueues(self.links.peers)
        self.forwarding = Forwarding(node, self.ownership, self.links, self.membership.look_soon, settings)
        self._node: Node
        self._sweep: asyncio.Task[None] | None = None
        self.services.listen((POLLS, KNOCK, BUSY), self.queues.heard)
        self.services.listen((_VIEW_CHANGED,), lambda peer, topic, body: self.membership.look_soon())

    def attach(self, node: Node) -> None:
        """Take the engine of this node, before anything else."""
        self._node = node
        self.membership.attach(node)

    # --- life ---------------------------------------------------------------------------------------------------------

    async def join(self) -> Claim:
        """Become a member; see `Membership.join`."""
        return await self.membership.join()

    async def start(self) -> None:
        """Serve this node's shards, and begin to live with the others."""
        await self.membership.start()
        self._sweep = run_for_ever(self._sweep_for_ever(), "sweep of polled queues")

    async def leave(self) -> None:
        """Give all shards away; what is in progress goes on, and what comes is passed on."""
        await self.membership.leave()

    async def hang_up(self) -> None:
        """Close all links, once what is in progress over them has ended or has had its time."""
        if self._sweep is not None:
            self._sweep.cancel()
            await asyncio.gather(self._sweep, return_exceptions=True)
        await self.links.finish(self._settings.hang_up_seconds)
        await self.links.stop()

    async def stop(self) -> None:
        """End this node's membership, when nothing of it is in progress any more."""
        await self.membership.stop()

    async def accept(self, stream: ByteStream) -> None:
        """Serve a stream that another node has opened, until it ends."""
        await self.links.accept(stream)

    async def ask_all(self, service: str, body: bytes) -> list[bytes]:
        """Ask all nodes that can be reached; return the answers of those that answer in time."""
        deadline = asyncio.get_running_loop().time() + self._settings.ask_timeout_seconds
        asked = [self._ask(link, service, body, deadline) for link in self.links.peers()]
        return [answer for answer in await asyncio.gather(*asked) if answer is not None]

    @property
    def others_count(self) -> int:
        """How many other members there are, whether they can be reached or not."""
        return sum(member.node != self.node for member in self.membership.view.members)

    async def _ask(self, link: Link, service: str, body: bytes, deadline: float) -> bytes | None:
        try:
            async with asyncio.timeout_at(deadline):
                return await link.call(service, body, deadline=deadline)
        except (ServerError, TimeoutError) as error:
            _logger.info("node %s does not answer %r: %s", link.peer, service, error)
            return None

    def status(self) -> ClusterStatus:
        """Return what this node knows of all nodes."""
        linked = {link.peer for link in self.links.peers()}
        return status_of(self.membership.view, self.node, linked, self._settings.lease_seconds)

    # --- for the membership -------------------------------------------------------------------------------------------

    def members_changed(self, members: Sequence[Member]) -> None:
        """Have links to all other members."""
        self.links.set_members({member.node: member.session for member in members if member.node != self.node})

    def tell_of_change(self) -> None:
        """Have the other nodes read the view anew."""
        self.links.cast(_VIEW_CHANGED, b"")

    # --- for the links ------------------------------------------------------------------------------------------------

    def linked(self, link: Link) -> None:
        """Begin anew with a node that can be reached."""
        _logger.info("linked with node %s", link.peer)
        self.queues.linked(link)
        self._node.linked()
        # One of the two may have joined just now: then there are shards to be given.
        self.membership.look_soon()

    def unlinked(self, peer: str) -> None:
        """Forget what is known of a node that cannot be reached, and look whether it lives."""
        _logger.info("node %s cannot be reached", peer)
        self.queues.unlinked(peer)
        self.membership.look_soon()

    async def _sweep_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._settings.queue_sweep_seconds)
            self.queues.sweep()
