"""What the server spends on messages to one run that a worker holds in memory: signals, updates and queries."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable

from temporalio.client import Client, WorkflowHandle
from temporalio.service import RPCError, RPCStatusCode

from benchmarks._measure import NOT_BUILT, Benchmark, Conditions, Figures, Row, Subject, settle, span
from benchmarks._workflows import Mailbox, worker

_MESSAGES = 1000
_CALLERS = 10


async def measure(subject: Subject, conditions: Conditions) -> Figures:
    """Run one round: ten callers, each kind of message to a run of its own."""
    client = await Client.connect(subject.address)
    task_queue = f"messages-{uuid.uuid4()}"
    count = conditions.count(_MESSAGES)
    figures: dict[str, float | str] = {}
    async with worker(client, task_queue, capacity=100):
        for kind, send in _KINDS.items():
            mailbox = await client.start_workflow(Mailbox.run, id=f"mailbox-{uuid.uuid4()}", task_queue=task_queue)
            await mailbox.signal(Mailbox.deliver, "warm up")
            await settle(subject)
            figures |= await _cost(subject, kind, mailbox, send, count)
            await mailbox.signal(Mailbox.finish)
            await mailbox.result()
    return figures


async def _cost(subject: Subject, kind: str, mailbox: Handle, send: Send, count: int) -> Figures:
    try:
        await send(mailbox)
    except RPCError as error:
        if error.status is not RPCStatusCode.UNIMPLEMENTED:
            raise
        return dict.fromkeys((f"messages.{kind}", f"messages.{kind}.database", f"messages.{kind}.rate"), NOT_BUILT)
    numbers = iter(range(count))

    async def call() -> None:
        for _ in numbers:
            await send(mailbox)

    async with span(subject) as sending:
        await asyncio.gather(*(call() for _ in range(_CALLERS)))
    return {
        f"messages.{kind}": sending.cpu_milliseconds_per(count),
        f"messages.{kind}.database": sending.database_milliseconds_per(count),
        f"messages.{kind}.rate": count / sending.seconds,
    }


Handle = WorkflowHandle[Mailbox, int]
Send = Callable[[Handle], Awaitable[object]]

_KINDS: dict[str, Send] = {
    "signal": lambda mailbox: mailbox.signal(Mailbox.deliver, "message"),
    "update": lambda mailbox: mailbox.execute_update(Mailbox.deliver_and_count, "message"),
    "query": lambda mailbox: mailbox.query(Mailbox.received),
}

BENCHMARK = Benchmark(
    "messages",
    (
        Row("messages.signal", "server CPU per signal to one run", "ms", target="0.45"),
        Row("messages.signal.database", "  PostgreSQL's CPU", "ms"),
        Row("messages.signal.rate", "  signals, ten callers", "/s", more_is_better=True, digits=0),
        Row("messages.update", "server CPU per update to one run", "ms", target="0.8"),
        Row("messages.update.database", "  PostgreSQL's CPU", "ms"),
        Row("messages.update.rate", "  updates, ten callers", "/s", more_is_better=True, digits=0),
        Row("messages.query", "server CPU per query to one run", "ms", target="0.9"),
        Row("messages.query.database", "  PostgreSQL's CPU", "ms"),
        Row("messages.query.rate", "  queries, ten callers", "/s", more_is_better=True, digits=0),
    ),
    measure,
)
