"""What a server costs that does nothing, and what it keeps after it has worked."""

from __future__ import annotations

import asyncio
import uuid

from temporalio.client import Client

from benchmarks._measure import NOT_MEASURED, Benchmark, Conditions, Figures, Row, Subject, settle
from benchmarks._workflows import OneActivity, worker

_IDLE_SECONDS = 5.0
_WORKFLOWS = 3000
_CALLERS = 100
_CAPACITY = 200


async def measure_idle(subject: Subject, conditions: Conditions) -> Figures:
    """Run one round on a server without load."""
    await settle(subject)
    cpu_before = subject.cpu_seconds()
    await asyncio.sleep(_IDLE_SECONDS)
    cpu_after = subject.cpu_seconds()
    first_answer = subject.seconds_to_first_answer
    idle_cpu = None if cpu_before is None or cpu_after is None else (cpu_after - cpu_before) / _IDLE_SECONDS * 100
    return {
        "idle.memory": _or_not_measured(subject.resident_megabytes()),
        "idle.cpu": _or_not_measured(idle_cpu),
        "idle.first_answer": _or_not_measured(first_answer),
    }


async def measure_after_work(subject: Subject, conditions: Conditions) -> Figures:
    """Run one round: workflows of one activity to their end, then read what memory is still held."""
    client = await Client.connect(subject.address)
    task_queue = f"memory-{uuid.uuid4()}"
    count = conditions.count(_WORKFLOWS)
    numbers = iter(range(count))

    async def call() -> None:
        for number in numbers:
            await client.execute_workflow(OneActivity.run, "user", id=f"{task_queue}-{number}", task_queue=task_queue)

    async with worker(client, task_queue, capacity=_CAPACITY):
        await asyncio.gather(*(call() for _ in range(_CALLERS)))
    await settle(subject)
    return {"memory.after": _or_not_measured(subject.resident_megabytes())}


def _or_not_measured(value: float | None) -> float | str:
    return NOT_MEASURED if value is None else value


IDLE = Benchmark(
    "idle",
    (
        Row("idle.memory", "idle server: memory", "MiB", target="100", digits=0),
        Row("idle.cpu", "  CPU, of one core", "%"),
        Row("idle.first_answer", "  start to first answer", "s", target="0.5"),
    ),
    measure_idle,
    needs_fresh_server=True,
)

AFTER_WORK = Benchmark(
    "memory",
    (Row("memory.after", "memory after 3,000 workflows", "MiB", target="200 (cache)", digits=0),),
    measure_after_work,
    needs_fresh_server=True,
)
