"""Workers that come and go: replay, patches, failed and lost workflow tasks."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta

import pytest
from temporalio import workflow
from temporalio.api.enums.v1 import WorkflowTaskFailedCause
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import PollWorkflowTaskQueueRequest, RespondWorkflowTaskCompletedRequest
from temporalio.client import Client, WorkflowHandle
from temporalio.service import RPCError, RPCStatusCode

from tests.interop.python.harness import event_name, event_names, events_of, eventually, fresh_id, only_event, worker

pytestmark = pytest.mark.process

runs_of_the_code: Counter[str] = Counter()


@workflow.defn
class Replayed:
    """Counts how often its code is run from the first line."""

    def __init__(self) -> None:
        self.steps = 0

    @workflow.run
    async def run(self) -> int:
        runs_of_the_code[workflow.info().workflow_id] += 1
        await workflow.wait_condition(lambda: self.steps == 4)
        return self.steps

    @workflow.signal
    def step(self) -> None:
        self.steps += 1

    @workflow.query
    def done(self) -> int:
        return self.steps


@workflow.defn(name="Changing")
class BeforeTheChange:
    """The workflow before its code was changed."""

    @workflow.run
    async def run(self) -> str:
        await asyncio.sleep(0.05)
        return "before"


@workflow.defn(name="Changing")
class AfterTheChange:
    """The workflow after its code was changed."""

    @workflow.run
    async def run(self) -> str:
        answer = "after" if workflow.patched("change") else "before"
        await asyncio.sleep(0.05)
        return answer


@workflow.defn(name="Mended")
class Broken:
    """Fails its workflow task."""

    @workflow.run
    async def run(self) -> str:
        raise RuntimeError("a bug")


@workflow.defn(name="Mended")
class Mended:
    """The same without the bug."""

    @workflow.run
    async def run(self) -> str:
        return "mended"


@workflow.defn(name="Late")
class BrokenLate:
    """Fails the task that brings a signal."""

    def __init__(self) -> None:
        self.signalled = False

    @workflow.run
    async def run(self) -> str:
        await workflow.wait_condition(lambda: self.signalled)
        return self.answer()

    @workflow.signal
    def go(self) -> None:
        self.signalled = True

    def answer(self) -> str:
        raise RuntimeError("a late bug")


@workflow.defn(name="Late")
class MendedLate(BrokenLate):
    """The same without the bug."""

    @workflow.run
    async def run(self) -> str:
        return await super().run()

    def answer(self) -> str:
        return "mended"


@workflow.defn
class Nothing:
    """Ends at once."""

    @workflow.run
    async def run(self) -> str:
        return "done"


async def test_a_worker_with_the_run_in_memory_does_not_run_the_code_again(client: Client) -> None:
    async with worker(client, workflows=[Replayed]) as running:
        handle = await client.start_workflow(Replayed.run, id=fresh_id("sticky"), task_queue=running.task_queue)
        for step in range(1, 4):
            await handle.signal(Replayed.step)
            assert await handle.query(Replayed.done) == step
        await handle.signal(Replayed.step)
        await handle.result()
    assert runs_of_the_code[handle.id] == 1
    later_tasks = [
        event.workflow_task_scheduled_event_attributes.task_queue
        for event in await events_of(handle)
        if event_name(event) == "WorkflowTaskScheduled"
    ][1:]
    assert later_tasks
    assert {queue.normal_name for queue in later_tasks} == {running.task_queue}
    assert all(queue.name != running.task_queue for queue in later_tasks)


async def test_another_worker_replays_the_history_and_goes_on(client: Client) -> None:
    queue = fresh_id("queue")
    handle = await client.start_workflow(Replayed.run, id=fresh_id("replay"), task_queue=queue)
    for step in range(1, 4):
        async with worker(client, workflows=[Replayed], task_queue=queue):
            await handle.signal(Replayed.step)
            assert await handle.query(Replayed.done) == step
    async with worker(client, workflows=[Replayed], task_queue=queue):
        await handle.signal(Replayed.step)
        assert await handle.result() == 4
    assert runs_of_the_code[handle.id] == 4


async def test_signals_sent_while_no_worker_runs_are_kept(client: Client) -> None:
    queue = fresh_id("queue")
    async with worker(client, workflows=[Replayed], task_queue=queue):
        handle = await client.start_workflow(Replayed.run, id=fresh_id("kept"), task_queue=queue)
        assert await handle.query(Replayed.done) == 0
    for _ in range(4):
        await handle.signal(Replayed.step)
    async with worker(client, workflows=[Replayed], task_queue=queue):
        assert await handle.result() == 4


async def test_a_patch_keeps_old_runs_on_the_old_path(client: Client) -> None:
    queue = fresh_id("queue")
    async with worker(client, workflows=[BeforeTheChange], task_queue=queue):
        old = await client.start_workflow(BeforeTheChange.run, id=fresh_id("old"), task_queue=queue)
        await eventually(lambda: timer_started(old))
    async with worker(client, workflows=[AfterTheChange], task_queue=queue):
        new = await client.start_workflow(AfterTheChange.run, id=fresh_id("new"), task_queue=queue)
        assert (await old.result(), await new.result()) == ("before", "after")
    assert "MarkerRecorded" not in await event_names(old)
    assert (await only_event(new, "MarkerRecorded")).marker_recorded_event_attributes.marker_name == "core_patch"


async def timer_started(handle: WorkflowHandle[BeforeTheChange, str]) -> bool | None:
    return True if "TimerStarted" in await event_names(handle) else None


async def test_a_failed_task_is_retried_until_a_worker_can_do_it(client: Client) -> None:
    queue = fresh_id("queue")
    handle = await client.start_workflow(
        Mended.run, id=fresh_id("mended"), task_queue=queue, task_timeout=timedelta(seconds=1)
    )

    async def failed() -> bool | None:
        return True if "WorkflowTaskFailed" in await event_names(handle) else None

    async with worker(client, workflows=[Broken], task_queue=queue):
        await eventually(failed)
    async with worker(client, workflows=[Mended], task_queue=queue):
        assert await handle.result() == "mended"
    assert await event_names(handle) == [
        "WorkflowExecutionStarted",
        "WorkflowTaskScheduled",
        "WorkflowTaskStarted",
        "WorkflowTaskFailed",
        "WorkflowTaskScheduled",
        "WorkflowTaskStarted",
        "WorkflowTaskCompleted",
        "WorkflowExecutionCompleted",
    ]
    failure = (await only_event(handle, "WorkflowTaskFailed")).workflow_task_failed_event_attributes
    assert failure.cause == WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_WORKFLOW_WORKER_UNHANDLED_FAILURE
    assert failure.failure.message == "a bug"


async def test_a_task_that_fails_on_a_sticky_queue_is_tried_on_the_normal_one_before_it_counts_as_a_retry(
    client: Client,
) -> None:
    queue = fresh_id("queue")
    handle = await client.start_workflow(
        BrokenLate.run, id=fresh_id("late"), task_queue=queue, task_timeout=timedelta(seconds=1)
    )

    async def names_with(name: str, count: int) -> bool | None:
        return True if (await event_names(handle)).count(name) == count else None

    async with worker(client, workflows=[BrokenLate], task_queue=queue):
        await eventually(lambda: names_with("WorkflowTaskCompleted", 1))
        await handle.signal(BrokenLate.go)
        await eventually(lambda: names_with("WorkflowTaskFailed", 2))
    async with worker(client, workflows=[MendedLate], task_queue=queue):
        assert await handle.result() == "mended"
    events = await events_of(handle)
    assert [event_name(event) for event in events[4:]] == [
        "WorkflowExecutionSignaled",
        "WorkflowTaskScheduled",
        "WorkflowTaskStarted",
        "WorkflowTaskFailed",
        "WorkflowTaskScheduled",
        "WorkflowTaskStarted",
        "WorkflowTaskFailed",
        "WorkflowTaskScheduled",
        "WorkflowTaskStarted",
        "WorkflowTaskCompleted",
        "WorkflowExecutionCompleted",
    ]
    scheduled = [event.workflow_task_scheduled_event_attributes for event in events[4:]]
    assert [scheduled[number].attempt for number in (1, 4)] == [1, 1]
    assert scheduled[7].attempt > 1
    assert (scheduled[1].task_queue.normal_name, scheduled[4].task_queue.name) == (queue, queue)


async def test_a_task_that_is_never_answered_times_out(client: Client) -> None:
    queue = fresh_id("queue")
    handle = await client.start_workflow(
        Nothing.run, id=fresh_id("lost"), task_queue=queue, task_timeout=timedelta(seconds=1)
    )
    poll = PollWorkflowTaskQueueRequest(
        namespace=client.namespace, task_queue=TaskQueue(name=queue), identity="a worker that is lost"
    )
    task = await client.workflow_service.poll_workflow_task_queue(poll)
    assert task.workflow_execution.workflow_id == handle.id
    async with worker(client, workflows=[Nothing], task_queue=queue):
        assert await handle.result() == "done"
    assert (await event_names(handle))[:4] == [
        "WorkflowExecutionStarted",
        "WorkflowTaskScheduled",
        "WorkflowTaskStarted",
        "WorkflowTaskTimedOut",
    ]
    with pytest.raises(RPCError) as refused:
        await client.workflow_service.respond_workflow_task_completed(
            RespondWorkflowTaskCompletedRequest(namespace=client.namespace, task_token=task.task_token)
        )
    assert refused.value.status == RPCStatusCode.NOT_FOUND


async def test_a_task_is_never_given_to_a_poll_that_was_cancelled(client: Client) -> None:
    queue = fresh_id("queue")
    for _ in range(5):
        async with worker(client, workflows=[Nothing], task_queue=queue):
            pass
    async with worker(client, workflows=[Nothing], task_queue=queue):
        handle = await client.start_workflow(Nothing.run, id=fresh_id("alive"), task_queue=queue)
        assert await asyncio.wait_for(handle.result(), 5) == "done"
    assert "WorkflowTaskTimedOut" not in await event_names(handle)
