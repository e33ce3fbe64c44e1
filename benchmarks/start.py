"""One caller that starts workflows one after the other: how long a durable start takes."""

from __future__ import annotations

import time
import uuid

from temporalio.client import Client

from benchmarks._measure import Benchmark, Conditions, Figures, Row, Subject, percentile
from benchmarks._workflows import OneActivity

_STARTS = 1000


async def measure(subject: Subject, conditions: Conditions) -> Figures:
    """Run one round. No worker polls the queue, and the runs are left as they are."""
    count = conditions.count(_STARTS, at_least=100)
    client = await Client.connect(subject.address)
    task_queue = f"start-{uuid.uuid4()}"
    latencies: list[float] = []
    for number in range(count):
        began = time.perf_counter()
        await client.start_workflow(OneActivity.run, "user", id=f"{task_queue}-{number}", task_queue=task_queue)
        latencies.append(time.perf_counter() - began)
    return {
        "start.rate": count / sum(latencies),
        "start.p50": percentile(latencies, 50) * 1000,
        "start.p99": percentile(latencies, 99) * 1000,
    }


BENCHMARK = Benchmark(
    "start",
    (
        Row("start.rate", "start one workflow, one caller", "/s", target="600", more_is_better=True, digits=0),
        Row("start.p50", "  p50", "ms", target="0.6"),
        Row("start.p99", "  p99", "ms"),
    ),
    measure,
)
