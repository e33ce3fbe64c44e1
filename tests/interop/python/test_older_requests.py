"""Requests that the SDK's own classes do not make, but other tools do: open and closed listings, task queues."""

from __future__ import annotations

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from temporalio import activity, workflow
from temporalio.api.enums.v1 import TaskQueueType, WorkflowExecutionStatus
from temporalio.api.filter.v1 import StartTimeFilter, StatusFilter, WorkflowExecutionFilter, WorkflowTypeFilter
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import (
    DescribeTaskQueueRequest,
    DescribeTaskQueueResponse,
    ListClosedWorkflowExecutionsRequest,
    ListOpenWorkflowExecutionsRequest,
)
from temporalio.client import Client

from tests.interop.python.harness import eventually, fresh_id, worker

pytestmark = pytest.mark.process


@activity.defn
async def nothing() -> None:
    return None


@workflow.defn
class Nothing:
    """Ends at once."""

    @workflow.run
    async def run(self) -> None:
        return None


async def start(client: Client, workflow_type: str) -> str:
    """Start a workflow of a type on a queue that nobody polls and return its id."""
    handle = await client.start_workflow(workflow_type, id=fresh_id("listed"), task_queue="nobody-polls")
    return handle.id


def any_time() -> StartTimeFilter:
    return StartTimeFilter(earliest_time=Timestamp(seconds=1), latest_time=Timestamp(seconds=4_000_000_000))


async def test_open_workflows_are_listed_by_type_and_by_id(client: Client) -> None:
    workflow_type = fresh_id("Type")
    ids = [await start(client, workflow_type) for _ in range(3)]
    await client.get_workflow_handle(ids[0]).terminate()
    by_type = ListOpenWorkflowExecutionsRequest(
        namespace=client.namespace,
        maximum_page_size=10,
        start_time_filter=any_time(),
        type_filter=WorkflowTypeFilter(name=workflow_type),
    )
    by_id = ListOpenWorkflowExecutionsRequest(
        namespace=client.namespace,
        maximum_page_size=10,
        start_time_filter=any_time(),
        execution_filter=WorkflowExecutionFilter(workflow_id=ids[1]),
    )

    async def listed(request: ListOpenWorkflowExecutionsRequest, expected: list[str]) -> bool | None:
        reply = await client.workflow_service.list_open_workflow_executions(request)
        return True if [run.execution.workflow_id for run in reply.executions] == expected else None

    assert await eventually(lambda: listed(by_type, [ids[2], ids[1]]))
    assert await eventually(lambda: listed(by_id, [ids[1]]))
    for workflow_id in ids[1:]:
        await client.get_workflow_handle(workflow_id).terminate()


async def test_closed_workflows_are_listed_by_status(client: Client) -> None:
    workflow_id = await start(client, fresh_id("Type"))
    await client.get_workflow_handle(workflow_id).terminate()
    terminated = ListClosedWorkflowExecutionsRequest(
        namespace=client.namespace,
        maximum_page_size=1000,
        start_time_filter=any_time(),
        status_filter=StatusFilter(status=WorkflowExecutionStatus.WORKFLOW_EXECUTION_STATUS_TERMINATED),
    )

    async def listed() -> bool | None:
        reply = await client.workflow_service.list_closed_workflow_executions(terminated)
        assert {run.status for run in reply.executions} <= {
            WorkflowExecutionStatus.WORKFLOW_EXECUTION_STATUS_TERMINATED
        }
        return True if workflow_id in [run.execution.workflow_id for run in reply.executions] else None

    assert await eventually(listed)


@pytest.mark.parametrize(
    "kind", [TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW, TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY], ids=TaskQueueType.Name
)
async def test_a_task_queue_names_its_pollers(client: Client, kind: TaskQueueType.ValueType) -> None:
    async with worker(client, workflows=[Nothing], activities=[nothing], identity="a-worker") as both:
        request = DescribeTaskQueueRequest(
            namespace=client.namespace, task_queue=TaskQueue(name=both.task_queue), task_queue_type=kind
        )

        async def polled() -> DescribeTaskQueueResponse | None:
            reply = await client.workflow_service.describe_task_queue(request)
            return reply if reply.pollers else None

        reply = await eventually(polled)
    assert {poller.identity for poller in reply.pollers} == {"a-worker"}
