"""Signals and queries of the official SDK: order, buffering, consistency and refusals."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta

import pytest
from temporalio import workflow
from temporalio.api.enums.v1 import WorkflowTaskFailedCause
from temporalio.client import Client, WorkflowHandle, WorkflowQueryFailedError, WorkflowQueryRejectedError
from temporalio.common import QueryRejectCondition
from temporalio.service import RPCError, RPCStatusCode

from tests.interop.python.harness import event_names, fresh_id, only_event, worker

pytestmark = pytest.mark.process


@workflow.defn
class Collector:
    """Collects words until it is told to stop."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self.stopped = False

    @workflow.run
    async def run(self) -> list[str]:
        await workflow.wait_condition(lambda: self.stopped)
        return self.words

    @workflow.signal
    def add(self, word: str) -> None:
        self.words.append(word)

    @workflow.signal
    def stop(self) -> None:
        self.stopped = True

    @workflow.query
    def count(self) -> int:
        return len(self.words)

    @workflow.query
    def complain(self) -> int:
        raise ValueError("query fail")


class Gate:
    """Holds a workflow task in the middle, so that a test can act while the task is started."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()

    def pass_through(self) -> None:
        self.entered.set()
        self.opened.wait(1.5)


gates: dict[str, Gate] = {}


@workflow.defn
class SlowToDecide:
    """Takes its time over the first workflow task, then waits for a signal or completes at once."""

    def __init__(self) -> None:
        self.signalled = False

    @workflow.run
    async def run(self, wait: bool) -> bool:
        gates[workflow.info().workflow_id].pass_through()
        if wait:
            await workflow.wait_condition(lambda: self.signalled)
        return self.signalled

    @workflow.signal
    def go(self) -> None:
        self.signalled = True


async def test_signals_arrive_in_the_order_in_which_they_were_sent(client: Client) -> None:
    async with worker(client, workflows=[Collector]) as running:
        handle = await client.start_workflow(Collector.run, id=fresh_id("order"), task_queue=running.task_queue)
        sent = [str(number) for number in range(30)]
        for word in sent:
            await handle.signal(Collector.add, word)
        await handle.signal(Collector.stop)
        assert await handle.result() == sent


async def test_a_signal_that_arrives_during_a_task_is_recorded_after_it(client: Client) -> None:
    handle_id = fresh_id("buffered")
    gate = gates[handle_id] = Gate()
    async with worker(client, workflows=[SlowToDecide]) as running:
        handle = await client.start_workflow(SlowToDecide.run, True, id=handle_id, task_queue=running.task_queue)
        await asyncio.to_thread(gate.entered.wait, 5)
        await handle.signal(SlowToDecide.go)
        assert (await event_names(handle))[-1] == "WorkflowTaskStarted"
        gate.opened.set()
        assert await handle.result()
    assert await event_names(handle) == [
        "WorkflowExecutionStarted",
        "WorkflowTaskScheduled",
        "WorkflowTaskStarted",
        "WorkflowTaskCompleted",
        "WorkflowExecutionSignaled",
        "WorkflowTaskScheduled",
        "WorkflowTaskStarted",
        "WorkflowTaskCompleted",
        "WorkflowExecutionCompleted",
    ]


async def test_a_workflow_cannot_close_over_a_signal_it_has_not_seen(client: Client) -> None:
    handle_id = fresh_id("unhandled")
    gate = gates[handle_id] = Gate()
    async with worker(client, workflows=[SlowToDecide]) as running:
        handle = await client.start_workflow(SlowToDecide.run, False, id=handle_id, task_queue=running.task_queue)
        await asyncio.to_thread(gate.entered.wait, 5)
        await handle.signal(SlowToDecide.go)
        gate.opened.set()
        assert await handle.result()
    assert await event_names(handle) == [
        "WorkflowExecutionStarted",
        "WorkflowTaskScheduled",
        "WorkflowTaskStarted",
        "WorkflowTaskFailed",
        "WorkflowExecutionSignaled",
        "WorkflowTaskScheduled",
        "WorkflowTaskStarted",
        "WorkflowTaskCompleted",
        "WorkflowExecutionCompleted",
    ]
    failed = (await only_event(handle, "WorkflowTaskFailed")).workflow_task_failed_event_attributes
    assert failed.cause == WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_UNHANDLED_COMMAND


async def test_signal_with_start_starts_once_and_signals_every_time(client: Client) -> None:
    workflow_id = fresh_id("signal-with-start")
    async with worker(client, workflows=[Collector]) as running:

        async def signal_with_start(word: str) -> WorkflowHandle[Collector, list[str]]:
            return await client.start_workflow(
                Collector.run,
                id=workflow_id,
                task_queue=running.task_queue,
                start_signal="add",
                start_signal_args=[word],
            )

        handle, again = await signal_with_start("first"), await signal_with_start("second")
        assert (await handle.describe()).run_id == (await again.describe()).run_id
        await handle.signal(Collector.stop)
        assert await handle.result() == ["first", "second"]
    assert (await event_names(handle))[:2] == ["WorkflowExecutionStarted", "WorkflowExecutionSignaled"]


async def test_a_query_sees_every_signal_sent_before_it(client: Client) -> None:
    async with worker(client, workflows=[Collector]) as running:
        handle = await client.start_workflow(Collector.run, id=fresh_id("query"), task_queue=running.task_queue)
        for number in range(1, 6):
            await handle.signal(Collector.add, "word")
            assert await handle.query(Collector.count) == number
        await handle.terminate()


async def test_a_query_leaves_no_trace(client: Client) -> None:
    async with worker(client, workflows=[Collector]) as running:
        handle = await client.start_workflow(Collector.run, id=fresh_id("trace"), task_queue=running.task_queue)
        assert await handle.query(Collector.count) == 0
        before = await event_names(handle)
        for _ in range(3):
            assert await handle.query(Collector.count) == 0
        assert await event_names(handle) == before
        await handle.terminate()


async def test_a_closed_workflow_answers_queries(client: Client) -> None:
    async with worker(client, workflows=[Collector]) as running:
        handle = await client.start_workflow(Collector.run, id=fresh_id("closed"), task_queue=running.task_queue)
        await handle.signal(Collector.add, "word")
        await handle.signal(Collector.stop)
        await handle.result()
        assert await handle.query(Collector.count) == 1
        with pytest.raises(WorkflowQueryRejectedError) as rejected:
            await handle.query(Collector.count, reject_condition=QueryRejectCondition.NOT_OPEN)
    assert rejected.value.status is not None
    assert rejected.value.status.name == "COMPLETED"


async def test_the_message_of_a_failed_query_comes_back(client: Client) -> None:
    async with worker(client, workflows=[Collector]) as running:
        handle = await client.start_workflow(Collector.run, id=fresh_id("complain"), task_queue=running.task_queue)
        with pytest.raises(WorkflowQueryFailedError, match=r"^query fail$"):
            await handle.query(Collector.complain)
        with pytest.raises(WorkflowQueryFailedError, match="unheard_of"):
            await handle.query("unheard_of")
        await handle.terminate()


async def test_a_query_without_a_worker_waits_until_its_deadline(client: Client) -> None:
    handle = await client.start_workflow(Collector.run, id=fresh_id("alone"), task_queue=fresh_id("queue"))
    with pytest.raises(RPCError) as late:
        await handle.query(Collector.count, rpc_timeout=timedelta(milliseconds=300))
    assert late.value.status in (RPCStatusCode.DEADLINE_EXCEEDED, RPCStatusCode.CANCELLED)
    await handle.terminate()


async def test_an_unknown_workflow_cannot_be_signalled_or_queried(client: Client) -> None:
    unknown = client.get_workflow_handle(fresh_id("unknown"))
    with pytest.raises(RPCError, match="workflow not found for ID") as signalled:
        await unknown.signal("add", "word")
    with pytest.raises(RPCError) as queried:
        await unknown.query("count")
    assert {signalled.value.status, queried.value.status} == {RPCStatusCode.NOT_FOUND}
