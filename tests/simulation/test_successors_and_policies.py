"""Runs that follow each other under one id: continue-as-new, retry, cron, id policies, repeated requests."""

from __future__ import annotations

import asyncio

import pytest
from temporalio.api.common.v1 import WorkflowType
from temporalio.api.enums.v1 import WorkflowIdConflictPolicy, WorkflowIdReusePolicy
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import SignalWithStartWorkflowExecutionRequest

from perdure.server.core.events import attributes_of
from tests.simulation.activity_work import Habits
from tests.simulation.checks import histories
from tests.simulation.clients import Client, key_of, seconds, workflow_retry_policy
from tests.simulation.programs import WORKFLOWS, ActivityStep, Program, SignalsStep, TimerStep, input_of
from tests.simulation.simulation import run_seeds, seed_chunks
from tests.simulation.workers import Worker
from tests.simulation.world import World

_Conflict = WorkflowIdConflictPolicy
_Reuse = WorkflowIdReusePolicy
_POLICIES = [
    (conflict, reuse)
    for conflict in (
        _Conflict.WORKFLOW_ID_CONFLICT_POLICY_FAIL,
        _Conflict.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING,
        _Conflict.WORKFLOW_ID_CONFLICT_POLICY_TERMINATE_EXISTING,
    )
    for reuse in (
        _Reuse.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE,
        _Reuse.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE_FAILED_ONLY,
        _Reuse.WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE,
    )
    # The border refuses these two together.
    if (conflict, reuse)
    != (_Conflict.WORKFLOW_ID_CONFLICT_POLICY_TERMINATE_EXISTING, _Reuse.WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE)
]


@pytest.mark.parametrize("seeds", seed_chunks(), ids=str)
def test_an_id_has_one_current_run_and_chains_do_not_break(seeds: range) -> None:
    run_seeds(successors_and_policies, seeds, "test_successors_and_policies.py")


async def successors_and_policies(world: World) -> None:
    rng = world.rng("count")
    world.begin_workers(Worker(world, f"worker {number}", Habits()) for number in range(2))
    talks = [continue_as_new, retry, cron, race_to_start, signal_with_start]
    clients = [
        world.start(talk(Client(world, f"client {number}"), f"workflow {number}"))
        for number, talk in enumerate(rng.sample(talks, 3))
    ]
    await world.until_quiet(clients, faults_last=rng.uniform(5, 30))
    check_chains(world)


async def continue_as_new(client: Client, workflow_id: str) -> None:
    """A chain of three runs, with signals to whichever run is the current one, the last of which waits for one."""
    work = [ActivityStep("work", ["ok"], seconds=client.rng.uniform(0, 1))]
    program = Program([*work, SignalsStep(1)])
    for _ in range(2):
        program = Program([*work, TimerStep("wait", 0.5)], end="continue", then=program)
    run_id = await client.start_chain(client.start_request(workflow_id, program))
    signals = client.world.start(signal_for_ever(client, workflow_id))
    await follow_chain(client, workflow_id, run_id)
    signals.cancel()


async def signal_for_ever(client: Client, workflow_id: str) -> None:
    while True:
        await client.pause(4)
        await client.signal(workflow_id, "")


async def retry(client: Client, workflow_id: str) -> None:
    """A workflow that fails twice and then completes."""
    program = Program([ActivityStep("work", ["ok"])], end="fail", succeeds_at_attempt=3)
    request = client.start_request(workflow_id, program)
    request.retry_policy.CopyFrom(workflow_retry_policy(0))
    await follow_chain(client, workflow_id, await client.start_chain(request))


async def cron(client: Client, workflow_id: str) -> None:
    """A workflow every few seconds, until it is terminated."""
    request = client.start_request(workflow_id, Program([TimerStep("work", 0.2)]))
    request.cron_schedule = "@every 5s"
    run_id = await client.start_chain(request)
    for _ in range(client.rng.randint(1, 4)):
        following = await following_run(client, workflow_id, run_id)
        assert following, f"{run_id} is a cron run and nothing follows"
        run_id = following
    await client.terminate(workflow_id, "")


async def race_to_start(client: Client, workflow_id: str) -> None:
    """Several clients want the same id under different policies."""
    await asyncio.gather(
        *(start_some(Client(client.world, f"{workflow_id}, rival {number}"), workflow_id) for number in range(3))
    )


async def start_some(client: Client, workflow_id: str) -> None:
    for _ in range(client.rng.randint(1, 4)):
        await client.pause(4)
        program = Program([TimerStep("work", client.rng.uniform(0, 4))])
        conflict, reuse = client.rng.choice(_POLICIES)
        request = client.start_request(workflow_id, program, conflict=conflict, reuse=reuse)
        reply = await client.start(request)
        if reply is not None:
            await client.result(workflow_id, reply.run_id)


async def signal_with_start(client: Client, workflow_id: str) -> None:
    """Signals that start the workflow where it is not running."""
    run_ids = set()
    for _ in range(client.rng.randint(1, 4)):
        name = client.new_request_id()
        request = SignalWithStartWorkflowExecutionRequest(
            namespace="default",
            workflow_id=workflow_id,
            workflow_type=WorkflowType(name="simulated"),
            task_queue=TaskQueue(name=WORKFLOWS),
            input=input_of(Program([SignalsStep(1), TimerStep("work", client.rng.uniform(0, 3))])),
            workflow_task_timeout=seconds(10),
            identity="client",
            request_id=name,
            signal_name=name,
            workflow_id_conflict_policy=_Conflict.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING,
            workflow_id_reuse_policy=_Reuse.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE,
        )
        reply = await client.signal_with_start(request)
        run_ids.add(reply.run_id)
        await client.pause(4)
    for run_id in sorted(run_ids):
        await client.result(workflow_id, run_id)


async def follow_chain(client: Client, workflow_id: str, run_id: str) -> None:
    """Wait until the last run of a chain has ended; it must have completed."""
    while following := await following_run(client, workflow_id, run_id):
        run_id = following
    closing = await client.result(workflow_id, run_id)
    assert closing is not None
    assert closing.HasField("workflow_execution_completed_event_attributes")


async def following_run(client: Client, workflow_id: str, run_id: str) -> str:
    """Wait until a run has ended and return the id of the one that follows, empty where none does."""
    closing = await client.result(workflow_id, run_id)
    assert closing is not None
    following: str = getattr(attributes_of(closing), "new_execution_run_id", "")
    return following


def check_chains(world: World) -> None:
    """Check that a run which names a successor has exactly that one, and that ids hang together."""
    found = histories(world.database)
    for run_id, events in found.items():
        following = getattr(attributes_of(events[-1]), "new_execution_run_id", "")
        if following:
            start = found[following][0].workflow_execution_started_event_attributes
            assert start.continued_execution_run_id == run_id
    keys = {key_of(run.workflow_id) for run in world.database.tables.runs.values()}
    assert set(world.database.tables.current) == keys, "an id has runs and no current one"
