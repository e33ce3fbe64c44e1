"""Workflows of activities, timers and markers: retries, all four timeouts, races and what loses them."""

from __future__ import annotations

import asyncio
import random

import pytest

from tests.simulation.activity_work import Habits
from tests.simulation.clients import Client, seconds
from tests.simulation.programs import (
    NOBODY,
    ActivityStep,
    AllStep,
    ForcedTaskStep,
    MarkerStep,
    Program,
    RaceStep,
    Step,
    TimerStep,
)
from tests.simulation.simulation import run_seeds, seed_chunks
from tests.simulation.workers import Worker
from tests.simulation.world import World


@pytest.mark.parametrize("seeds", seed_chunks(), ids=str)
def test_every_activity_and_timer_ends_once(seeds: range) -> None:
    run_seeds(activities_and_timers, seeds, "test_activities_and_timers.py")


async def activities_and_timers(world: World) -> None:
    world.begin_workers(Worker(world, f"worker {number}", Habits()) for number in range(2))
    clients = [world.start(run_one(world, number)) for number in range(world.rng("count").randint(2, 5))]
    await world.until_quiet(clients, faults_last=world.rng("faults last").uniform(5, 40))


async def run_one(world: World, number: int) -> None:
    client = Client(world, f"client {number}")
    await client.pause(5)
    request = client.start_request(f"workflow {number}", program(client.rng))
    if client.rng.random() < 0.2:
        request.workflow_run_timeout.CopyFrom(seconds(client.rng.uniform(3, 60)))
    if client.rng.random() < 0.2:
        request.workflow_start_delay.CopyFrom(seconds(client.rng.uniform(0.1, 10)))
    reply = await client.start(request)
    assert reply is not None
    if client.rng.random() < 0.5:
        await asyncio.gather(
            client.follow(request.workflow_id, reply.run_id), client.result(request.workflow_id, reply.run_id)
        )
    else:
        await client.result(request.workflow_id, reply.run_id)


def program(rng: random.Random) -> Program:
    """Return a workflow of a few steps, one of them at least an activity."""
    steps: list[Step] = [activity(rng, "first")]
    for number in range(rng.randint(0, 4)):
        steps.append(_step(rng, f"step {number}"))
    return Program(steps)


def _step(rng: random.Random, name: str) -> Step:
    match rng.randrange(6):
        case 0:
            return TimerStep(name, rng.choice((0.001, 0.5, 3.0, 70.0)))
        case 1:
            return MarkerStep(name)
        case 2:
            return ForcedTaskStep(name)
        case 3:
            steps: list[ActivityStep | TimerStep] = [
                activity(rng, f"{name}, {part}") for part in range(rng.randint(2, 6))
            ]
            steps.append(TimerStep(f"{name}, timer", rng.uniform(0, 5)))
            return AllStep(steps)
        case 4:
            timer = TimerStep(f"{name}, timer", rng.uniform(0, 4))
            return RaceStep(activity(rng, f"{name}, activity", seconds=rng.uniform(0, 4)), timer)
        case _:
            return activity(rng, name)


def activity(rng: random.Random, name: str, seconds: float = 0.0) -> ActivityStep:
    """Return an activity that ends some time, one way or another."""
    step = ActivityStep(name, ["ok"], seconds=seconds, eager=rng.random() < 0.3)
    match rng.randrange(8):
        case 0:
            step.outcomes = ["fail"] * rng.randint(1, 3) + ["ok"]
        case 1:
            step.outcomes, step.attempts = ["fail"], rng.randint(1, 3)
        case 2:
            step.attempts = 1
        case 3:
            step.outcomes, step.start_to_close = ["hang", "ok"], rng.uniform(0.5, 3)
        case 4:
            step.queue, step.schedule_to_start, step.eager = NOBODY, rng.uniform(0.5, 5), False
        case 5:
            step.outcomes, step.schedule_to_close = ["fail"], rng.uniform(1, 15)
        case 6:
            step.seconds, step.heartbeat, step.start_to_close = rng.uniform(1, 6), 1.0, 20.0
            step.heartbeats = rng.random() < 0.6
            step.attempts = rng.choice((0, 2)) if step.heartbeats else 2
        case _:
            step.seconds = rng.uniform(0, 2)
    return step
