"""Chains of runs that each start many activities at once, half of which may be tried a single time only."""

from __future__ import annotations

import random

from tests.simulation.activity_work import Habits
from tests.simulation.clients import Client
from tests.simulation.programs import ActivityStep, AllStep, Program
from tests.simulation.test_successors_and_policies import check_chains, follow_chain
from tests.simulation.workers import Worker
from tests.simulation.world import World


async def fan_out(world: World) -> None:
    rng = world.rng("count")
    world.begin_workers(Worker(world, f"worker {number}", Habits()) for number in range(3))
    clients = [world.start(run_one(world, number)) for number in range(2)]
    await world.until_quiet(clients, faults_last=rng.uniform(5, 25))
    check_chains(world)


async def run_one(world: World, number: int) -> None:
    client = Client(world, f"client {number}")
    workflow_id = f"fan {number}"
    program = Program([fan(client.rng)])
    for _ in range(client.rng.randint(0, 2)):
        program = Program([fan(client.rng)], end="continue", then=program)
    await follow_chain(client, workflow_id, await client.start_chain(client.start_request(workflow_id, program)))


def fan(rng: random.Random) -> AllStep:
    return AllStep(
        [
            ActivityStep(
                f"part {part}",
                ["ok"],
                seconds=rng.uniform(0, 1),
                attempts=rng.choice((1, 0)),
                start_to_close=rng.uniform(2, 8),
                eager=rng.random() < 0.3,
            )
            for part in range(rng.randint(4, 16))
        ]
    )
