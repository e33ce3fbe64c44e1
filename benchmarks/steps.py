"""What the server spends on workflows of many activities: ten in a row, and five hundred at once."""

from __future__ import annotations

import asyncio
import uuid

from temporalio.client import Client

from benchmarks._measure import Benchmark, Conditions, Figures, Row, Subject, settle, span
from benchmarks._workflows import FanOut, Sequence, worker

_SEQUENCES = 200
_STEPS = 10
_FAN_OUT = 500
_FAN_OUTS = 4
_CAPACITY = 200


async def measure(subject: Subject, conditions: Conditions) -> Figures:
    """Run one round."""
    client = await Client.connect(subject.address)
    task_queue = f"steps-{uuid.uuid4()}"
    sequences = conditions.count(_SEQUENCES)
    fan_outs = conditions.count(_FAN_OUTS, at_least=1)
    await settle(subject)
    handles = [
        await client.start_workflow(Sequence.run, _STEPS, id=f"{task_queue}-{number}", task_queue=task_queue)
        for number in range(sequences)
    ]
    await settle(subject)
    async with worker(client, task_queue, capacity=_CAPACITY):
        async with span(subject) as in_a_row:
            await asyncio.gather(*(handle.result() for handle in handles))
        async with span(subject) as at_once:
            for _ in range(fan_outs):
                await client.execute_workflow(FanOut.run, _FAN_OUT, id=f"fan-out-{uuid.uuid4()}", task_queue=task_queue)
    return {
        "steps.in_a_row": in_a_row.cpu_milliseconds_per(sequences),
        "steps.in_a_row.database": in_a_row.database_milliseconds_per(sequences),
        "steps.in_a_row.rate": sequences * _STEPS / in_a_row.seconds,
        "steps.at_once": at_once.cpu_milliseconds_per(fan_outs * _FAN_OUT),
        "steps.at_once.database": at_once.database_milliseconds_per(fan_outs * _FAN_OUT),
        "steps.at_once.rate": fan_outs * _FAN_OUT / at_once.seconds,
    }


BENCHMARK = Benchmark(
    "steps",
    (
        Row("steps.in_a_row", "server CPU per ten-activity workflow", "ms", target="12"),
        Row("steps.in_a_row.database", "  PostgreSQL's CPU", "ms"),
        Row("steps.in_a_row.rate", "  activities", "/s", more_is_better=True, digits=0),
        Row("steps.at_once", "server CPU per activity of a fan-out of 500", "ms", target="0.8"),
        Row("steps.at_once.database", "  PostgreSQL's CPU", "ms"),
        Row("steps.at_once.rate", "  activities", "/s", more_is_better=True, digits=0),
    ),
    measure,
)
