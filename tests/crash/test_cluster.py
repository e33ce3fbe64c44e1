"""Three nodes on a real PostgreSQL under load while everything that can fail does: nothing acknowledged is lost.

Nodes are killed, suspended for longer than their lease, and stopped; the database crashes. Two loads run meanwhile: one
of the official SDK, with workflows that talk to each other, and one of synthetic workers that notes the answer to each
single call. Clients and workers reach the nodes as behind a load balancer.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from temporalio.client import Client

from tests.crash._balancer import Balancer
from tests.crash._calls import Calls
from tests.crash._finish import audit_all
from tests.crash._load import Load
from tests.crash._plan import seed_of_run
from tests.crash._server import ServerProcess, free_port, perdure_command
from tests.crash._shop_audit import audit_shop
from tests.crash._shop_load import ShopLoad
from tests.postgres_server import PostgresServer

_NODES = 3
_FAULTS = int(os.environ.get("PERDURE_CLUSTER_FAULTS", "20"))
_TIMEOUT_SECONDS = 140 + 5 * _FAULTS
_LEASE_SECONDS = 1.5
_SUSPENDED_SECONDS = 1.1 * _LEASE_SECONDS, 1.8 * _LEASE_SECONDS
_DOWN_SECONDS = 0.0, 1.2 * _LEASE_SECONDS
_BETWEEN_SECONDS = 0.1, 0.8
_FINISH_SECONDS = 25.0
"""Less than the slow rescan of all task queues takes: nothing may have to wait for that."""
_START_SECONDS = 15.0
_SUPERVISE_SECONDS = 0.2
_OPEN_AT_MOST = 16


class Cluster(NamedTuple):
    """What there is to be disturbed."""

    nodes: Sequence[ServerProcess]
    postgres: PostgresServer
    dice: random.Random

    async def kill(self) -> None:
        """End a node with SIGKILL and start it again, at once or when its shards have been taken."""
        node = self.dice.choice(self.nodes)
        node.kill()
        await asyncio.sleep(self.dice.uniform(*_DOWN_SECONDS))
        node.start()

    async def suspend(self) -> None:
        """Let a node stand still for longer than its lease: it wakes up in a cluster that has gone on without it."""
        node = self.dice.choice(self.nodes)
        node.suspend()
        await asyncio.sleep(self.dice.uniform(*_SUSPENDED_SECONDS))
        node.go_on()

    async def stop(self) -> None:
        """End a node in good order and start it again, as an upgrade does."""
        node = self.dice.choice(self.nodes)
        await asyncio.to_thread(node.ask_to_stop)
        await asyncio.sleep(self.dice.uniform(*_DOWN_SECONDS))
        node.start()

    async def crash_the_database(self) -> None:
        """End PostgreSQL as a crash does and start it again; no node is told."""
        await asyncio.to_thread(self.postgres.stop)
        await asyncio.to_thread(self.postgres.start)


_WEIGHTS: Mapping[Callable[[Cluster], Awaitable[None]], int] = {
    Cluster.kill: 7,
    Cluster.suspend: 7,
    Cluster.crash_the_database: 4,
    Cluster.stop: 2,
}
"""How often each fault happens out of twenty times."""


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.timeout(_TIMEOUT_SECONDS)
async def test_a_cluster_loses_nothing_whatever_of_it_fails(
    tmp_path: Path, postgres_server: PostgresServer, postgres_url: str
) -> None:
    seed = seed_of_run()
    ports = [free_port() for _ in range(_NODES)]
    nodes = [ServerProcess(_command(postgres_url, port), tmp_path / f"node-{port}.log") for port in ports]
    cluster = Cluster(nodes, postgres_server, random.Random(seed))
    try:
        for node in nodes:
            node.start()
        async with Balancer(ports).running() as balancer, _supervised(nodes):
            acknowledged, broken = await _disturb_under_load(cluster, balancer.addresses)
    finally:
        for node in nodes:
            node.stop()
    what = f"seed {seed}, {_FAULTS} faults; acknowledged: {dict(acknowledged)}"
    assert not broken, "\n".join([f"{len(broken)} promises were broken; {what}", *broken[:40]])
    for kind in ("start", "signal", "result", "activity completion", "workflow completion"):
        assert acknowledged[kind] >= 2 * _FAULTS, f"too little to prove anything: {what}"


async def _disturb_under_load(cluster: Cluster, addresses: Sequence[str]) -> tuple[Counter[str], list[str]]:
    """Return how much was acknowledged, and every promise that was broken."""
    dice = cluster.dice
    clients = [await _connect(address) for address in addresses]
    shop = ShopLoad(clients, random.Random(dice.random()))
    async with shop.working(), Calls(addresses[-1]) as calls:
        load = Load(calls, random.Random(dice.random()), open_at_most=_OPEN_AT_MOST)
        async with load.working(workflows=2, sticky=1, activities=3):
            await shop.open_ledger()
            async with asyncio.TaskGroup() as callers:
                for place in range(_NODES):
                    callers.create_task(shop.call(place))
                    callers.create_task(load.call())
                await _disturb(cluster)
                load.stopping = shop.stopping = True
            broken = await audit_all(calls, load.journal, _FINISH_SECONDS)
            async with asyncio.timeout(_FINISH_SECONDS):
                await shop.finished()
                await shop.close_ledger()
            broken += await audit_shop(clients[0], shop.journal)
    return load.journal.acknowledged + shop.journal.acknowledged, broken + load.journal.faults + shop.journal.faults


async def _disturb(cluster: Cluster) -> None:
    kinds = [kind for kind, weight in _WEIGHTS.items() for _ in range(weight)]
    for number in range(_FAULTS):
        if number % len(kinds) == 0:
            cluster.dice.shuffle(kinds)
        await asyncio.sleep(cluster.dice.uniform(*_BETWEEN_SECONDS))
        await kinds[number % len(kinds)](cluster)


@asynccontextmanager
async def _supervised(nodes: Sequence[ServerProcess]) -> AsyncIterator[None]:
    """Have nodes started again that ended because the database was away when they started; others must not end."""

    async def supervise() -> None:
        while True:
            for node in nodes:
                node.supervise()
            await asyncio.sleep(_SUPERVISE_SECONDS)

    supervisor = asyncio.create_task(supervise())
    try:
        yield
    finally:
        supervisor.cancel()


async def _connect(address: str) -> Client:
    """Return a client, once a node answers."""
    async with asyncio.timeout(_START_SECONDS):
        while True:
            try:
                return await Client.connect(address)
            except RuntimeError:
                await asyncio.sleep(0.05)


def _command(url: str, port: int) -> list[str]:
    return perdure_command(url, port, "--engine", f"cluster.lease_seconds={_LEASE_SECONDS}", "--log-format", "json")
