"""`temporal workflow ...` and `temporal activity ...`."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from temporalio import activity, workflow
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowHandle

from tests.interop.cli.conftest import Temporal
from tests.interop.python.harness import eventually, fresh_id, worker

pytestmark = pytest.mark.process


@activity.defn
async def answer_later() -> str:
    activity.raise_complete_async()


@workflow.defn
class Adder:
    """Adds up signals, from a first number on."""

    def __init__(self) -> None:
        self.total = 0

    @workflow.run
    async def run(self, first: int) -> int:
        self.total += first
        await workflow.wait_condition(lambda: self.total >= 10)
        return self.total

    @workflow.signal
    def add(self, number: int) -> None:
        self.total += number

    @workflow.query
    def sum(self) -> int:
        return self.total


@workflow.defn
class Later:
    """Waits for an activity that somebody else completes."""

    @workflow.run
    async def run(self) -> str:
        return await workflow.execute_activity(
            answer_later, activity_id="later", schedule_to_close_timeout=timedelta(seconds=20)
        )


async def idle(client: Client) -> WorkflowHandle[Adder, int]:
    """Start a workflow that no worker takes."""
    return await client.start_workflow(Adder.run, 1, id=fresh_id("idle"), task_queue=fresh_id("queue"))


async def test_start_signal_query_and_the_result(temporal: Temporal, client: Client) -> None:
    workflow_id = fresh_id("adder")
    async with worker(client, workflows=[Adder]) as running:
        where = ["--type", "Adder", "--task-queue", running.task_queue, "--workflow-id", workflow_id]
        started = await temporal.json("workflow", "start", *where, "--input", "1")
        assert isinstance(started, dict)
        assert started["workflowId"] == workflow_id
        await temporal.run("workflow", "signal", "--workflow-id", workflow_id, "--name", "add", "--input", "2")
        queried = await temporal.json("workflow", "query", "--workflow-id", workflow_id, "--type", "sum")
        assert queried == {"queryResult": [3]}
        await temporal.run("workflow", "signal", "--workflow-id", workflow_id, "--name", "add", "--input", "7")
        result = await temporal.json("workflow", "result", "--workflow-id", workflow_id)
        assert isinstance(result, dict)
        assert (result["status"], result["result"]) == ("COMPLETED", 10)
        refused = await temporal.refused(
            "workflow", "start", *where, "--fail-existing", "--id-reuse-policy", "RejectDuplicate"
        )
    assert "already" in refused


async def test_execute_waits_for_the_result(temporal: Temporal, client: Client) -> None:
    async with worker(client, workflows=[Adder]) as running:
        output = await temporal.run(
            *("workflow", "execute", "--type", "Adder", "--task-queue", running.task_queue),
            *("--workflow-id", fresh_id("execute"), "--input", "12"),
        )
    assert "WorkflowExecutionCompleted" in output
    assert "COMPLETED" in output
    assert "12" in output


async def test_show_prints_the_history(temporal: Temporal, client: Client) -> None:
    handle = await idle(client)
    output = await temporal.run("workflow", "show", "--workflow-id", handle.id)
    assert "WorkflowExecutionStarted" in output
    assert "WorkflowTaskScheduled" in output
    shown = await temporal.json("workflow", "show", "--workflow-id", handle.id)
    assert isinstance(shown, dict)
    assert [event["eventId"] for event in shown["events"]] == ["1", "2"]
    await handle.terminate()


async def test_describe_tells_the_state_of_a_run(temporal: Temporal, client: Client) -> None:
    handle = await idle(client)
    described = await temporal.json("workflow", "describe", "--workflow-id", handle.id)
    assert isinstance(described, dict)
    info = described["workflowExecutionInfo"]
    assert info["execution"] == {"workflowId": handle.id, "runId": handle.first_execution_run_id}
    assert info["status"] == "WORKFLOW_EXECUTION_STATUS_RUNNING"
    assert (info["historyLength"], info["stateTransitionCount"]) == ("2", "1")
    assert described["pendingWorkflowTask"]["state"] == "PENDING_WORKFLOW_TASK_STATE_SCHEDULED"
    assert "Running" not in await temporal.refused("workflow", "describe", "--workflow-id", fresh_id("unknown"))
    await handle.terminate()


async def test_list_and_count(temporal: Temporal, client: Client) -> None:
    handle = await idle(client)
    query = f"WorkflowId = '{handle.id}'"

    async def listed() -> list[object] | None:
        found = await temporal.json("workflow", "list", "--query", query)
        assert isinstance(found, list)
        return found or None

    (found,) = await eventually(listed)
    assert isinstance(found, dict)
    assert found["type"] == {"name": "Adder"}
    assert "Total: 1" in await temporal.run("workflow", "count", "--query", query)
    assert handle.id in await temporal.run("workflow", "list")
    await handle.terminate()


async def test_cancel_requests_the_cancellation(temporal: Temporal, client: Client) -> None:
    handle = await idle(client)
    await temporal.run("workflow", "cancel", "--workflow-id", handle.id)
    assert "WorkflowExecutionCancelRequested" in await temporal.run("workflow", "show", "--workflow-id", handle.id)
    await handle.terminate()


async def test_terminate_ends_the_run_with_its_reason(temporal: Temporal, client: Client) -> None:
    handle = await idle(client)
    await temporal.run("workflow", "terminate", "--workflow-id", handle.id, "--reason", "not needed")
    assert (await handle.describe()).status == WorkflowExecutionStatus.TERMINATED
    shown = await temporal.json("workflow", "show", "--workflow-id", handle.id)
    assert '"reason": "not needed"' in json.dumps(shown)


async def test_delete_removes_the_run(temporal: Temporal, client: Client) -> None:
    handle = await idle(client)
    await temporal.run("workflow", "delete", "--yes", "--workflow-id", handle.id)

    async def unknown() -> str | None:
        listed = await temporal.json("workflow", "list", "--query", f"WorkflowId = '{handle.id}'")
        return None if listed else await temporal.refused("workflow", "describe", "--workflow-id", handle.id)

    assert "not found" in await eventually(unknown)


async def test_an_activity_is_completed_by_its_id(temporal: Temporal, client: Client) -> None:
    async with worker(client, workflows=[Later], activities=[answer_later]) as both:
        handle = await client.start_workflow(Later.run, id=fresh_id("complete"), task_queue=both.task_queue)
        await eventually(lambda: activity_started(handle))
        await temporal.run(
            "activity", "complete", "--workflow-id", handle.id, "--activity-id", "later", "--result", '"done"'
        )
        assert await handle.result() == "done"


async def test_an_activity_is_failed_by_its_id(temporal: Temporal, client: Client) -> None:
    async with worker(client, workflows=[Later], activities=[answer_later]) as both:
        handle = await client.start_workflow(Later.run, id=fresh_id("fail"), task_queue=both.task_queue)
        await eventually(lambda: activity_started(handle))
        await temporal.run(
            "activity", "fail", "--workflow-id", handle.id, "--activity-id", "later", "--reason", "no luck"
        )

        async def closed() -> WorkflowExecutionStatus | None:
            status = (await handle.describe()).status
            return None if status == WorkflowExecutionStatus.RUNNING else status

        assert await eventually(closed) == WorkflowExecutionStatus.FAILED
    assert "no luck" in json.dumps(await temporal.json("workflow", "show", "--workflow-id", handle.id))


async def activity_started(handle: WorkflowHandle[Later, str]) -> bool | None:
    pending = (await handle.describe()).raw_description.pending_activities
    return True if pending and pending[0].HasField("last_started_time") else None
