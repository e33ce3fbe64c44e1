"""Clients that signal, query, cancel, terminate and delete runs while workers are at them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from perdure.server.core.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
)
from perdure.server.core.run import RUNNING
from tests.simulation.activity_work import Habits
from tests.simulation.clients import Client, seconds
from tests.simulation.ledger import Fate
from tests.simulation.programs import ActivityStep, MarkerStep, Program, SignalsStep, Step, TimerStep
from tests.simulation.simulation import run_seeds, seed_chunks
from tests.simulation.workers import Worker
from tests.simulation.world import CallFailed, World


@pytest.mark.parametrize("seeds", seed_chunks(), ids=str)
def test_nothing_that_was_acknowledged_is_lost_or_doubled(seeds: range) -> None:
    run_seeds(signals_and_queries, seeds, "test_signals_and_queries.py")


async def signals_and_queries(world: World) -> None:
    rng = world.rng("count")
    is_sticky = rng.random() < 0.5
    world.begin_workers(Worker(world, f"worker {number}", Habits(is_sticky=is_sticky)) for number in range(2))
    clients = [world.start(talk_to_one(world, number)) for number in range(rng.randint(2, 4))]
    await world.until_quiet(clients, faults_last=rng.uniform(5, 40))


async def talk_to_one(world: World, number: int) -> None:
    """Start a workflow that waits for signals, and have several clients at it; it gets all signals it waits for."""
    client = Client(world, f"client {number}")
    signals = client.rng.randint(1, 6)
    steps: list[Step] = [
        ActivityStep("work", ["ok"], seconds=client.rng.uniform(0, 2)),
        SignalsStep(signals),
        MarkerStep("all signals are there"),
        TimerStep("rest", client.rng.uniform(0, 3)),
    ]
    program = Program(steps, ignores_cancel=client.rng.random() < 0.5)
    workflow_id = f"workflow {number}"
    request = client.start_request(workflow_id, program)
    if client.rng.random() < 0.15:
        request.workflow_run_timeout.CopyFrom(seconds(client.rng.uniform(2, 30)))
    reply = await client.start(request)
    assert reply is not None
    run_id = reply.run_id
    talks = [
        send_signals(Client(world, f"signaller {number}"), workflow_id, run_id, signals),
        ask(Client(world, f"asker {number}"), workflow_id, run_id),
        client.follow(workflow_id, run_id),
        client.result(workflow_id, run_id),
    ]
    match client.rng.randrange(6):
        case 0:
            talks.append(later(client, client.terminate, workflow_id, run_id))
        case 1:
            talks.append(later(client, client.request_cancel, workflow_id, run_id))
        case 2:
            talks.append(later(client, client.delete, workflow_id, run_id))
        case _:
            pass
    await asyncio.gather(*talks)


async def later(client: Client, talk: Callable[[str, str], Awaitable[None]], workflow_id: str, run_id: str) -> None:
    """Do something to a run after a while."""
    await client.pause(15)
    await talk(workflow_id, run_id)


async def send_signals(client: Client, workflow_id: str, run_id: str, count: int) -> None:
    for _ in range(count):
        await client.pause(4)
        if not await client.signal(workflow_id, run_id):
            return


async def ask(client: Client, workflow_id: str, run_id: str) -> None:
    """Ask now and then; an answer counts every signal that was acknowledged before the question."""
    ledger = client.world.ledger
    for _ in range(client.rng.randint(1, 8)):
        await client.pause(4)
        known = sum(signal.run_id == run_id and signal.fate is Fate.ACKNOWLEDGED for signal in ledger.signals.values())
        era = client.world.era()
        try:
            seen = await client.query(workflow_id, run_id, 5)
        except (CallFailed, FailedPrecondition, InvalidArgument, ResourceExhausted, DeadlineExceeded):
            # The process went away, the workflow is not ready, a sticky worker has lost its cache, or too many ask.
            continue
        except NotFound:
            assert run_id in ledger.deleted
            return
        # A workflow that was ended from outside has not heard of its last signals.
        run = client.world.database.tables.runs.get(run_id)
        is_open = run is not None and run.status == RUNNING
        if era is client.world.era() and is_open:
            assert seen >= known, f"a query of {run_id} saw {seen} signals, {known} were acknowledged before"
