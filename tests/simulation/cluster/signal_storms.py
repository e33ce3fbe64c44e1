"""Workflows on many shards that all signal each other at once: one lost or doubled signal, and one never ends."""

from __future__ import annotations

import asyncio

from tests.simulation.activity_work import Habits
from tests.simulation.clients import Client
from tests.simulation.programs import AllStep, Program, SignalOtherStep, SignalsStep
from tests.simulation.test_families import until_all_is_over
from tests.simulation.workers import Worker
from tests.simulation.world import World


async def signal_storms(world: World) -> None:
    rng = world.rng("count")
    habits = Habits(is_sticky=rng.random() < 0.5)
    world.begin_workers(Worker(world, f"worker {number}", habits) for number in range(2))
    storm = world.start(rage(world, crowd=rng.randint(3, 6), gusts=rng.randint(1, 3)))
    await world.until_quiet([storm], faults_last=rng.uniform(5, 25))
    await until_all_is_over(world)


async def rage(world: World, *, crowd: int, gusts: int) -> None:
    """Start a crowd, tell each that all are there, and wait until each has heard from all."""
    client = Client(world, "client")
    names = [f"member {number}" for number in range(crowd)]
    runs = {}
    for name in names:
        reply = await client.start(client.start_request(name, member(name, names, gusts)))
        assert reply is not None
        runs[name] = reply.run_id
    await asyncio.gather(*(Client(world, f"caller of {name}").signal(name, runs[name]) for name in names))
    expected = 1 + gusts * (crowd - 1)
    for name in names:
        end = await client.result(name, runs[name])
        assert end is not None
        heard = int(end.workflow_execution_completed_event_attributes.result.payloads[0].data)
        assert heard == expected, f"{name} heard {heard} signals of {expected}"


def member(name: str, names: list[str], gusts: int) -> Program:
    sent = [
        SignalOtherStep(f"{name} to {other}, {gust}", other)
        for gust in range(gusts)
        for other in names
        if other != name
    ]
    return Program([SignalsStep(1), AllStep(sent), SignalsStep(1 + len(sent))])
