"""A workflow that calls an activity, through the official SDK: results, events and state transitions."""

from __future__ import annotations

from datetime import timedelta

import pytest
from temporalio import activity, workflow
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowFailureError, WorkflowHistoryEventFilterType
from temporalio.exceptions import ActivityError, ApplicationError

from tests.interop.python.harness import (
    Server,
    event_name,
    event_names,
    events_of,
    fresh_id,
    only_event,
    transition_count,
    worker,
)

pytestmark = pytest.mark.process

ONE_ACTIVITY = [
    "WorkflowExecutionStarted",
    "WorkflowTaskScheduled",
    "WorkflowTaskStarted",
    "WorkflowTaskCompleted",
    "ActivityTaskScheduled",
    "ActivityTaskStarted",
    "ActivityTaskCompleted",
    "WorkflowTaskScheduled",
    "WorkflowTaskStarted",
    "WorkflowTaskCompleted",
    "WorkflowExecutionCompleted",
]


@activity.defn
async def greet(name: str) -> str:
    return f"Hello, {name}!"


@activity.defn
async def refuse(reason: str) -> str:
    raise ApplicationError(reason, "detail", type="Refusal", non_retryable=True)


@workflow.defn
class Greeting:
    """Calls one activity, on another queue if one is given."""

    @workflow.run
    async def run(self, queue: str) -> str:
        return await workflow.execute_activity(
            greet, "Ada", task_queue=queue or None, start_to_close_timeout=timedelta(seconds=5)
        )


@workflow.defn
class Refused:
    """Calls an activity that fails."""

    @workflow.run
    async def run(self) -> str:
        return await workflow.execute_activity(refuse, "no", start_to_close_timeout=timedelta(seconds=5))


@workflow.defn
class Nothing:
    """Ends at once."""

    @workflow.run
    async def run(self) -> str:
        return "done"


async def test_a_one_activity_run_has_11_events_and_7_transitions(client: Client) -> None:
    async with worker(client, workflows=[Greeting]) as workflows, worker(client, activities=[greet]) as activities:
        handle = await client.start_workflow(
            Greeting.run, activities.task_queue, id=fresh_id("greeting"), task_queue=workflows.task_queue
        )
        assert await handle.result() == "Hello, Ada!"
    assert await event_names(handle) == ONE_ACTIVITY
    assert [event.event_id for event in await events_of(handle)] == list(range(1, 12))
    assert await transition_count(handle) == 7
    described = await handle.describe()
    assert described.status == WorkflowExecutionStatus.COMPLETED
    assert described.history_length == 11
    assert described.raw_description.workflow_execution_info.history_size_bytes > 500


async def test_an_eager_activity_saves_one_transition(client: Client) -> None:
    async with worker(client, workflows=[Greeting], activities=[greet]) as both:
        handle = await client.start_workflow(Greeting.run, "", id=fresh_id("eager"), task_queue=both.task_queue)
        assert await handle.result() == "Hello, Ada!"
    assert await event_names(handle) == ONE_ACTIVITY
    assert await transition_count(handle) == 6


async def test_an_eager_start_hands_the_first_task_out_with_the_reply(client: Client) -> None:
    async with worker(client, workflows=[Nothing]) as starter:
        handle = await client.start_workflow(
            Nothing.run, id=fresh_id("eager-start"), task_queue=starter.task_queue, request_eager_start=True
        )
        assert await handle.result() == "done"
    started = (await only_event(handle, "WorkflowExecutionStarted")).workflow_execution_started_event_attributes
    assert started.eager_execution_accepted


async def test_a_failed_activity_fails_the_workflow_with_its_cause(client: Client) -> None:
    async with worker(client, workflows=[Refused], activities=[refuse]) as both:
        handle = await client.start_workflow(Refused.run, id=fresh_id("refused"), task_queue=both.task_queue)
        with pytest.raises(WorkflowFailureError) as failed:
            await handle.result()
    assert isinstance(failed.value.cause, ActivityError)
    cause = failed.value.cause.cause
    assert isinstance(cause, ApplicationError)
    assert (cause.message, cause.type, list(cause.details)) == ("no", "Refusal", ["detail"])
    assert (await event_names(handle))[-6:] == [
        "ActivityTaskStarted",
        "ActivityTaskFailed",
        "WorkflowTaskScheduled",
        "WorkflowTaskStarted",
        "WorkflowTaskCompleted",
        "WorkflowExecutionFailed",
    ]


async def test_the_events_say_who_worked(client: Client) -> None:
    async with worker(client, workflows=[Greeting], activities=[greet], identity="worker-1") as both:
        handle = await client.start_workflow(Greeting.run, "", id=fresh_id("who"), task_queue=both.task_queue)
        await handle.result()
    identities = {
        event.workflow_task_started_event_attributes.identity
        or event.workflow_task_completed_event_attributes.identity
        or event.activity_task_started_event_attributes.identity
        or event.activity_task_completed_event_attributes.identity
        for event in await events_of(handle)
        if event_name(event).endswith(("TaskStarted", "TaskCompleted"))
    }
    assert identities == {"worker-1"}


async def test_waiting_for_the_close_event_returns_that_event_alone(client: Client) -> None:
    async with worker(client, workflows=[Nothing]) as both:
        handle = await client.start_workflow(Nothing.run, id=fresh_id("close"), task_queue=both.task_queue)
        closing = [
            event
            async for event in handle.fetch_history_events(
                wait_new_event=True, event_filter_type=WorkflowHistoryEventFilterType.CLOSE_EVENT
            )
        ]
    assert [event_name(event) for event in closing] == ["WorkflowExecutionCompleted"]


async def test_a_history_can_be_followed_while_it_grows(client: Client) -> None:
    handle = await client.start_workflow(Nothing.run, id=fresh_id("follow"), task_queue=fresh_id("queue"))
    names = []
    async for event in handle.fetch_history_events(wait_new_event=True):
        names.append(event_name(event))
        if len(names) == 2:
            await handle.terminate()
    assert names == ["WorkflowExecutionStarted", "WorkflowTaskScheduled", "WorkflowExecutionTerminated"]


async def test_a_server_on_a_file_runs_the_same_workflow(durable_server: Server) -> None:
    client = await durable_server.connect()
    async with worker(client, workflows=[Greeting]) as workflows, worker(client, activities=[greet]) as activities:
        handle = await client.start_workflow(
            Greeting.run, activities.task_queue, id=fresh_id("greeting"), task_queue=workflows.task_queue
        )
        assert await handle.result() == "Hello, Ada!"
    assert await event_names(handle) == ONE_ACTIVITY
    assert await transition_count(handle) == 7
