"""The simulated world of a cluster: several nodes on one database that come and go, and those who call any."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

import msgspec

from perdure.server.core.records import WorkflowKey
from perdure.server.core.shards import shard_of
from perdure.server.engine.cluster.settings import ClusterSettings
from perdure.server.engine.settings import EngineSettings
from tests.simulation.cluster.checks import check_nothing_left, check_sole_owner
from tests.simulation.cluster.faults import ClusterFaults, ClusterRates
from tests.simulation.cluster.freezing import FreezingLoop
from tests.simulation.cluster.network import Network
from tests.simulation.cluster.node import ClusterNode
from tests.simulation.cluster.store import Road
from tests.simulation.faults import FaultRates, Faults
from tests.simulation.processes import ConnectionLost, new_database
from tests.simulation.simulation import Stage
from tests.simulation.world import CallFailed, Request, World, seeded, small_settings
from tests.virtual_time import VirtualClock

T = TypeVar("T")

NODES_MAX: Final = 4
_SETTLING_SECONDS: Final = 10.0
"""After so long without callers and faults nothing may be left in memory."""


class ClusterWorld(World):
    """The world of several nodes.

    Args:
        seed: Decides everything.
        rates: How often commits meet faults.
    """

    def __init__(self, seed: int, rates: FaultRates | None = None) -> None:
        self._cluster_faults = ClusterFaults(seeded(seed, "cluster faults"), ClusterRates(), self, NODES_MAX)
        super().__init__(seed, new_database(VirtualClock().now), self._cluster_faults)
        rng = self.rng("settings")
        cluster = ClusterSettings(
            lease_seconds=rng.choice((3.0, 5.0)),
            renewals_per_lease=3,
            patience_seconds=rng.choice((1.0, 10.0)),
            queue_sweep_seconds=rng.choice((0.5, 2.0)),
        )
        self._settings: EngineSettings = msgspec.structs.replace(
            small_settings(rng), cluster=cluster, alarm_horizon_seconds=rng.choice((5.0, 60.0))
        )
        self._rates = rates or FaultRates()
        self.lease_seconds = cluster.lease_seconds
        self.network = Network(self.rng("network"), rng.choice((0.0005, 0.002, 0.2)))
        self._nodes: list[ClusterNode] = []
        self._names = 0
        self._on_the_way = 0
        """How many nodes are being brought up or taken down."""
        self._acts: dict[asyncio.Task[None], None] = {}
        self._count = rng.randint(2, 3)

    # --- nodes ------------------------------------------------------------------------------------------------------

    def up(self) -> list[ClusterNode]:
        """Return the nodes that serve."""
        return [node for node in self._nodes if node.is_up]

    def new_name(self) -> str:
        """Return a name that no node had before."""
        self._names += 1
        return f"node {self._rng.choice('abcxyz')}{self._names}"

    async def bring_up(self, name: str) -> None:
        """Start a node, again and again until it or another process of its name runs."""
        with self._moving():
            await self._bring_up(name)

    async def take_down(self, node: ClusterNode) -> None:
        """Stop a node as an operator would."""
        with self._moving():
            await node.stop()

    @contextmanager
    def _moving(self) -> Iterator[None]:
        self._on_the_way += 1
        try:
            yield
        finally:
            self._on_the_way -= 1

    async def _bring_up(self, name: str) -> None:
        while True:
            node = self._new_node(name)
            if await node.start():
                self.start(self._bury_when_fenced(node))
                return
            if any(other.name == name for other in self.up()):
                return
            await asyncio.sleep(0.2)

    def _new_node(self, name: str) -> ClusterNode:
        number = len(self._nodes) + 1
        road = Road(self.rng(f"road {number}"), self._start_in_database)
        faults = Faults(self.rng(f"faults {number}"), self._rates)
        faults.is_on = self._cluster_faults.is_on
        node = ClusterNode(
            number,
            name,
            self.database,
            self.network,
            road,
            faults,
            self.rng(f"process {number}"),
            self._cluster_faults.skew(),
            self._settings,
        )
        faults.crash = lambda: self._crash(node)
        faults.drop_polls = self.hang_up_on_polls
        faults.drop_calls = self.hang_up_on_calls
        self._nodes.append(node)
        return node

    def _start_in_database(self, work: Coroutine[object, object, None]) -> None:
        """Run what the database does: that goes on when all who call have ended."""
        task = asyncio.get_running_loop().create_task(work, context=self._context.copy())
        self._acts[task] = None
        task.add_done_callback(self._acts.pop)

    def _crash(self, node: ClusterNode) -> None:
        if not node.is_dead:
            self._cluster_faults.kill(node)

    async def _bury_when_fenced(self, node: ClusterNode) -> None:
        await node.engine.fenced_event.wait()
        assert any(other.name == node.name for other in self._nodes if other is not node), "nobody else has its name"
        node.kill()

    async def begin(self) -> None:
        for _ in range(self._count):
            self.start(self.bring_up(self.new_name()))
        self.start(self._cluster_faults.happen())

    async def until_quiet(self, clients: list[asyncio.Task[None]], *, faults_last: float) -> None:
        # More goes wrong in a second than in the world of a lone server.
        await super().until_quiet(clients, faults_last=faults_last / 2)

    async def end_faults(self) -> None:
        self._cluster_faults.stop(self._nodes)
        while self._on_the_way or not self.up():
            await asyncio.sleep(0.1)

    async def end(self) -> None:
        while self._on_the_way:
            # It would be left behind half started or half stopped, and nobody's.
            await asyncio.sleep(0.1)
        await self.end_tasks()
        await asyncio.sleep(_SETTLING_SECONDS)
        self.check()
        for node in self.up():
            check_nothing_left(node)
        for node in self.up():
            await node.stop()
        for act in list(self._acts):
            act.cancel()
        self.check()
        assert not self.database.members.view().members, "nodes that have stopped are members still"

    def seen_faults(self) -> dict[str, int]:
        seen = dict(self._cluster_faults.seen)
        for node in self._nodes:
            for fault, count in node.faults.seen.items():
                seen[fault.name] = seen.get(fault.name, 0) + count
        return seen

    def era(self) -> object:
        """Return the same always: no node answers from the past."""
        return self

    def check_step(self, key: WorkflowKey) -> None:
        check_sole_owner(shard_of(key), self._nodes)

    # --- calls ------------------------------------------------------------------------------------------------------

    async def _ask(self, request: Request[T], open_calls: dict[asyncio.Task[object], None]) -> T:
        # No call is for nothing: a node that stops answers long polls at once, again and again.
        await asyncio.sleep(0.001)
        nodes = self.up()
        if not nodes:
            await asyncio.sleep(0.1)
            raise CallFailed("no node is up")
        node = self._rng.choice(nodes)
        task = asyncio.create_task(node.call(request(node.door)))
        open_calls[task] = None
        try:
            done, _ = await asyncio.wait([task], timeout=self._rng.uniform(3, 30))
        finally:
            del open_calls[task]
            # Not waited for: a node that stands still hears only later that its caller has gone.
            task.cancel()
        if not done:
            raise CallFailed("the node does not answer")
        if node.is_dead:
            task.exception() if not task.cancelled() else None
            raise ConnectionLost
        return task.result()


CLUSTER: Final = Stage(ClusterWorld, FreezingLoop, workloads=8, thirds=2, limit_seconds=1_000.0)
