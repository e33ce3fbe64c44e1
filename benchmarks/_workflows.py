"""The workflows and the activity that the server benchmarks run, on workers of the official Python SDK."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

_ACTIVITY_LIMIT = timedelta(seconds=60)


@activity.defn
async def greet(name: str) -> str:
    """Answer at once: what is measured is the server, not the activity."""
    return f"Hello, {name}!"


@workflow.defn
class OneActivity:
    """Run one activity and return its result."""

    @workflow.run
    async def run(self, name: str) -> str:
        """Greet `name`."""
        return await workflow.execute_activity(greet, name, start_to_close_timeout=_ACTIVITY_LIMIT)


@workflow.defn
class Sequence:
    """Run activities one after the other."""

    @workflow.run
    async def run(self, count: int) -> int:
        """Greet `count` times."""
        for number in range(count):
            await workflow.execute_activity(greet, str(number), start_to_close_timeout=_ACTIVITY_LIMIT)
        return count


@workflow.defn
class FanOut:
    """Run activities all at once."""

    @workflow.run
    async def run(self, count: int) -> int:
        """Start `count` activities and wait for all of them."""
        greetings = [
            workflow.execute_activity(greet, str(number), start_to_close_timeout=_ACTIVITY_LIMIT)
            for number in range(count)
        ]
        return len(await asyncio.gather(*greetings))


@workflow.defn
class Mailbox:
    """Take messages until told to finish."""

    def __init__(self) -> None:
        self._received = 0
        self._finished = False

    @workflow.run
    async def run(self) -> int:
        """Wait for `finish` and return how many messages came."""
        await workflow.wait_condition(lambda: self._finished)
        return self._received

    @workflow.signal
    def deliver(self, message: str) -> None:
        """Take a message that wants no answer."""
        self._received += 1

    @workflow.signal
    def finish(self) -> None:
        """Let the run complete."""
        self._finished = True

    @workflow.query
    def received(self) -> int:
        """Return how many messages came so far."""
        return self._received

    @workflow.update
    async def deliver_and_count(self, message: str) -> int:
        """Take a message and answer how many came."""
        self._received += 1
        return self._received


@asynccontextmanager
async def worker(client: Client, task_queue: str, *, capacity: int) -> AsyncIterator[None]:
    """Run a worker for everything in this file.

    Args:
        client: The connection it works over.
        task_queue: The queue it polls.
        capacity: How many runs it keeps in memory, and how many tasks of each kind it works on at a time.
    """
    async with Worker(
        client,
        task_queue=task_queue,
        workflows=[OneActivity, Sequence, FanOut, Mailbox],
        activities=[greet],
        workflow_runner=UnsandboxedWorkflowRunner(),
        max_cached_workflows=capacity,
        max_concurrent_workflow_tasks=capacity,
        max_concurrent_activities=capacity,
    ):
        yield
