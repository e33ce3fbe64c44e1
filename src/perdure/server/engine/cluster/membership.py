"""A node's life as a member: prolongs its lease, learns who owns what, gives shards away, takes those of the dead.

The database is the only authority. Every change of ownership is a transaction there, and every node follows what it
reads; what nodes tell each other only makes them read sooner. Two changes exist:

- A node *gives a shard away*: it stops serving it, and its committer moves the row in a batch behind all that it has
  written for the shard. Nodes do so when another one is wished for the shard (`placement.py`), and when they stop.
- A node *takes the shards of a dead one*: its lease has ended by the database's clock, and the transaction that moves
  the rows bumps its fence first. Only a node that has held its own lease without a break for a whole lease may do that,
  so that nobody is declared dead after the database was away from all.

A node that finds itself replaced forgets all it holds and joins anew, unless its name is used by another process.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Protocol

from perdure.server.core.errors import ServerError
from perdure.server.engine.background import run_for_ever
from perdure.server.engine.clock import Clock
from perdure.server.engine.cluster.errors import AddressInUse
from perdure.server.engine.cluster.lease import Lease
from perdure.server.engine.cluster.node import Node
from perdure.server.engine.cluster.ownership import ShardOwnership
from perdure.server.engine.cluster.placement import spread, wished_owners
from perdure.server.engine.cluster.settings import ClusterSettings
from perdure.server.store.interface import Claim, ClusterStore, ClusterView, Fenced, Member, ShardMove, StoreError

_logger = logging.getLogger(__name__)
_RETRY_SECONDS = 0.5
_NANOS = 1_000_000_000
_RENEWED_LEASES = 1
"""A process that prolongs its lease by more than this while it is waited for is alive."""


class Host(Protocol):
    """Who passes on to the rest of the cluster what one member learns."""

    def members_changed(self, members: Sequence[Member]) -> None:
        """These are the members now, this node among them."""

    def tell_of_change(self) -> None:
        """Have the other nodes read the view anew."""


class Membership:
    """One node among the members of its cluster.

    Args:
        store: Where the truth is.
        clock: For new sessions, and the clock that runs through suspension.
        node: This node's name, which is the address at which the others reach it.
        release: The release it runs.
        lease: Its lease.
        ownership: What it knows and serves.
        host: The rest of the cluster's machinery.
        settings: Times.
    """

    def __init__(
        self,
        store: ClusterStore,
        clock: Clock,
        node: str,
        release: str,
        lease: Lease,
        ownership: ShardOwnership,
        host: Host,
        settings: ClusterSettings,
    ) -> None:
        self.node = node
        self.session = ""
        self._sessions: set[str] = set()
        """All that this process ever had: a request to join may be carried out late."""
        self.release = release
        self._store = store
        self._clock = clock
        self._lease = lease
        self._ownership = ownership
        self._host = host
        self._node: Node
        self._settings = settings
        self._view = ClusterView(-1, [], [])
        self._giving: set[int] = set()
        """Shards that this node has stopped serving and is about to move."""
        self._look_at = 0.0
        """When to read the view at the latest, on the uptime clock: the lease of another may end then."""
        self._is_told_to_look = False
        self._is_leaving = False
        self._is_replaced = False
        self._is_member = False
        """Whether it has joined and does not know of having been replaced; else it serves nothing."""
        self._wake = asyncio.Event()
        self._looking = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def view(self) -> ClusterView:
        """What was read last."""
        return self._view

    @property
    def holds_its_lease(self) -> bool:
        """Whether no other node can have taken what this one owns."""
        return self._lease.is_valid()

    @property
    def is_leaving(self) -> bool:
        """Whether this node is about to stop."""
        return self._is_leaving

    def attach(self, node: Node) -> None:
        """Take the engine of this node, before anything else."""
        self._node = node

    async def join(self) -> Claim:
        """Become a member; serving begins with `start`.

        A process that had this name before may have been killed, or may live on unnoticed: it is let be until its lease
        has ended, for as long it answers reads without asking the database.

        Raises:
            AddressInUse: It prolongs its lease.
            StoreError: The database is away.
        """
        await self._wait_for_end_of_namesake()
        # No look may end later that began earlier: it would show what the former life owned.
        async with self._looking:
            self.session = self._clock.new_nonce()
            self._sessions.add(self.session)
            sent_at = self._clock.uptime()
            claim = await self._store.join(self.node, self.session, self.release, self._settings.lease_seconds)
            self._lease.renewed(sent_at)
            self._is_member = True
            # What is in the indexes is shown as it is gained.
            self._store.limit_to(self._ownership.served)
        return claim

    async def _wait_for_end_of_namesake(self) -> None:
        first = latest = await self._namesake_lease()
        while first is not None and latest is not None:
            if latest - first > _RENEWED_LEASES * int(self._settings.lease_seconds * _NANOS):
                raise AddressInUse(f"another process uses the address {self.node}: give each node one of its own")
            await asyncio.sleep(self._settings.lease_seconds / self._settings.renewals_per_lease)
            latest = await self._namesake_lease()

    async def _namesake_lease(self) -> int | None:
        """Return until when another process with this name has a lease; None where there is none."""
        for member in (await self._store.read_view()).members:
            if member.node == self.node and member.session not in self._sessions and member.is_alive:
                return member.lease_until
        return None

    async def start(self) -> None:
        """Serve what is this node's, and begin to live with the others."""
        await self.look()
        self._host.tell_of_change()
        self._tasks.append(run_for_ever(self._renew_for_ever(), "renewal of the lease"))
        self._tasks.append(run_for_ever(self._live_for_ever(), "membership"))

    async def leave(self) -> None:
        """Give all shards to the others, if there are any, and tell the database that this node has stopped."""
        if self._is_leaving:
            return
        self._is_leaving = True
        try:
            await self._store.set_leaving()
            await self.look()
        except StoreError as error:
            _logger.warning("the shards were not given away; they are taken when the lease ends: %s", error)

    async def stop(self) -> None:
        """End this node's membership, when nothing of it is in progress any more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._is_replaced:
            return
        try:
            await self._store.leave()
        except StoreError as error:
            _logger.warning("the others learn only by the end of its lease that this node has stopped: %s", error)

    def look_soon(self) -> None:
        """Read the view at once: something in it has changed."""
        self._is_told_to_look = True
        self._look_at = 0.0
        self._wake.set()

    def replaced(self) -> None:
        """Take note that this node's fence was bumped."""
        self._is_replaced = True
        self._is_member = False
        self._lease.lose()
        self._wake.set()

    # --- the lease ----------------------------------------------------------------------------------------------------

    async def _renew_for_ever(self) -> None:
        """Prolong the lease, whatever else takes long: giving shards away waits for a batch, taking them for a lock."""
        interval = self._settings.lease_seconds / self._settings.renewals_per_lease
        while True:
            await asyncio.sleep(interval)
            if self._is_replaced:
                continue
            session = self.session
            try:
                await self._renew(session)
            except Fenced as error:
                if session == self.session:
                    _logger.error("this node was declared dead: %s", error)
                    self.replaced()
            except StoreError as error:
                _logger.warning("the lease cannot be renewed, trying again: %s", error)

    async def _renew(self, session: str) -> None:
        sent_at = self._clock.uptime()
        version = await self._store.renew(self._settings.lease_seconds)
        if self._is_replaced or session != self.session:
            # By now it is known better.
            return
        self._lease.renewed(sent_at)
        if version != self._view.version:
            self.look_soon()

    # --- the loop -----------------------------------------------------------------------------------------------------

    async def _live_for_ever(self) -> None:
        while True:
            await self._sleep_until(self._look_at)
            try:
                if self._is_replaced:
                    await self._join_anew()
                elif self._clock.uptime() >= self._look_at:
                    await self.look()
            except Fenced as error:
                _logger.error("this node was declared dead: %s", error)
                self.replaced()
            except StoreError as error:
                _logger.warning("the cluster's state cannot be read or changed, trying again: %s", error)
                self._look_at = self._clock.uptime() + _RETRY_SECONDS

    async def _sleep_until(self, when: float) -> None:
        delay = when - self._clock.uptime()
        if self._is_replaced:
            delay = _RETRY_SECONDS
        elif delay <= 0:
            return
        try:
            async with asyncio.timeout(delay):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()

    async def _join_anew(self) -> None:
        self._serve_nothing()
        await self._node.replaced()
        if await self._namesake_lease() is not None:
            _logger.critical("another process uses the address %s: give each node one of its own", self.node)
            self._node.give_up()
            return
        claim = await self.join()
        self._is_replaced = False
        self._node.resume(claim)
        _logger.warning("this node has joined its cluster anew")
        await self.look()

    def _serve_nothing(self) -> None:
        served = self._ownership.served
        self._ownership.cease(served)
        self._giving.clear()
        self._store.limit_to(frozenset())
        self._ownership.doubt()
        self._view = self._view._replace(version=-1)

    # --- the view -----------------------------------------------------------------------------------------------------

    async def look(self) -> None:
        """Read the view and act on it until nothing is left to do. Raises StoreError."""
        async with self._looking:
            while True:
                asked_at = self._clock.uptime()
                self._is_told_to_look = False
                view = await self._store.read_view()
                self._take(view, asked_at)
                if not self._is_member or not await self._act(view):
                    return

    def _take(self, view: ClusterView, asked_at: float) -> None:
        if view.version < self._view.version:
            _logger.critical("the database shows an older state than before, as if it was restored: all is read anew")
            self.replaced()
            return
        mine = frozenset(row.shard for row in view.shards if row.owner == self.node)
        if view.version != self._view.version:
            self._ownership.learn(view.shards)
            self._node.view_changed()
        self._view = view
        # Who has told of a change during the read may not see it in what was read.
        self._look_at = 0.0 if self._is_told_to_look else asked_at + self._seconds_to_next_end(view)
        self._host.members_changed(view.members)
        if not self._is_member:
            return
        served = self._ownership.served
        lost, gained = served - mine, mine - served - self._giving
        if lost:
            # Nobody moves what we serve but ourselves, or who has fenced us.
            self._ownership.cease(lost)
            self._node.released(frozenset(lost))
        if lost or gained:
            self._store.limit_to(served - lost | gained)
        if gained:
            self._node.gained(frozenset(gained))
            self._ownership.serve(gained)
            _logger.info("this node serves %d shards more", len(gained))

    def _seconds_to_next_end(self, view: ClusterView) -> float:
        """Return in how long the lease of another may end, by the database's clock as our own row tells it."""
        own = [member.lease_until for member in view.members if member.node == self.node]
        others = [member.lease_until for member in view.members if member.node != self.node]
        if not own or not others:
            return self._settings.lease_seconds
        database_now = own[0] - int(self._settings.lease_seconds * _NANOS)
        soonest = (min(others) - database_now) / _NANOS
        interval = self._settings.lease_seconds / self._settings.renewals_per_lease
        return min(max(soonest, interval / 4), self._settings.lease_seconds)

    async def _act(self, view: ClusterView) -> bool:
        """Do what the view calls for; return whether it has changed by that."""
        if await self._take_from_the_dead(view):
            self._host.tell_of_change()
            return True
        if await self._give_away_what_others_should_have(view):
            self._host.tell_of_change()
            return True
        return False

    async def _take_from_the_dead(self, view: ClusterView) -> bool:
        alive = [member.node for member in view.members if member.is_alive and not member.is_leaving]
        if not alive or not self._lease.is_valid():
            return False
        changed = False
        sessions = {member.node: member.session for member in view.members}
        dead = {member.node for member in view.members if not member.is_alive and member.node != self.node}
        if not self._lease.may_judge_others():
            dead = set()
        absent = {row.owner for row in view.shards} - sessions.keys()
        for node in sorted(dead | absent):
            theirs = [row.shard for row in view.shards if row.owner == node]
            if await self._store.take_over(node, sessions.get(node), spread(theirs, alive)):
                _logger.warning("node %s has stopped without a word; its %d shards were taken", node, len(theirs))
                changed = True
        return changed

    async def _give_away_what_others_should_have(self, view: ClusterView) -> bool:
        moves = self._wished_moves(view)
        if not moves:
            return False
        shards = {move.shard for move in moves}
        self._ownership.cease(shards)
        self._store.limit_to(self._ownership.served)
        self._giving |= shards
        try:
            await self._node.give_away(moves)
        except ServerError as error:
            _logger.warning("%d shards could not be given away yet: %s", len(shards), error)
            self._look_at = self._clock.uptime() + _RETRY_SECONDS
            return False
        finally:
            # The rows tell now: those that were not moved are served again, with nothing of theirs in memory.
            self._node.released(frozenset(shards))
            self._giving -= shards
        return True

    def _wished_moves(self, view: ClusterView) -> list[ShardMove]:
        nodes = [member.node for member in view.members if member.is_alive and not member.is_leaving]
        if not nodes or (self.node not in nodes and not self._is_leaving):
            # A node that has found the database again before it has prolonged its lease does not make room for others.
            return []
        wishes = wished_owners(tuple(sorted(nodes)))
        return [
            ShardMove(row.shard, wishes[row.shard])
            for row in view.shards
            if row.owner == self.node and wishes[row.shard] != self.node and self._ownership.serves(row.shard)
        ]
