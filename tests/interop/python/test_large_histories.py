"""Histories of thousands of events: paging, replay in pages, wide fan-out."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from temporalio import activity, workflow
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.workflowservice.v1 import GetWorkflowExecutionHistoryReverseRequest
from temporalio.client import Client

from tests.interop.python.harness import event_name, fresh_id, history_pages, worker

pytestmark = pytest.mark.process

SIGNALS = 600
ACTIVITIES = 300


@activity.defn
async def double(number: int) -> int:
    return 2 * number


@workflow.defn
class Sum:
    """Adds up signals."""

    def __init__(self) -> None:
        self.received: list[int] = []

    @workflow.run
    async def run(self, expected: int) -> int:
        await workflow.wait_condition(lambda: len(self.received) == expected)
        return sum(self.received)

    @workflow.signal
    def add(self, number: int) -> None:
        self.received.append(number)


@workflow.defn
class FanOut:
    """Runs many activities at once."""

    @workflow.run
    async def run(self, width: int) -> int:
        timeout = timedelta(seconds=30)
        calls = [workflow.execute_activity(double, number, start_to_close_timeout=timeout) for number in range(width)]
        return sum(await asyncio.gather(*calls))


async def test_a_history_of_many_signals_is_read_in_pages_and_replayed(client: Client) -> None:
    queue = fresh_id("queue")
    handle = await client.start_workflow(Sum.run, SIGNALS, id=fresh_id("sum"), task_queue=queue)
    await asyncio.gather(*(handle.signal(Sum.add, number) for number in range(SIGNALS)))
    async with worker(client, workflows=[Sum], task_queue=queue):
        assert await handle.result() == sum(range(SIGNALS))
    pages = await history_pages(client, handle.id, page_size=100)
    assert len(pages) >= SIGNALS // 100
    events = [event for page in pages for event in page]
    assert [event.event_id for event in events] == list(range(1, len(events) + 1))
    assert [event_name(event) for event in events].count("WorkflowExecutionSignaled") == SIGNALS
    assert await history_in_reverse(client, handle.id, page_size=100) == events[::-1]


async def history_in_reverse(client: Client, workflow_id: str, page_size: int) -> list[HistoryEvent]:
    """Return the history of the current run of a workflow, last event first."""
    request = GetWorkflowExecutionHistoryReverseRequest(
        namespace=client.namespace, execution=WorkflowExecution(workflow_id=workflow_id), maximum_page_size=page_size
    )
    events: list[HistoryEvent] = []
    while True:
        reply = await client.workflow_service.get_workflow_execution_history_reverse(request)
        events += reply.history.events
        if not reply.next_page_token:
            return events
        request.next_page_token = reply.next_page_token


async def test_a_wide_fan_out_of_activities_completes(client: Client) -> None:
    async with worker(client, workflows=[FanOut], activities=[double]) as both:
        handle = await client.start_workflow(FanOut.run, ACTIVITIES, id=fresh_id("wide"), task_queue=both.task_queue)
        assert await handle.result() == 2 * sum(range(ACTIVITIES))
    events = [event for page in await history_pages(client, handle.id, page_size=500) for event in page]
    names = [event_name(event) for event in events]
    for name in ("ActivityTaskScheduled", "ActivityTaskStarted", "ActivityTaskCompleted"):
        assert names.count(name) == ACTIVITIES
    closings = [event for event in events if event_name(event) == "ActivityTaskCompleted"]
    for closing in closings:
        attributes = closing.activity_task_completed_event_attributes
        started = events[attributes.started_event_id - 1].activity_task_started_event_attributes
        assert started.scheduled_event_id == attributes.scheduled_event_id
