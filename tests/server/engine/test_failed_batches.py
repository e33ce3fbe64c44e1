"""Rule 2: if a batch fails, everything collected since fails too, and memory is read anew from the store."""

from __future__ import annotations

import asyncio

import pytest
from temporalio.api.history.v1 import HistoryEvent

from perdure.server.core.errors import Aborted, NotFound, Unavailable
from perdure.server.core.inputs import Delete
from perdure.server.engine.settings import EngineSettings
from tests.server.engine.node import (
    Node,
    complete_workflow,
    event_names,
    new_database,
    running,
    start_timer,
    started,
    unavailable,
)
from tests.virtual_time import elapsed, in_virtual_time, settle


@in_virtual_time
async def test_what_was_collected_on_top_of_a_failed_batch_fails_with_it() -> None:
    async with running() as node:
        node.faults.before_commit.shut()
        node.faults.before_commit.errors.append(unavailable())
        start, signal, other = (
            await started(node.start_workflow()),
            await started(node.signal()),
            await started(node.start_workflow("other")),
        )
        node.faults.before_commit.open()
        for call in (start, signal, other):
            with pytest.raises(Unavailable):
                await call
        await settle()
        assert node.database.tables.runs == {}
        assert len(node.faults.batches) == 1, "what was collected since was written all the same"


@in_virtual_time
async def test_memory_is_dropped_with_the_batch() -> None:
    async with running() as node:
        reply = await node.start_workflow()
        node.faults.before_commit.errors.append(unavailable())
        with pytest.raises(Unavailable):
            await node.signal()
        assert (await node.locate()).next_event_id == 3
        await node.signal()
        assert node.stored_events(reply.run_id)[-1] == "workflow_execution_signaled"


@in_virtual_time
async def test_the_same_call_succeeds_after_a_failed_batch() -> None:
    async with running() as node:
        node.faults.before_commit.errors.append(unavailable())
        with pytest.raises(Unavailable):
            await node.start_workflow()
        reply = await node.start_workflow()
        assert len(node.stored_events(reply.run_id)) == 2


@in_virtual_time
async def test_a_reader_that_waits_goes_on_waiting_and_misses_nothing() -> None:
    async with running() as node:
        await node.start_workflow()
        first = await node.history(wait_seconds=30)
        reader = await started(node.history(wait_seconds=30, token=first.next_page_token))
        node.faults.before_commit.errors.append(unavailable())
        with pytest.raises(Unavailable):
            await node.signal()
        await settle()
        assert not reader.done()
        await node.signal(name="second")
        assert event_names((await reader).history.events) == ["workflow_execution_signaled"]


@in_virtual_time
async def test_a_query_of_a_dropped_run_is_to_be_asked_again() -> None:
    async with running() as node:
        await node.start_workflow()
        await node.complete(await node.poll())
        query = await started(node.query(wait_seconds=60))
        node.faults.before_commit.errors.append(unavailable())
        with pytest.raises(Unavailable):
            await node.signal()
        with pytest.raises(Unavailable, match="ask again"):
            await query
        assert asyncio.get_running_loop().time() < 1


@in_virtual_time
async def test_an_undurable_start_is_lost_and_its_task_offered_again() -> None:
    async with running() as node:
        await node.start_workflow()
        lost = await node.poll()
        node.faults.before_commit.errors.append(unavailable())
        with pytest.raises(Unavailable):
            await node.signal()
        again = await node.poll(wait_seconds=5)
        assert again.task_token
        with pytest.raises(NotFound):
            await node.complete(lost, complete_workflow())
        await node.complete(again, complete_workflow())


@in_virtual_time
async def test_the_task_of_a_completion_that_failed_is_offered_again_soon() -> None:
    async with running() as node:
        await node.start_workflow()
        task = await node.poll()
        node.faults.before_commit.errors.append(unavailable())
        with pytest.raises(Unavailable):
            await node.complete(task, complete_workflow())
        poll = node.poll(wait_seconds=20)
        assert await elapsed(poll) < 3


@in_virtual_time
async def test_a_timer_still_fires_on_time_after_its_run_was_dropped() -> None:
    async with running() as node:
        reply = await node.start_workflow()
        await node.complete(await node.poll(), start_timer("t", 20))
        node.faults.before_commit.errors.append(unavailable())
        with pytest.raises(Unavailable):
            await node.signal()
        await asyncio.sleep(20.01)
        assert "timer_fired" in node.stored_events(reply.run_id)


@in_virtual_time
async def test_commits_that_keep_failing_are_not_tried_in_a_circle() -> None:
    """A timer is overdue and nothing can be written: there must be pauses between the attempts."""
    async with running() as node:
        reply = await node.start_workflow()
        await node.complete(await node.poll(), start_timer("t", 1))
        node.faults.before_commit.errors += [unavailable()] * 1_000
        tried = len(node.faults.batches)
        await asyncio.sleep(11)
        assert 3 < len(node.faults.batches) - tried < 30
        node.faults.before_commit.errors.clear()
        await asyncio.sleep(3)
        assert "timer_fired" in node.stored_events(reply.run_id)


@in_virtual_time
async def test_a_workflow_the_database_keeps_refusing_is_not_tried_in_a_circle() -> None:
    async with running() as node:
        await node.start_workflow()
        await node.complete(await node.poll(), start_timer("t", 1))
        node.reject("w")
        tried = len(node.faults.batches)
        await asyncio.sleep(11)
        assert 3 < len(node.faults.batches) - tried < 30


@in_virtual_time
async def test_an_id_is_read_anew_only_when_what_is_being_written_of_it_is_durable() -> None:
    """The deletion leaves nothing in memory; the store still has the run until the batch is durable."""
    async with running() as node:
        reply = await node.start_workflow(request_id="one")
        node.faults.before_commit.shut()
        deletion = await started(node.submit("w", Delete(reply.run_id)))
        gone = await started(node.locate())
        again = await started(node.start_workflow(request_id="two"))
        assert not again.done()
        node.faults.before_commit.open()
        await deletion
        with pytest.raises(NotFound):
            await gone
        successor = await again
        assert list(node.database.tables.runs) == [successor.run_id]


@in_virtual_time
async def test_a_run_that_another_node_has_changed_is_not_overwritten() -> None:
    """The version check: two nodes of different names, so that no fence holds them apart."""
    database = new_database()
    one, two = Node(database), Node(database, EngineSettings(node="two"))
    await one.start()
    await two.start()
    reply = await one.start_workflow()
    await two.signal(name="of two")
    with pytest.raises(Aborted, match="version"):
        await one.signal(name="of one")
    await one.signal(name="of one, again")
    assert node_signals(one, reply.run_id) == ["of two", "of one, again"]


def node_signals(node: Node, run_id: str) -> list[str]:
    events = [HistoryEvent.FromString(event.data) for event in node.database.tables.events[run_id].values()]
    names = [event.workflow_execution_signaled_event_attributes.signal_name for event in events]
    return [name for name in names if name]
