"""A node of the simulated cluster: a whole server but for its sockets, in a process that can be frozen or killed."""

from __future__ import annotations

import asyncio
import random

from perdure.server.core.errors import ServerError
from perdure.server.engine.clock import uuid7
from perdure.server.engine.cluster.cluster import Cluster
from perdure.server.engine.cluster.services import RPC
from perdure.server.engine.engine import Engine
from perdure.server.engine.settings import EngineSettings
from perdure.server.handlers.dispatch import Dispatcher
from perdure.server.handlers.registry import methods
from perdure.server.handlers.server import Server
from perdure.server.store.interface import StoreError
from perdure.server.store.memory import MemoryDatabase
from tests.simulation.cluster.door import NodeDoor
from tests.simulation.cluster.freezing import FreezingLoop
from tests.simulation.cluster.network import Network
from tests.simulation.cluster.store import NodeStore, Road
from tests.simulation.faults import Faults
from tests.simulation.processes import ConnectionLost, Process
from tests.virtual_time import VirtualClock


class SkewedClock(VirtualClock):
    """A node's clocks: one that shows another time than those of others, and one that counts from its boot."""

    def __init__(self, rng: random.Random, skew_seconds: float) -> None:
        super().__init__()
        self._rng = rng
        self._boot = rng.uniform(-1e6, 0)
        self.skew_seconds = skew_seconds

    def now(self) -> int:
        return super().now() + round(self.skew_seconds * 1_000) * 1_000_000

    def uptime(self) -> float:
        return super().uptime() - self._boot

    def new_run_id(self) -> str:
        return uuid7(self.now() // 1_000_000, self._rng.getrandbits(74))

    def new_nonce(self) -> str:
        return f"{self._rng.getrandbits(96):024x}"


class ClusterNode(Process):
    """One life of one node.

    Args:
        number: Of this process, from 1.
        name: The address of the node; others may have had it before.
        database: What all nodes share.
        network: How they reach each other.
        road: How it reaches the database.
        faults: What happens in its store.
        rng: Ids and clocks come from it.
        skew_seconds: How much its wall clock is off.
        settings: Of its engine.
    """

    def __init__(
        self,
        number: int,
        name: str,
        database: MemoryDatabase,
        network: Network,
        road: Road,
        faults: Faults,
        rng: random.Random,
        skew_seconds: float,
        settings: EngineSettings,
    ) -> None:
        super().__init__(number)
        self.name = name
        self.road = road
        self.faults = faults
        self.clock = SkewedClock(rng, skew_seconds)
        self.is_up = False
        """Whether it has started, and has not begun to stop."""
        self._network = network
        self._store = NodeStore(database, name, self, faults, road)
        self.cluster = Cluster(self._store, self.clock, name, "simulated", network.dialer(name, self), settings.cluster)
        self.engine = Engine(self._store, self.clock, settings, self.cluster)
        server = Server(self.engine, self.engine.namespaces, database.cluster_id)
        dispatcher = Dispatcher(server, methods(), self.cluster.forwarding)
        self.cluster.services.offer(RPC, dispatcher.serve_forwarded)
        self.door = NodeDoor(dispatcher)

    async def start(self) -> bool:
        """Start it; False where the database was away."""
        try:
            await self.call(self._start())
        except (StoreError, ServerError, ConnectionLost):
            self.kill()
            return False
        self.is_up = True
        return True

    async def _start(self) -> None:
        await self._store.open()
        await self.engine.start()
        self._network.listen(self.name, self, self.cluster.accept)

    async def stop(self) -> None:
        """Stop it as an operator would."""
        self.is_up = False
        await self.call(self.engine.stop())
        self.kill()

    def kill(self) -> None:
        if self.is_dead:
            return
        self.is_up = False
        # What it does while its tasks end reaches nobody any more.
        self._network.vanish(self.name, self)
        super().kill()
        if self.is_frozen:
            _loop().thaw(self)

    def freeze(self) -> None:
        """Let it stand still."""
        if not self.is_frozen and not self.is_dead:
            _loop().freeze(self)

    def thaw(self) -> None:
        """Let it go on."""
        if self.is_frozen:
            _loop().thaw(self)

    @property
    def shown_shards(self) -> frozenset[int] | None:
        """The shards that indexes show it."""
        return self._store._session._shards

    def believes_to_own(self, shard: int) -> bool:
        """Return whether it would serve a shard now."""
        return self.cluster.ownership.serves(shard) and self.cluster.membership._lease.is_valid()


def _loop() -> FreezingLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, FreezingLoop), "nodes are frozen on a loop that can"
    return loop
