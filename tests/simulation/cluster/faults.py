"""What goes wrong in a cluster beyond what goes wrong in a single process: each has a name, a seed decides when."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine, Sequence
from enum import Enum, auto
from typing import Protocol

import msgspec

from tests.simulation.cluster.network import Network
from tests.simulation.cluster.node import ClusterNode
from tests.simulation.processes import ConnectionLost


class ClusterFault(Enum):
    """What can happen to nodes and to what is between them."""

    KILLED = auto()
    """A node ends at any moment, and comes back under its name."""
    KILLED_AND_REPLACED = auto()
    """A node ends, and another one comes instead."""
    STOPPED = auto()
    """A node stops gracefully, and comes back or is replaced."""
    JOINED = auto()
    """A node more."""
    DOUBLED = auto()
    """A second process is started with the name of one that runs."""
    PAUSED_BRIEFLY = auto()
    """A node stands still for less than its lease."""
    PAUSED = auto()
    """A node stands still for longer than its lease."""
    CUT_FROM_DATABASE = auto()
    CUT_FROM_DATABASE_IN_SILENCE = auto()
    """What is on its way hangs, and arrives late or never."""
    DATABASE_AWAY = auto()
    """No node reaches the database."""
    PARTED = auto()
    """Two nodes cannot reach each other, and know it."""
    PARTED_IN_SILENCE = auto()
    """Two nodes hear nothing of each other; what was said is heard late."""
    LINK_BROKEN = auto()
    """The connection between two nodes breaks, with calls in progress; it can be dialled anew."""
    CLOCK_SET = auto()
    """A node's wall clock jumps."""


class ClusterRates(msgspec.Struct, frozen=True):
    """How often these happen."""

    mean_pause_seconds: float = 1.2
    skew_seconds: Sequence[float] = (0.0, 0.0, 2.0, 2.0, 20.0)
    """By how much clocks are off at most, for a seed to choose."""


class Place(Protocol):
    """What faults happen to."""

    network: Network
    lease_seconds: float

    def up(self) -> list[ClusterNode]:
        """Return the nodes that serve."""

    def start(self, work: Coroutine[object, object, None]) -> object:
        """Run something that ends with the world."""

    async def take_down(self, node: ClusterNode) -> None:
        """Stop a node as an operator would."""

    async def bring_up(self, name: str) -> None:
        """Start a node, again and again until it runs."""

    def new_name(self) -> str:
        """Return a name that no node had before."""


class ClusterFaults:
    """Brings these faults about.

    Args:
        rng: Decides everything.
        rates: How often.
        place: Where.
    """

    def __init__(self, rng: random.Random, rates: ClusterRates, place: Place, nodes_max: int) -> None:
        self._rng = rng
        self._rates = rates
        self._place = place
        self._nodes_max = nodes_max
        self.is_on = True
        self.seen: dict[str, int] = {}
        self.skew_seconds = rng.choice(rates.skew_seconds)

    def skew(self) -> float:
        """Return by how much a clock is off."""
        return self._rng.uniform(-self.skew_seconds, self.skew_seconds)

    async def happen(self) -> None:
        """Let things go wrong, for as long as they should."""
        while True:
            await asyncio.sleep(self._rng.expovariate(1 / self._rates.mean_pause_seconds))
            if not self.is_on:
                return
            fault = self._rng.choice(list(ClusterFault))
            nodes = self._place.up()
            if nodes and self._cause(fault, self._rng.choice(nodes), nodes):
                self.seen[fault.name] = self.seen.get(fault.name, 0) + 1

    def _cause(self, fault: ClusterFault, node: ClusterNode, nodes: list[ClusterNode]) -> bool:
        """Bring a fault about; return whether it could happen now."""
        match fault:
            case ClusterFault.KILLED | ClusterFault.KILLED_AND_REPLACED:
                self.kill(node, is_replaced=fault is ClusterFault.KILLED_AND_REPLACED)
            case ClusterFault.STOPPED:
                self._place.start(self._stop(node))
            case ClusterFault.JOINED:
                if len(nodes) >= self._nodes_max:
                    return False
                self._place.start(self._place.bring_up(self._place.new_name()))
            case ClusterFault.DOUBLED:
                self._place.start(self._place.bring_up(node.name))
            case ClusterFault.PAUSED_BRIEFLY | ClusterFault.PAUSED:
                lease = self._place.lease_seconds
                is_brief = fault is ClusterFault.PAUSED_BRIEFLY
                seconds = self._rng.uniform(0.1, lease) if is_brief else self._rng.uniform(lease, 3 * lease)
                self._place.start(self._pause(node, seconds))
            case ClusterFault.CLOCK_SET:
                node.clock.skew_seconds = self.skew()
            case _:
                return self._cut(fault, node, nodes)
        return True

    def _cut(self, fault: ClusterFault, node: ClusterNode, nodes: list[ClusterNode]) -> bool:
        seconds = self._rng.uniform(0.2, 3 * self._place.lease_seconds)
        in_silence = fault in (ClusterFault.CUT_FROM_DATABASE_IN_SILENCE, ClusterFault.PARTED_IN_SILENCE)
        match fault:
            case ClusterFault.CUT_FROM_DATABASE | ClusterFault.CUT_FROM_DATABASE_IN_SILENCE:
                node.road.cut(seconds, in_silence=in_silence)
                return True
            case ClusterFault.DATABASE_AWAY:
                for each in nodes:
                    each.road.cut(seconds, in_silence=self._rng.random() < 0.5)
                return True
            case _:
                others = [other for other in nodes if other.name != node.name]
                if not others:
                    return False
                ends = frozenset((node.name, self._rng.choice(others).name))
                if fault is ClusterFault.LINK_BROKEN:
                    self._place.network.break_link(ends)
                else:
                    self._place.network.part(ends, seconds, in_silence=in_silence)
                return True

    def kill(self, node: ClusterNode, *, is_replaced: bool = False) -> None:
        """End a node, and have it or another one come back."""
        node.kill()
        self._place.start(self._come_back(self._place.new_name() if is_replaced else node.name))

    async def _come_back(self, name: str) -> None:
        await asyncio.sleep(self._rng.uniform(0.01, 2 * self._place.lease_seconds))
        await self._place.bring_up(name)

    async def _stop(self, node: ClusterNode) -> None:
        try:
            await self._place.take_down(node)
        except ConnectionLost:
            # It was killed while it stopped, and comes back for that.
            return
        await self._come_back(self._rng.choice((node.name, self._place.new_name())))

    async def _pause(self, node: ClusterNode, seconds: float) -> None:
        node.freeze()
        await asyncio.sleep(seconds)
        node.thaw()

    def stop(self, nodes: Sequence[ClusterNode]) -> None:
        """End all faults, those under way included."""
        self.is_on = False
        self._place.network.heal()
        for node in nodes:
            node.faults.stop()
            node.road.heal()
            node.thaw()
