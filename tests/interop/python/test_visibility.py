"""Managing workflows: cancel, terminate, describe, list, count, delete, memo and search attributes."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from temporalio import workflow
from temporalio.api.common.v1 import WorkflowExecution as ExecutionId
from temporalio.api.workflowservice.v1 import DeleteWorkflowExecutionRequest
from temporalio.client import (
    Client,
    WorkflowExecution,
    WorkflowExecutionStatus,
    WorkflowFailureError,
    WorkflowHandle,
)
from temporalio.common import SearchAttributeKey, SearchAttributePair, TypedSearchAttributes
from temporalio.exceptions import CancelledError, TerminatedError
from temporalio.service import RPCError, RPCStatusCode

from tests.interop.python.harness import eventually, fresh_id, only_event, worker

pytestmark = pytest.mark.process

KEYWORD = SearchAttributeKey.for_keyword("InteropKeyword")
NUMBER = SearchAttributeKey.for_int("InteropInt")


@workflow.defn
class Waiter:
    """Waits for ever."""

    @workflow.run
    async def run(self) -> None:
        await asyncio.Future[None]()


@workflow.defn
class Annotated:
    """Changes its memo and search attributes."""

    @workflow.run
    async def run(self) -> str:
        workflow.upsert_memo({"changed": "new", "removed": None})
        workflow.upsert_search_attributes([KEYWORD.value_set("new"), NUMBER.value_unset()])
        return str(workflow.memo_value("changed"))


async def wait_alone(client: Client, workflow_id: str, queue: str) -> WorkflowHandle[Waiter, None]:
    """Start a workflow on a queue that nobody polls."""
    return await client.start_workflow(Waiter.run, id=workflow_id, task_queue=queue)


async def listed(client: Client, query: str, count: int, page_size: int = 1000) -> list[WorkflowExecution]:
    """Return what a query lists, once it is that many."""

    async def look() -> list[WorkflowExecution] | None:
        found = [run async for run in client.list_workflows(query, page_size=page_size)]
        return found if len(found) == count else None

    return await eventually(look)


async def test_a_cancelled_workflow_ends_as_cancelled(client: Client) -> None:
    async with worker(client, workflows=[Waiter]) as running:
        handle = await client.start_workflow(Waiter.run, id=fresh_id("cancel"), task_queue=running.task_queue)
        await handle.cancel(reason="not needed")
        with pytest.raises(WorkflowFailureError) as failed:
            await handle.result()
    assert isinstance(failed.value.cause, CancelledError)
    requested = await only_event(handle, "WorkflowExecutionCancelRequested")
    assert requested.workflow_execution_cancel_requested_event_attributes.cause == "not needed"
    assert (await handle.describe()).status == WorkflowExecutionStatus.CANCELED
    await handle.cancel()


async def test_a_terminated_workflow_ends_at_once(client: Client) -> None:
    handle = await wait_alone(client, fresh_id("terminate"), "nobody-polls")
    await handle.terminate("a detail", reason="a reason")
    with pytest.raises(WorkflowFailureError) as failed:
        await handle.result()
    assert isinstance(failed.value.cause, TerminatedError)
    terminated = await only_event(handle, "WorkflowExecutionTerminated")
    assert terminated.workflow_execution_terminated_event_attributes.reason == "a reason"
    for refused in (handle.terminate(), handle.signal("anything")):
        with pytest.raises(RPCError, match="workflow execution already completed") as error:
            await refused
        assert error.value.status == RPCStatusCode.NOT_FOUND


async def test_describe_tells_what_was_started(client: Client) -> None:
    handle = await client.start_workflow(
        Waiter.run,
        id=fresh_id("describe"),
        task_queue="nobody-polls",
        execution_timeout=timedelta(hours=2),
        task_timeout=timedelta(seconds=7),
        memo={"who": "Ada"},
    )
    described = await handle.describe()
    assert (described.id, described.run_id) == (handle.id, handle.first_execution_run_id)
    assert (described.workflow_type, described.task_queue) == ("Waiter", "nobody-polls")
    assert described.status == WorkflowExecutionStatus.RUNNING
    assert await described.memo_value("who") == "Ada"
    assert abs(datetime.now(UTC) - described.start_time) < timedelta(seconds=20)
    config = described.raw_description.execution_config
    assert config.workflow_execution_timeout.ToTimedelta() == timedelta(hours=2)
    assert config.default_workflow_task_timeout.ToTimedelta() == timedelta(seconds=7)
    assert described.raw_description.pending_workflow_task.attempt == 1
    await handle.terminate()


async def test_workflows_are_listed_by_what_is_known_of_them(client: Client) -> None:
    queue = fresh_id("queue")
    handles = [await wait_alone(client, fresh_id("listed"), queue) for _ in range(5)]
    await handles[0].terminate()
    of_queue = f"TaskQueue = '{queue}'"
    everything = await listed(client, of_queue, 5)
    assert [run.id for run in everything] == [handle.id for handle in reversed(handles)]
    assert len(await listed(client, of_queue, 5, page_size=2)) == 5
    (terminated,) = await listed(client, f"{of_queue} AND ExecutionStatus = 'Terminated'", 1)
    assert terminated.id == handles[0].id
    assert terminated.close_time is not None
    (by_id,) = await listed(client, f"WorkflowId = '{handles[3].id}'", 1)
    assert (await listed(client, f'RunId = "{by_id.run_id}"', 1))[0].id == handles[3].id
    assert len(await listed(client, f"WorkflowType = 'Waiter' AND {of_queue}", 5)) == 5
    for handle in handles[1:]:
        await handle.terminate()


async def test_a_start_time_as_it_was_listed_finds_its_run(client: Client) -> None:
    queue = fresh_id("queue")
    handles = [await wait_alone(client, fresh_id("timed"), queue) for _ in range(3)]
    middle = (await listed(client, f"TaskQueue = '{queue}'", 3))[1].start_time.isoformat()
    for comparison, expected in ((">", [2]), ("=", [1]), ("<", [0])):
        found = await listed(client, f"TaskQueue = '{queue}' AND StartTime {comparison} '{middle}'", len(expected))
        assert [run.id for run in found] == [handles[number].id for number in expected]
    for handle in handles:
        await handle.terminate()


async def test_workflows_are_counted(client: Client) -> None:
    queue = fresh_id("queue")
    handles = [await wait_alone(client, fresh_id("counted"), queue) for _ in range(3)]
    await handles[0].terminate()
    await listed(client, f"TaskQueue = '{queue}' AND ExecutionStatus = 'Terminated'", 1)
    counted = await client.count_workflows(f"TaskQueue = '{queue}' GROUP BY ExecutionStatus")
    assert counted.count == 3
    assert {str(group.group_values[0]): group.count for group in counted.groups} == {"Running": 2, "Terminated": 1}
    for handle in handles[1:]:
        await handle.terminate()


async def test_a_query_that_cannot_be_read_is_refused(client: Client) -> None:
    for query in ("WorkflowId =", "NoSuchAttribute = 'x'"):
        with pytest.raises(RPCError) as refused:
            await client.count_workflows(query)
        assert refused.value.status == RPCStatusCode.INVALID_ARGUMENT


async def test_a_deleted_workflow_is_gone(client: Client) -> None:
    handle = await wait_alone(client, fresh_id("deleted"), "nobody-polls")
    await client.workflow_service.delete_workflow_execution(
        DeleteWorkflowExecutionRequest(
            namespace=client.namespace, workflow_execution=ExecutionId(workflow_id=handle.id)
        )
    )

    async def gone() -> bool | None:
        try:
            await handle.describe()
        except RPCError as error:
            assert error.status == RPCStatusCode.NOT_FOUND
            return True
        return None

    await eventually(gone)
    await listed(client, f"WorkflowId = '{handle.id}'", 0)


async def test_a_workflow_changes_its_memo_and_search_attributes(client: Client) -> None:
    async with worker(client, workflows=[Annotated]) as running:
        handle = await client.start_workflow(
            Annotated.run,
            id=fresh_id("annotated"),
            task_queue=running.task_queue,
            memo={"changed": "old", "removed": "old", "kept": "old"},
            search_attributes=TypedSearchAttributes(
                [SearchAttributePair(KEYWORD, "old"), SearchAttributePair(NUMBER, 1)]
            ),
        )
        assert await handle.result() == "new"
    described = await handle.describe()
    assert await described.memo() == {"changed": "new", "kept": "old"}
    assert described.typed_search_attributes.get(KEYWORD) == "new"
    assert described.typed_search_attributes.get(NUMBER) is None
    upserted = await only_event(handle, "UpsertWorkflowSearchAttributes")
    assert upserted.event_id == 6


async def test_an_unknown_search_attribute_is_refused(client: Client) -> None:
    unknown = SearchAttributePair(SearchAttributeKey.for_keyword("NeverRegistered"), "x")
    with pytest.raises(RPCError, match="no mapping defined for search attribute NeverRegistered") as refused:
        await client.start_workflow(
            Waiter.run, id=fresh_id("w"), task_queue="q", search_attributes=TypedSearchAttributes([unknown])
        )
    assert refused.value.status == RPCStatusCode.INVALID_ARGUMENT


async def test_an_unknown_namespace_is_not_found(client: Client) -> None:
    elsewhere = Client(client.service_client, namespace="nowhere")
    with pytest.raises(RPCError) as refused:
        await wait_alone(elsewhere, fresh_id("w"), "q")
    assert refused.value.status == RPCStatusCode.NOT_FOUND
