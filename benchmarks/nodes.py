"""What a workflow costs on one, two and four nodes that share a PostgreSQL database, and what idle nodes ask of it.

All nodes run on this machine, and the worker is connected to one of them, so most of its tasks belong to others. Rates
say little here, where nodes, worker and database share the cores; the CPU that all nodes spend on a workflow does.
"""

from __future__ import annotations

import asyncio
import tempfile
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import asyncpg
import grpc.aio
from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Struct
from temporalio.client import Client

from benchmarks._database import new_database
from benchmarks._measure import Benchmark, Conditions, Figures, Row, Subject, settle, span
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
    for count in _NODES[1:]:
        figures[f"nodes.{count}.ratio"] = _ratio(figures[f"nodes.{count}"], figures["nodes.1"])
    return figures


@asynccontextmanager
async def _cluster(count: int, conditions: Conditions) -> AsyncIterator[tuple[list[Subject], str]]:
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="perdure-bench-")))
        db = await stack.enter_async_context(new_database(conditions))
        nodes = [await stack.enter_async_context(running(_made(folder / str(number)), db)) for number in range(count)]
        await _wait_for_balance(nodes)
        yield nodes, db


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
    together = replace(
        nodes[0], name=NAME, process_ids=tuple(process for node in nodes for process in node.process_ids)
    )
    client = await Client.connect(nodes[0].address)
    task_queue = f"nodes-{uuid.uuid4()}"
    workflows = conditions.count(_WORKFLOWS)
    async with worker(client, task_queue, capacity=_AT_ONCE):
        await _run(client, task_queue, _WARM_UP)
        await settle(together)
        async with span(together) as working:
            await _run(client, task_queue, workflows)
    return {
        f"nodes.{count}": working.cpu_milliseconds_per(workflows),
        f"nodes.{count}.database": working.database_milliseconds_per(workflows),
    }


async def _run(client: Client, task_queue: str, count: int) -> None:
    numbers = iter(range(count))

    async def caller() -> None:
        for number in numbers:
            await client.execute_workflow(
                OneActivity.run, f"user-{number}", id=str(uuid.uuid4()), task_queue=task_queue
            )

    await asyncio.gather(*(caller() for _ in range(_AT_ONCE)))


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
        Row("nodes.idle", "transactions a second of an idle node of four", "/s", target="a handful"),
    ),
    measure,
    alone=True,
)
