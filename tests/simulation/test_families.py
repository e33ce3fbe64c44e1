"""Parents and children: every way a child ends, every policy when its parent does, and clients who end either."""

from __future__ import annotations

import asyncio

import pytest
from temporalio.api.enums.v1 import ParentClosePolicy

from perdure.server.core.run import RUNNING
from tests.simulation.activity_work import Habits
from tests.simulation.clients import Client, workflow_retry_policy
from tests.simulation.programs import (
    ActivityStep,
    AllStep,
    CancelOtherStep,
    ChildStep,
    Program,
    SignalsStep,
    Step,
    TimerStep,
)
from tests.simulation.simulation import run_seeds, seed_chunks
from tests.simulation.workers import Worker
from tests.simulation.world import World

_Policy = ParentClosePolicy
TERMINATE = _Policy.PARENT_CLOSE_POLICY_TERMINATE
ABANDON = _Policy.PARENT_CLOSE_POLICY_ABANDON
REQUEST_CANCEL = _Policy.PARENT_CLOSE_POLICY_REQUEST_CANCEL


@pytest.mark.parametrize("seeds", seed_chunks(), ids=str)
def test_families_live_and_end_together(seeds: range) -> None:
    run_seeds(families, seeds, "test_families.py")


async def families(world: World) -> None:
    rng = world.rng("count")
    is_sticky = rng.random() < 0.5
    world.begin_workers(Worker(world, f"worker {number}", Habits(is_sticky=is_sticky)) for number in range(2))
    clients = [world.start(raise_family(world, number)) for number in range(rng.randint(1, 3))]
    await world.until_quiet(clients, faults_last=rng.uniform(5, 40))
    await until_all_is_over(world)


async def raise_family(world: World, number: int) -> None:
    """Start a parent, perhaps end it or a child from outside, and wait for its end."""
    client = Client(world, f"client {number}")
    workflow_id = f"family {number}"
    request = client.start_request(workflow_id, parent_program(client, workflow_id))
    if client.rng.random() < 0.3:
        request.retry_policy.CopyFrom(workflow_retry_policy(2))
    run_id = await client.start_chain(request)
    match client.rng.randrange(8):
        case 0:
            await client.pause(6)
            await client.terminate(workflow_id, run_id)
        case 1:
            await client.pause(6)
            await client.request_cancel(workflow_id, run_id)
        case 2:
            await client.pause(6)
            await client.delete(workflow_id, run_id)
        case 3:
            await client.pause(6)
            await client.terminate(f"{workflow_id}/child 0", "")
        case _:
            pass
    await client.result(workflow_id, run_id)


def parent_program(client: Client, workflow_id: str) -> Program:
    rng = client.rng
    children = [child(client, f"child {number}", depth=rng.randint(1, 2)) for number in range(rng.randint(1, 3))]
    steps: list[Step] = [TimerStep("before", rng.uniform(0, 1))]
    if rng.random() < 0.5:
        steps.append(AllStep([*children, TimerStep("beside", rng.uniform(0, 3))]))
    else:
        steps += children
    if rng.random() < 0.5:
        steps.append(CancelOtherStep("stop it", f"{workflow_id}/child 0"))
    steps.append(ActivityStep("after", ["ok"], seconds=rng.uniform(0, 2)))
    end = rng.choice(("complete", "complete", "fail", "continue"))
    then = Program([TimerStep("last", 0.5)]) if end == "continue" else None
    return Program(steps, end=end, then=then, ignores_cancel=rng.random() < 0.2)


def child(client: Client, name: str, *, depth: int) -> ChildStep:
    """A child that ends by itself, or one that waits for ever and ends with its parent."""
    rng = client.rng
    if rng.random() < 0.3:
        endless = Program([SignalsStep(1_000)])
        return ChildStep(name, endless, policy=rng.choice((TERMINATE, REQUEST_CANCEL)), is_awaited=False)
    steps: list[Step] = [TimerStep("work", rng.uniform(0, 2))]
    if depth > 1:
        steps.append(child(client, "grandchild", depth=depth - 1))
    end = rng.choice(("complete", "complete", "fail", "fail_for_good", "continue"))
    then = Program([TimerStep("more", rng.uniform(0, 1))]) if end == "continue" else None
    return ChildStep(
        name,
        Program(steps, end=end, then=then, succeeds_at_attempt=rng.choice((0, 2))),
        policy=rng.choice((TERMINATE, REQUEST_CANCEL, ABANDON)),
        attempts=rng.choice((1, 3)),
        is_awaited=rng.random() < 0.7,
    )


async def until_all_is_over(world: World) -> None:
    """Wait until no run is open and no message on its way; what never ends is found by the checks."""
    tables = world.database.tables
    for _ in range(600):
        if not tables.outbox and not any(run.status == RUNNING for run in tables.runs.values()):
            return
        await asyncio.sleep(1)
