"""Start to result of a one-activity workflow: one at a time, and with fifty in flight."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Iterator

from temporalio.client import Client

from benchmarks._measure import Benchmark, Conditions, Figures, Row, Subject, percentile
from benchmarks._workflows import OneActivity, worker

_ONE_AT_A_TIME = 200
_IN_FLIGHT = 50
_RUNS_IN_FLIGHT = 1000
_WARM_UP = 10


async def measure(subject: Subject, conditions: Conditions) -> Figures:
    """Run one round."""
    client = await Client.connect(subject.address)
    task_queue = f"latency-{uuid.uuid4()}"
    async with worker(client, task_queue, capacity=_IN_FLIGHT * 2):
        await _run(client, task_queue, _WARM_UP, callers=1)
        idle = await _run(client, task_queue, conditions.count(_ONE_AT_A_TIME, at_least=30), callers=1)
        count = conditions.count(_RUNS_IN_FLIGHT, at_least=150)
        began = time.perf_counter()
        busy = await _run(client, task_queue, count, callers=_IN_FLIGHT)
        rate = count / (time.perf_counter() - began)
    return {
        "latency.idle.p50": percentile(idle, 50) * 1000,
        "latency.idle.p99": percentile(idle, 99) * 1000,
        "latency.busy.rate": rate,
        "latency.busy.p50": percentile(busy, 50) * 1000,
        "latency.busy.p99": percentile(busy, 99) * 1000,
        "latency.busy.spread": percentile(busy, 99) / percentile(busy, 50),
    }


async def _run(client: Client, task_queue: str, count: int, *, callers: int) -> list[float]:
    """Let `callers` run `count` workflows between them, each one after the other; return all latencies in seconds."""
    latencies: list[float] = []
    numbers = iter(range(count))

    async def call(remaining: Iterator[int]) -> None:
        for _ in remaining:
            began = time.perf_counter()
            await client.execute_workflow(OneActivity.run, "user", id=f"run-{uuid.uuid4()}", task_queue=task_queue)
            latencies.append(time.perf_counter() - began)

    await asyncio.gather(*(call(numbers) for _ in range(callers)))
    return latencies


BENCHMARK = Benchmark(
    "latency",
    (
        Row("latency.idle.p50", "start to result of a one-activity workflow, idle: p50", "ms", target="10"),
        Row("latency.idle.p99", "  p99", "ms", target="25"),
        Row("latency.busy.rate", "the same at 50 in flight", "/s", more_is_better=True, digits=0),
        Row("latency.busy.p50", "  p50", "ms", digits=0),
        Row("latency.busy.p99", "  p99", "ms", digits=0),
        Row("latency.busy.spread", "  p99 as a multiple of p50", "x", target="below 3"),
    ),
    measure,
)
