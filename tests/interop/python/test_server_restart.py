"""A server on a database that is killed with SIGKILL and started again: nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from temporalio import activity, workflow
from temporalio.client import WorkflowExecutionStatus, WorkflowHandle

from tests.interop.python.harness import Server, event_name, events_of, fresh_id, worker

pytestmark = pytest.mark.process

WORKFLOWS = 10


@activity.defn
async def answer(word: str) -> str:
    await asyncio.sleep(0.3)
    return word.upper()


@workflow.defn
class Durable:
    """An activity, a timer and a signal."""

    def __init__(self) -> None:
        self.words: list[str] = []

    @workflow.run
    async def run(self) -> str:
        first = await workflow.execute_activity(answer, "activity", start_to_close_timeout=timedelta(seconds=3))
        await asyncio.sleep(0.5)
        await workflow.wait_condition(lambda: bool(self.words))
        return " ".join([first, *self.words])

    @workflow.signal
    def word(self, word: str) -> None:
        self.words.append(word)


async def test_a_killed_server_goes_on_where_it_stopped(durable_server: Server) -> None:
    client = await durable_server.connect()
    async with worker(client, workflows=[Durable], activities=[answer]) as both:
        handles = [
            await client.start_workflow(Durable.run, id=fresh_id("durable"), task_queue=both.task_queue)
            for _ in range(WORKFLOWS)
        ]
        for number, handle in enumerate(handles):
            await handle.signal(Durable.word, str(number))
        durable_server.kill()
        durable_server.start()
        await durable_server.connect()
        for number, handle in enumerate(handles):
            assert await handle.result() == f"ACTIVITY {number}"
    for handle in handles:
        await check_history(handle)


async def test_what_was_closed_before_the_kill_stays_closed(durable_server: Server) -> None:
    client = await durable_server.connect()
    handle = await client.start_workflow(Durable.run, id=fresh_id("closed"), task_queue="nobody-polls")
    await handle.terminate(reason="before the kill")
    before = await events_of(handle)
    durable_server.kill()
    durable_server.start()
    again = (await durable_server.connect()).get_workflow_handle(handle.id)
    assert await events_of(again) == before
    assert (await again.describe()).status == WorkflowExecutionStatus.TERMINATED


async def check_history(handle: WorkflowHandle[Durable, str]) -> None:
    events = await events_of(handle)
    assert [event.event_id for event in events] == list(range(1, len(events) + 1))
    names = [event_name(event) for event in events]
    assert names[0] == "WorkflowExecutionStarted"
    assert names[-1] == "WorkflowExecutionCompleted"
    for once in ("WorkflowExecutionSignaled", "ActivityTaskCompleted", "TimerFired"):
        assert names.count(once) == 1
