"""Sticky workers that come and go: their caches are lost, their queues are polled by nobody, others take over."""

from __future__ import annotations

import asyncio

import pytest
from temporalio.api.workflowservice.v1 import ShutdownWorkerRequest

from tests.simulation.activity_work import Habits
from tests.simulation.clients import Client
from tests.simulation.processes import NAMESPACE_ID
from tests.simulation.programs import WORKFLOWS, ActivityStep, AllStep, Program, SignalsStep, Step, TimerStep
from tests.simulation.simulation import run_seeds, seed_chunks
from tests.simulation.test_signals_and_queries import ask, send_signals
from tests.simulation.workers import Worker
from tests.simulation.world import CallFailed, World


@pytest.mark.parametrize("seeds", seed_chunks(), ids=str)
def test_no_workflow_waits_for_a_worker_that_is_gone(seeds: range) -> None:
    run_seeds(sticky_workers, seeds, "test_sticky_workers.py")


async def sticky_workers(world: World) -> None:
    rng = world.rng("count")
    staff = world.start(come_and_go(world))
    clients = [world.start(run_one(world, number)) for number in range(rng.randint(2, 4))]
    await world.until_quiet([*clients, staff], faults_last=rng.uniform(5, 40))


async def come_and_go(world: World) -> None:
    """Replace workers while faults last: some are killed, some leave and say so. The last two stay."""
    rng = world.rng("staff")
    workers: list[Worker] = []
    for number in range(rng.randint(2, 6)):
        worker = Worker(world, f"worker {number}", Habits(is_sticky=True, poll_seconds=rng.choice((2.0, 20.0))))
        worker.start()
        workers.append(worker)
        await asyncio.sleep(rng.uniform(0, 5))
        if len(workers) > 2:
            await leave(world, workers.pop(0), says_so=rng.random() < 0.5)


async def leave(world: World, worker: Worker, *, says_so: bool) -> None:
    """End a worker."""
    await worker.kill()
    if says_so:
        request = ShutdownWorkerRequest(
            namespace="default",
            identity=worker.name,
            sticky_task_queue=worker.sticky_queue,
            worker_instance_key=worker.name,
            task_queue=WORKFLOWS,
        )
        try:
            await world.call(lambda engine: engine.shutdown_worker(NAMESPACE_ID, request))
        except CallFailed:
            return


async def run_one(world: World, number: int) -> None:
    client = Client(world, f"client {number}")
    workflow_id = f"workflow {number}"
    signals = client.rng.randint(0, 4)
    steps: list[Step] = []
    for step in range(client.rng.randint(1, 4)):
        steps.append(ActivityStep(f"work {step}", ["ok"], seconds=client.rng.uniform(0, 2), eager=True))
        steps.append(TimerStep(f"timer {step}", client.rng.choice((0.01, 2.0, 15.0))))
    steps.append(AllStep([ActivityStep(f"together {part}", ["fail", "ok"]) for part in range(3)]))
    steps.append(SignalsStep(signals))
    reply = await client.start(client.start_request(workflow_id, Program(steps)))
    assert reply is not None
    await asyncio.gather(
        client.result(workflow_id, reply.run_id),
        client.follow(workflow_id, reply.run_id),
        send_signals(client, workflow_id, reply.run_id, signals),
        ask(Client(world, f"asker {number}"), workflow_id, reply.run_id),
    )
