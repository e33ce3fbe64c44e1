"""A worker process: `python -m examples.orders.workers ROLE ADDRESS`.

Roles: `workflows` (the fixed release), `buggy-workflows` (the release before it) and `activities`. A worker holds
nothing that cannot be lost; it may be killed at any moment.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
from collections.abc import Callable
from datetime import timedelta

from temporalio.client import Client
from temporalio.worker import Worker

from examples.orders import activities
from examples.orders.buggy_workflows import BuggyOrderWorkflow
from examples.orders.workflows import ACTIVITIES, GreetingWorkflow, OrderWorkflow

WORKFLOWS = "orders-workflows"
"""The task queue of the workers that run workflow code."""

# A workflow's next task goes to the worker that has it in memory. If that worker died, the task goes to any worker
# after this time; the default of 10 seconds would make the story longer.
STICKY_TIMEOUT = timedelta(seconds=1)


def workflow_worker(client: Client) -> Worker:
    """Make a worker that runs workflow code only."""
    return Worker(
        client,
        task_queue=WORKFLOWS,
        workflows=[OrderWorkflow, GreetingWorkflow],
        sticky_queue_schedule_to_start_timeout=STICKY_TIMEOUT,
    )


def buggy_workflow_worker(client: Client) -> Worker:
    """Make a worker that runs the release with the bug."""
    return Worker(
        client,
        task_queue=WORKFLOWS,
        workflows=[BuggyOrderWorkflow],
        sticky_queue_schedule_to_start_timeout=STICKY_TIMEOUT,
    )


def activity_worker(client: Client) -> Worker:
    """Make a worker that runs activities only."""
    return Worker(
        client,
        task_queue=ACTIVITIES,
        activities=[activities.greet, activities.reserve_goods, activities.charge_card, activities.ship_parcel],
    )


ROLES: dict[str, Callable[[Client], Worker]] = {
    "workflows": workflow_worker,
    "buggy-workflows": buggy_workflow_worker,
    "activities": activity_worker,
}


async def run(role: str, address: str) -> None:
    """Work until asked to stop (SIGTERM or SIGINT)."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for asked in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(asked, stop.set)
    client = await Client.connect(address)
    async with ROLES[role](client):
        await stop.wait()


def main() -> None:
    """Read the command line and work."""
    parser = argparse.ArgumentParser(prog="python -m examples.orders.workers", description="Run one worker.")
    parser.add_argument("role", choices=sorted(ROLES))
    parser.add_argument("address", help="host:port of the server")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    asyncio.run(run(arguments.role, arguments.address))


if __name__ == "__main__":
    main()
