"""Timers and the timeouts of runs: they live on the server only."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from temporalio import workflow
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowFailureError
from temporalio.exceptions import TimeoutError as TemporalTimeoutError
from temporalio.exceptions import TimeoutType

from tests.interop.python.harness import event_names, events_of, fresh_id, only_event, worker

pytestmark = pytest.mark.process


@workflow.defn
class Sleeper:
    """Sleeps."""

    @workflow.run
    async def run(self, seconds: float) -> float:
        began = workflow.now()
        await asyncio.sleep(seconds)
        return (workflow.now() - began).total_seconds()


@workflow.defn
class Impatient:
    """Waits for the shorter of two timers and cancels the other."""

    @workflow.run
    async def run(self) -> str:
        timers = {
            asyncio.create_task(asyncio.sleep(0.1), name="short"),
            asyncio.create_task(asyncio.sleep(60), name="long"),
        }
        done, pending = await workflow.wait(timers, return_when=asyncio.FIRST_COMPLETED)
        for timer in pending:
            timer.cancel()
        await asyncio.sleep(0.1)
        return next(iter(done)).get_name()


async def test_a_timer_fires_when_it_is_due(client: Client) -> None:
    async with worker(client, workflows=[Sleeper]) as running:
        handle = await client.start_workflow(Sleeper.run, 0.3, id=fresh_id("sleep"), task_queue=running.task_queue)
        slept = await handle.result()
    assert 0.3 <= slept < 2
    assert (await event_names(handle))[3:8] == [
        "WorkflowTaskCompleted",
        "TimerStarted",
        "TimerFired",
        "WorkflowTaskScheduled",
        "WorkflowTaskStarted",
    ]
    started = (await only_event(handle, "TimerStarted")).timer_started_event_attributes
    fired = (await only_event(handle, "TimerFired")).timer_fired_event_attributes
    assert fired.timer_id == started.timer_id
    assert fired.started_event_id == 5


async def test_a_cancelled_timer_does_not_fire(client: Client) -> None:
    async with worker(client, workflows=[Impatient]) as running:
        handle = await client.start_workflow(Impatient.run, id=fresh_id("cancel"), task_queue=running.task_queue)
        assert await handle.result() == "short"
    names = await event_names(handle)
    assert (names.count("TimerStarted"), names.count("TimerFired"), names.count("TimerCanceled")) == (3, 2, 1)
    cancelled = (await only_event(handle, "TimerCanceled")).timer_canceled_event_attributes
    started = (await events_of(handle))[cancelled.started_event_id - 1].timer_started_event_attributes
    assert started.timer_id == cancelled.timer_id
    assert started.start_to_fire_timeout.ToTimedelta() == timedelta(seconds=60)


async def test_a_delayed_start_makes_its_first_task_later(client: Client) -> None:
    async with worker(client, workflows=[Sleeper]) as running:
        handle = await client.start_workflow(
            Sleeper.run,
            0,
            id=fresh_id("delay"),
            task_queue=running.task_queue,
            start_delay=timedelta(milliseconds=500),
        )
        assert await event_names(handle) == ["WorkflowExecutionStarted"]
        await handle.result()
    started, scheduled = (await events_of(handle))[:2]
    attributes = started.workflow_execution_started_event_attributes
    assert attributes.first_workflow_task_backoff.ToTimedelta() == timedelta(milliseconds=500)
    backoff = scheduled.event_time.ToDatetime() - started.event_time.ToDatetime()
    assert timedelta(milliseconds=500) <= backoff < timedelta(seconds=3)
    described = await handle.describe()
    assert described.execution_time is not None
    assert described.execution_time - described.start_time == timedelta(milliseconds=500)


async def test_a_signal_does_not_end_the_delay_of_a_start(client: Client) -> None:
    handle = await client.start_workflow(
        Sleeper.run, 0, id=fresh_id("delay"), task_queue=fresh_id("queue"), start_delay=timedelta(minutes=5)
    )
    await handle.signal("anything")
    assert await event_names(handle) == ["WorkflowExecutionStarted", "WorkflowExecutionSignaled"]
    await handle.terminate()


@pytest.mark.parametrize("timeout", ["execution_timeout", "run_timeout"])
async def test_a_run_that_takes_too_long_times_out(client: Client, timeout: str) -> None:
    limit = timedelta(milliseconds=500)
    handle = await client.start_workflow(
        Sleeper.run,
        60,
        id=fresh_id("timeout"),
        task_queue=fresh_id("queue"),
        execution_timeout=limit if timeout == "execution_timeout" else None,
        run_timeout=limit if timeout == "run_timeout" else None,
    )
    with pytest.raises(WorkflowFailureError) as failed:
        await handle.result()
    assert isinstance(failed.value.cause, TemporalTimeoutError)
    assert failed.value.cause.type == TimeoutType.START_TO_CLOSE
    assert (await handle.describe()).status == WorkflowExecutionStatus.TIMED_OUT
    assert await event_names(handle) == [
        "WorkflowExecutionStarted",
        "WorkflowTaskScheduled",
        "WorkflowExecutionTimedOut",
    ]
