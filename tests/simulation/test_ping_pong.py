"""Two workflows that signal each other in turn: one lost or doubled signal, and they never end or miscount."""

from __future__ import annotations

import asyncio

import pytest

from tests.simulation.activity_work import Habits
from tests.simulation.clients import Client, seconds
from tests.simulation.programs import Program, SignalOtherStep, SignalsStep, Step
from tests.simulation.simulation import run_seeds, seed_chunks
from tests.simulation.test_families import until_all_is_over
from tests.simulation.workers import Worker
from tests.simulation.world import World


@pytest.mark.parametrize("seeds", seed_chunks(), ids=str)
def test_ping_pong_is_played_to_its_end(seeds: range) -> None:
    run_seeds(ping_pong, seeds, "test_ping_pong.py")


async def ping_pong(world: World) -> None:
    rng = world.rng("count")
    is_sticky = rng.random() < 0.5
    world.begin_workers(Worker(world, f"worker {number}", Habits(is_sticky=is_sticky)) for number in range(2))
    games = [world.start(play(world, number)) for number in range(rng.randint(1, 3))]
    await world.until_quiet(games, faults_last=rng.uniform(5, 40))
    await until_all_is_over(world)


async def play(world: World, number: int) -> None:
    client = Client(world, f"client {number}")
    ping, pong = f"ping {number}", f"pong {number}"
    rounds = client.rng.randint(1, 5)
    is_disturbed = client.rng.random() < 0.25
    serve: list[Step] = []
    return_: list[Step] = []
    for turn in range(1, rounds + 1):
        serve += [SignalOtherStep(f"{ping} {turn}", pong), SignalsStep(turn)]
        return_ += [SignalsStep(turn), SignalOtherStep(f"{pong} {turn}", ping)]
    run_ids = []
    for workflow_id, steps in ((pong, return_), (ping, serve)):
        request = client.start_request(workflow_id, Program(steps))
        if is_disturbed:
            request.workflow_run_timeout.CopyFrom(seconds(60))
        reply = await client.start(request)
        assert reply is not None
        run_ids.append(reply.run_id)
    if is_disturbed:
        await client.pause(10)
        await client.terminate(pong, run_ids[0])
    ends = await asyncio.gather(client.result(pong, run_ids[0]), client.result(ping, run_ids[1]))
    if is_disturbed:
        return
    for end in ends:
        assert end is not None
        completed = end.workflow_execution_completed_event_attributes
        assert int(completed.result.payloads[0].data) == rounds, "each got as many signals as were played"
