"""What a workflow costs on one, two and four nodes that share a PostgreSQL database, and what idle nodes ask of it.

All nodes run on this machine, and the worker is connected to one of them, so most of its tasks belong to others. Rates
say little here, where nodes, worker and database share the cores; the CPU that all nodes spend on a workflow does.

Processes that take turns on few cores cost more than one that has them, whatever they say to each other. So the same
work is also given to as many servers that are no cluster: each with a database, a worker and a part of the callers.
What a cluster costs beyond them is what it costs to be one.
"""

from __future__ import annotations

import asyncio
import tempfile
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from itertools import cycle
from pathlib import Path

import asyncpg
import grpc.aio
from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Struct
from temporalio.client import Client

from benchmarks._database import new_database
from benchmarks._measure import Benchmark, Conditions, Figures, Row, Span, Subject, settle, span
from benchmarks._perdure import NAME, running
from benchmarks._workflows import OneActivity, worker

_WORKFLOWS = 1000
_AT_ONCE = 50
_WARM_UP = 100
_NODES = (1, 2, 4)
_IDLE_SECONDS = 10.0
_REPORTED_SECONDS = 11.0
"""Within that time PostgreSQL's sessions have reported what they did before they were idle."""
_BALANCE_LIMIT_SECONDS = 30.0
_BALANCE_LOOK_SECONDS = 0.2

_STATEMENTS = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()"
_WITHOUT = "needs --db"


async def measure(subject: Subject, conditions: Conditions) -> Figures:
    """Run one round. Clusters are for PostgreSQL only."""
    if conditions.postgres is None:
        return {row.key: _WITHOUT for row in BENCHMARK.rows}
    figures: dict[str, float | str] = {}
    for count in _NODES:
        async with _cluster(count, conditions) as (nodes, db):
            figures |= await _cost(nodes, count, conditions)
            if count == _NODES[-1]:
                figures["nodes.idle"] = await _idle_transactions(db) / count
    async with _unrelated(_NODES[-1], conditions) as servers:
        figures["nodes.unrelated"] = (await _span(servers, servers, conditions)).cpu_milliseconds_per(
            conditions.count(_WORKFLOWS)
        )
    for key in [*(f"nodes.{count}" for count in _NODES[1:]), "nodes.unrelated"]:
        figures[f"{key}.ratio"] = _ratio(figures[key], figures["nodes.1"])
    return figures


@asynccontextmanager
async def _cluster(count: int, conditions: Conditions) -> AsyncIterator[tuple[list[Subject], str]]:
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="perdure-bench-")))
        db = await stack.enter_async_context(new_database(conditions))
        nodes = [await stack.enter_async_context(running(_made(folder / str(number)), db)) for number in range(count)]
        await _wait_for_balance(nodes)
        yield nodes, db


@asynccontextmanager
async def _unrelated(count: int, conditions: Conditions) -> AsyncIterator[list[Subject]]:
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="perdure-bench-")))
        yield [
            await stack.enter_async_context(
                running(_made(folder / str(number)), await stack.enter_async_context(new_database(conditions)))
            )
            for number in range(count)
        ]


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


async def _wait_for_balance(nodes: Sequence[Subject]) -> None:
    """Wait until every node owns its part and can be reached."""
    async with asyncio.timeout(_BALANCE_LIMIT_SECONDS), grpc.aio.insecure_channel(nodes[0].address) as channel:
        describe: grpc.aio.UnaryUnaryMultiCallable[bytes, Struct] = channel.unary_unary(
            "/perdure.cluster.v1.ClusterService/DescribeCluster", response_deserializer=Struct.FromString
        )
        while True:
            members = MessageToDict(await describe(b""))["nodes"]
            if len(members) == len(nodes) and all(node["shards"] and node["is_linked"] for node in members):
                return
            await asyncio.sleep(_BALANCE_LOOK_SECONDS)


async def _cost(nodes: Sequence[Subject], count: int, conditions: Conditions) -> Figures:
    working = await _span(nodes, nodes[:1], conditions)
    workflows = conditions.count(_WORKFLOWS)
    return {
        f"nodes.{count}": working.cpu_milliseconds_per(workflows),
        f"nodes.{count}.database": working.database_milliseconds_per(workflows),
    }


async def _span(servers: Sequence[Subject], used: Sequence[Subject], conditions: Conditions) -> Span:
    """Have workflows run and return what that cost all servers together.

    Args:
        servers: Whose CPU counts.
        used: To which of them a worker and its part of the callers are connected.
        conditions: How many workflows.
    """
    together = replace(
        servers[0], name=NAME, process_ids=tuple(process for server in servers for process in server.process_ids)
    )
    task_queue = f"nodes-{uuid.uuid4()}"
    async with AsyncExitStack() as stack:
        clients = [await Client.connect(server.address) for server in used]
        for client in clients:
            await stack.enter_async_context(worker(client, task_queue, capacity=_AT_ONCE // len(clients)))
        await _run(clients, task_queue, _WARM_UP)
        await settle(together)
        async with span(together) as working:
            await _run(clients, task_queue, conditions.count(_WORKFLOWS))
    return working


async def _run(clients: Sequence[Client], task_queue: str, count: int) -> None:
    numbers = iter(range(count))

    async def caller(client: Client) -> None:
        for number in numbers:
            await client.execute_workflow(
                OneActivity.run, f"user-{number}", id=str(uuid.uuid4()), task_queue=task_queue
            )

    await asyncio.gather(*(caller(client) for client, _ in zip(cycle(clients), range(_AT_ONCE), strict=False)))


async def _idle_transactions(db: str) -> float:
    """Return how many transactions a second all nodes begin while nobody asks anything of them."""
    connection = await asyncpg.connect(db)
    try:
        await asyncio.sleep(_REPORTED_SECONDS)
        before: int = await connection.fetchval(_STATEMENTS)
        await asyncio.sleep(_IDLE_SECONDS)
        after: int = await connection.fetchval(_STATEMENTS)
    finally:
        await connection.close()
    # The first of the two questions is among what is counted.
    return (after - before - 1) / _IDLE_SECONDS


def _ratio(one: float | str, other: float | str) -> float | str:
    return one / other if isinstance(one, float) and isinstance(other, float) else _WITHOUT


BENCHMARK = Benchmark(
    "nodes",
    (
        Row("nodes.1", "CPU of all nodes per one-activity workflow, its start counted: 1 node", "ms"),
        Row("nodes.1.database", "  PostgreSQL's CPU", "ms"),
        Row("nodes.2", "  2 nodes", "ms"),
        Row("nodes.2.ratio", "  times one node's", ""),
        Row("nodes.2.database", "  PostgreSQL's CPU", "ms"),
        Row("nodes.4", "  4 nodes", "ms"),
        Row("nodes.4.ratio", "  times one node's", "", target="1.6"),
        Row("nodes.4.database", "  PostgreSQL's CPU", "ms"),
        Row("nodes.unrelated", "  4 servers that are no cluster, a quarter of the work each", "ms"),
        Row("nodes.unrelated.ratio", "  times one node's", ""),
        Row("nodes.idle", "transactions a second of an idle node of four", "/s", target="a handful"),
    ),
    measure,
    alone=True,
)
