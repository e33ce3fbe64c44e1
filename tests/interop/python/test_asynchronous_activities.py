"""Activities that are completed from elsewhere, by task token or by id, and local activities."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from temporalio import activity, workflow
from temporalio.client import AsyncActivityHandle, Client, WorkflowFailureError, WorkflowHandle
from temporalio.exceptions import ActivityError, ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from tests.interop.python.harness import event_names, fresh_id, only_event, worker

pytestmark = pytest.mark.process

tokens: dict[str, asyncio.Future[bytes]] = {}


@activity.defn
async def answer_later() -> str:
    info = activity.info()
    tokens[info.workflow_id or ""].set_result(info.task_token)
    activity.raise_complete_async()


@activity.defn
async def add(one: int, other: int) -> int:
    return one + other


@workflow.defn
class Later:
    """Waits for an activity that somebody else completes."""

    @workflow.run
    async def run(self) -> str:
        return await workflow.execute_activity(
            answer_later, activity_id="later", schedule_to_close_timeout=timedelta(seconds=20)
        )


@workflow.defn
class Local:
    """Calls two local activities."""

    @workflow.run
    async def run(self) -> int:
        total = 0
        for number in (1, 2):
            total = await workflow.execute_local_activity(
                add, args=[total, number], start_to_close_timeout=timedelta(seconds=5)
            )
        return total


class Waiting:
    """A run whose activity waits to be completed."""

    def __init__(self, client: Client, handle: WorkflowHandle[Later, str], token: bytes) -> None:
        self.handle = handle
        self.by_token = client.get_async_activity_handle(task_token=token)
        self.by_id = client.get_async_activity_handle(
            workflow_id=handle.id, run_id=handle.result_run_id, activity_id="later"
        )

    def by(self, how: str) -> AsyncActivityHandle:
        return self.by_token if how == "token" else self.by_id


async def start(client: Client, task_queue: str) -> Waiting:
    workflow_id = fresh_id("later")
    tokens[workflow_id] = asyncio.get_running_loop().create_future()
    handle = await client.start_workflow(Later.run, id=workflow_id, task_queue=task_queue)
    return Waiting(client, handle, await asyncio.wait_for(tokens[workflow_id], 10))


@pytest.mark.parametrize("how", ["token", "id"])
async def test_an_activity_is_completed_from_elsewhere(client: Client, how: str) -> None:
    async with worker(client, workflows=[Later], activities=[answer_later]) as both:
        waiting = await start(client, both.task_queue)
        await waiting.by(how).heartbeat("still here")
        await waiting.by(how).complete("done elsewhere")
        assert await waiting.handle.result() == "done elsewhere"


@pytest.mark.parametrize("how", ["token", "id"])
async def test_an_activity_is_failed_from_elsewhere(client: Client, how: str) -> None:
    async with worker(client, workflows=[Later], activities=[answer_later]) as both:
        waiting = await start(client, both.task_queue)
        await waiting.by(how).fail(ApplicationError("no luck", non_retryable=True))
        with pytest.raises(WorkflowFailureError) as failed:
            await waiting.handle.result()
    assert isinstance(failed.value.cause, ActivityError)
    assert isinstance(failed.value.cause.cause, ApplicationError)
    assert failed.value.cause.cause.message == "no luck"


async def test_an_activity_cannot_be_completed_twice(client: Client) -> None:
    async with worker(client, workflows=[Later], activities=[answer_later]) as both:
        waiting = await start(client, both.task_queue)
        await waiting.by_token.complete("first")
        assert await waiting.handle.result() == "first"
        for again in (waiting.by_token, waiting.by_id):
            with pytest.raises(RPCError) as refused:
                await again.complete("second")
            assert refused.value.status == RPCStatusCode.NOT_FOUND


async def test_an_activity_that_nobody_cancelled_cannot_report_cancellation(client: Client) -> None:
    async with worker(client, workflows=[Later], activities=[answer_later]) as both:
        waiting = await start(client, both.task_queue)
        with pytest.raises(RPCError) as refused:
            await waiting.by_token.report_cancellation()
        assert refused.value.status == RPCStatusCode.INVALID_ARGUMENT
        await waiting.by_id.complete("still open")
        assert await waiting.handle.result() == "still open"


async def test_local_activities_leave_markers_only(client: Client) -> None:
    async with worker(client, workflows=[Local], activities=[add]) as both:
        handle = await client.start_workflow(Local.run, id=fresh_id("local"), task_queue=both.task_queue)
        assert await handle.result() == 3
    names = await event_names(handle)
    assert names.count("MarkerRecorded") == 2
    assert not [name for name in names if name.startswith("Activity")]
    assert (await only_event(handle, "WorkflowExecutionCompleted")).event_id == len(names)
