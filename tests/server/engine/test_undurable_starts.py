"""Workflow tasks need no durable start: it is held in memory, and written with the first change that is."""

from __future__ import annotations

import asyncio

import pytest

from perdure.server.core.errors import NotFound
from perdure.server.engine.settings import EngineSettings
from tests.server.engine.node import complete_workflow, event_names, running, start_timer, started
from tests.virtual_time import in_virtual_time, settle


@in_virtual_time
async def test_handing_out_a_task_writes_nothing() -> None:
    async with running() as node:
        reply = await node.start_workflow()
        written = len(node.faults.batches)
        task = await node.poll()
        await settle()
        assert len(node.faults.batches) == written
        assert node.stored_events(reply.run_id) == ["workflow_execution_started", "workflow_task_scheduled"]
        assert event_names(task.history.events)[-1] == "workflow_task_started"


@in_virtual_time
async def test_the_start_is_written_with_the_first_change_and_later_events_wait_behind_it() -> None:
    async with running() as node:
        reply = await node.start_workflow()
        task = await node.poll()
        await node.signal()
        assert node.stored_events(reply.run_id)[-1] == "workflow_task_started"
        assert len(node.database.tables.pending[reply.run_id].buffered) == 1
        await node.complete(task)
        assert node.stored_events(reply.run_id)[3:] == [
            "workflow_task_completed",
            "workflow_execution_signaled",
            "workflow_task_scheduled",
        ]


@in_virtual_time
async def test_after_a_crash_a_written_start_still_counts() -> None:
    async with running() as node:
        await node.start_workflow()
        task = await node.poll()
        await node.signal()
        successor = await node.crash()
        assert not (await successor.poll(wait_seconds=1)).task_token
        await successor.complete(task)
        assert (await successor.poll()).task_token


@in_virtual_time
async def test_after_a_crash_a_written_start_times_out_when_it_would_have() -> None:
    async with running() as node:
        reply = await node.start_workflow()
        await node.poll()
        await node.signal()
        await asyncio.sleep(4)
        successor = await node.crash()
        await asyncio.sleep(5.99)
        assert "workflow_task_timed_out" not in successor.stored_events(reply.run_id)
        await asyncio.sleep(0.02)
        assert "workflow_task_timed_out" in successor.stored_events(reply.run_id)


@in_virtual_time
async def test_after_a_crash_a_start_that_was_not_written_has_not_happened() -> None:
    async with running() as node:
        await node.start_workflow()
        task = await node.poll()
        successor = await node.crash()
        again = await successor.poll(wait_seconds=1)
        assert again.started_event_id == task.started_event_id
        with pytest.raises(NotFound, match="Workflow task not found"):
            await successor.complete(task, complete_workflow())
        await successor.complete(again, complete_workflow())


@in_virtual_time
async def test_people_are_told_durable_events_only_and_workers_those_of_their_task_too() -> None:
    async with running() as node:
        await node.start_workflow()
        await node.poll()
        durable = ["workflow_execution_started", "workflow_task_scheduled"]
        assert event_names((await node.history()).history.events) == durable
        assert event_names((await node.history(wait_seconds=5)).history.events) == durable
        as_worker = await node.history(for_worker=True)
        assert event_names(as_worker.history.events) == [*durable, "workflow_task_started"]
        assert (await node.locate()).next_event_id == 3


@in_virtual_time
async def test_a_held_start_is_not_forgotten_for_want_of_memory() -> None:
    async with running(EngineSettings(cache_bytes=1)) as node:
        await node.start_workflow()
        task = await node.poll()
        for number in range(5):
            await node.start_workflow(f"other {number}")
        await node.complete(task, complete_workflow())


@in_virtual_time
async def test_a_held_start_times_out_however_far_that_is() -> None:
    """Its alarm is in memory only: no look into the index would find it beyond the horizon."""
    async with running(EngineSettings(alarm_horizon_seconds=5)) as node:
        reply = await node.start_workflow(task_seconds=100)
        await node.poll()
        await asyncio.sleep(99.9)
        assert "workflow_task_timed_out" not in node.stored_events(reply.run_id)
        await asyncio.sleep(0.2)
        assert "workflow_task_timed_out" in node.stored_events(reply.run_id)


@in_virtual_time
async def test_a_look_into_the_index_does_not_put_off_the_timeout_of_a_held_start() -> None:
    """The index has only a later alarm of the run, of its timer."""
    async with running(EngineSettings(alarm_horizon_seconds=60)) as node:
        reply = await node.start_workflow()
        await node.complete(await node.poll(), start_timer("short", 25), start_timer("long", 55))
        await asyncio.sleep(25.01)
        await node.poll()
        await asyncio.sleep(10.01)
        assert "workflow_task_timed_out" in node.stored_events(reply.run_id)


@in_virtual_time
async def test_a_held_sticky_task_that_a_crash_frees_leaves_its_queue_in_time() -> None:
    """The sticky worker died with the process that held the start; nobody else polls its queue."""
    async with running() as node:
        await node.start_workflow()
        await node.poll(sticky="sticky", wait_seconds=0)
        await node.complete(await node.poll(), sticky="sticky")
        sticky_poll = await started(node.poll(sticky="sticky"))
        await node.signal()
        await sticky_poll
        await asyncio.sleep(3)
        successor = await node.crash()
        assert not (await successor.poll(wait_seconds=1.9)).task_token
        assert (await successor.poll(wait_seconds=0.2)).task_token
