"""Many one-activity workflows, started one after the other by one client, then finished by one worker.

The definition is that of `scripts/run_bench.py` of the Temporal Python SDK: first every workflow is started while no
worker polls, then one worker with room for all of them starts, and the results are awaited in the order of the starts.
"""

from __future__ import annotations

import uuid

from temporalio.client import Client

from benchmarks._measure import NOT_MEASURED, Benchmark, Conditions, Figures, Row, Subject, settle, span
from benchmarks._workflows import OneActivity, worker

_WORKFLOWS = 2000


async def measure(subject: Subject, conditions: Conditions) -> Figures:
    """Run one round."""
    count = conditions.count(_WORKFLOWS)
    client = await Client.connect(subject.address)
    task_queue = f"bench-{uuid.uuid4()}"
    await settle(subject)
    async with span(subject) as starting:
        handles = [
            await client.start_workflow(OneActivity.run, f"user-{i}", id=f"{task_queue}-{i}", task_queue=task_queue)
            for i in range(count)
        ]
    async with worker(client, task_queue, capacity=count), span(subject) as working:
        for handle in handles:
            await handle.result()
    return {
        "bench.starts_per_second": count / starting.seconds,
        "bench.start_cpu": starting.cpu_milliseconds_per(count),
        "bench.start_database": starting.database_milliseconds_per(count),
        "bench.workflows_per_second": count / working.seconds,
        "bench.workflow_cpu": working.cpu_milliseconds_per(count),
        "bench.workflow_database": working.database_milliseconds_per(count),
        "bench.peak": NOT_MEASURED if working.peak_megabytes is None else working.peak_megabytes,
    }


BENCHMARK = Benchmark(
    "official-bench",
    (
        Row("bench.starts_per_second", "2,000 one-activity workflows: starts", "/s", more_is_better=True, digits=0),
        Row("bench.start_cpu", "  server CPU per start", "ms"),
        Row("bench.start_database", "  PostgreSQL's CPU per start", "ms"),
        Row("bench.workflows_per_second", "  workflows finished by one worker", "/s", more_is_better=True, digits=0),
        Row("bench.workflow_cpu", "  server CPU per workflow, its start not counted", "ms", target="2"),
        Row("bench.workflow_database", "  PostgreSQL's CPU per workflow", "ms"),
        Row("bench.peak", "  peak memory of the server", "MiB", digits=0),
    ),
    measure,
    needs_fresh_server=True,
)
