"""Which start under a taken workflow id is refused, joined or let through, and repeated requests."""

from __future__ import annotations

import pytest
from temporalio import workflow
from temporalio.api.common.v1 import WorkflowExecution, WorkflowType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import SignalWorkflowExecutionRequest, StartWorkflowExecutionRequest
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowHandle
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import ApplicationError, WorkflowAlreadyStartedError

from tests.interop.python.harness import event_names, fresh_id, worker

pytestmark = pytest.mark.process


@workflow.defn
class Ends:
    """Ends at once, well or badly."""

    @workflow.run
    async def run(self, well: bool) -> None:
        if not well:
            raise ApplicationError("badly")


async def start(
    client: Client,
    workflow_id: str,
    *,
    task_queue: str = "nobody-polls",
    well: bool = True,
    reuse: WorkflowIDReusePolicy = WorkflowIDReusePolicy.ALLOW_DUPLICATE,
    conflict: WorkflowIDConflictPolicy = WorkflowIDConflictPolicy.UNSPECIFIED,
) -> WorkflowHandle[Ends, None]:
    return await client.start_workflow(
        Ends.run, well, id=workflow_id, task_queue=task_queue, id_reuse_policy=reuse, id_conflict_policy=conflict
    )


async def closed_run(client: Client, workflow_id: str, *, well: bool) -> None:
    async with worker(client, workflows=[Ends]) as running:
        handle = await start(client, workflow_id, task_queue=running.task_queue, well=well)
        closing = [event async for event in handle.fetch_history_events(wait_new_event=True)][-1]
        assert closing.HasField("workflow_execution_completed_event_attributes") == well


async def test_a_running_workflow_keeps_its_id(client: Client) -> None:
    first = await start(client, fresh_id("taken"))
    with pytest.raises(WorkflowAlreadyStartedError) as refused:
        await start(client, first.id)
    assert refused.value.run_id == first.first_execution_run_id
    await first.terminate()


async def test_use_existing_returns_the_running_one(client: Client) -> None:
    first = await start(client, fresh_id("existing"))
    second = await start(client, first.id, conflict=WorkflowIDConflictPolicy.USE_EXISTING)
    assert second.first_execution_run_id == first.first_execution_run_id
    await first.terminate()


async def test_terminate_existing_ends_the_running_one(client: Client) -> None:
    first = await start(client, fresh_id("replaced"))
    second = await start(client, first.id, conflict=WorkflowIDConflictPolicy.TERMINATE_EXISTING)
    assert second.first_execution_run_id != first.first_execution_run_id
    replaced = client.get_workflow_handle(first.id, run_id=first.first_execution_run_id)
    assert (await replaced.describe()).status == WorkflowExecutionStatus.TERMINATED
    assert (await second.describe()).status == WorkflowExecutionStatus.RUNNING
    await second.terminate()


@pytest.mark.parametrize(
    ("reuse", "well", "allowed"),
    [
        (WorkflowIDReusePolicy.ALLOW_DUPLICATE, True, True),
        (WorkflowIDReusePolicy.ALLOW_DUPLICATE_FAILED_ONLY, True, False),
        (WorkflowIDReusePolicy.ALLOW_DUPLICATE_FAILED_ONLY, False, True),
        (WorkflowIDReusePolicy.REJECT_DUPLICATE, False, False),
    ],
)
async def test_the_reuse_policy_decides_over_closed_runs(
    client: Client, reuse: WorkflowIDReusePolicy, well: bool, allowed: bool
) -> None:
    workflow_id = fresh_id("reuse")
    await closed_run(client, workflow_id, well=well)
    if allowed:
        await (await start(client, workflow_id, reuse=reuse)).terminate()
    else:
        with pytest.raises(WorkflowAlreadyStartedError):
            await start(client, workflow_id, reuse=reuse)


async def test_a_repeated_start_request_starts_nothing_new(client: Client) -> None:
    request = StartWorkflowExecutionRequest(
        namespace=client.namespace,
        workflow_id=fresh_id("request"),
        workflow_type=WorkflowType(name="Ends"),
        task_queue=TaskQueue(name="nobody-polls"),
        request_id=fresh_id("request"),
    )
    first = await client.workflow_service.start_workflow_execution(request)
    again = await client.workflow_service.start_workflow_execution(request)
    assert first.run_id == again.run_id
    assert first.started
    await client.get_workflow_handle(request.workflow_id).terminate()


async def test_a_repeated_signal_request_signals_once(client: Client) -> None:
    handle = await start(client, fresh_id("signalled"))
    request = SignalWorkflowExecutionRequest(
        namespace=client.namespace,
        workflow_execution=WorkflowExecution(workflow_id=handle.id),
        signal_name="anything",
        request_id=fresh_id("request"),
    )
    for _ in range(2):
        await client.workflow_service.signal_workflow_execution(request)
    assert (await event_names(handle)).count("WorkflowExecutionSignaled") == 1
    await handle.terminate()
