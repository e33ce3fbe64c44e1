"""A graceful stop: who only waits is sent away, what is under way is written and answered, what comes later refused."""

from __future__ import annotations

import asyncio

import pytest

from perdure.server.core.errors import Unavailable
from perdure.server.store.interface import CommitUnknown
from tests.server.engine.node import complete_workflow, running, schedule_activity, start_timer, started, unavailable
from tests.virtual_time import elapsed, in_virtual_time, settle


@in_virtual_time
async def test_what_is_collected_is_written_and_answered() -> None:
    async with running() as node:
        node.faults.before_commit.shut()
        start = await started(node.start_workflow())
        signal = await started(node.signal())
        stop = await started(node.engine.stop())
        assert not stop.done()
        node.faults.before_commit.open()
        reply = await start
        await signal
        await stop
        assert node.stored_events(reply.run_id)[-1] == "workflow_execution_signaled"


@in_virtual_time
async def test_polls_and_readers_and_queries_are_sent_away() -> None:
    async with running() as node:
        await node.start_workflow()
        await node.complete(await node.poll(), start_timer("t", 100))
        query_poll, activity_poll = await started(node.poll()), await started(node.poll_activity())
        reader = await started(node.history(wait_seconds=60, close_event_only=True))
        query = await started(node.query(wait_seconds=60))
        assert (await query_poll).HasField("query")
        await node.engine.stop()
        assert not (await activity_poll).task_token
        assert (await reader).next_page_token
        with pytest.raises(Unavailable, match="stopping"):
            await query
        assert asyncio.get_running_loop().time() == 0


@in_virtual_time
async def test_what_comes_later_is_refused() -> None:
    async with running() as node:
        await node.start_workflow()
        await node.engine.stop()
        for call in (node.signal(), node.locate(), node.start_workflow("other")):
            with pytest.raises(Unavailable, match="stopping"):
                await call
        assert not (await node.poll()).task_token


@in_virtual_time
async def test_a_worker_may_answer_while_the_node_drains() -> None:
    async with running() as node:
        reply = await node.start_workflow()
        task = await node.poll()
        await node.engine.drain()
        await node.complete(task, complete_workflow())
        await node.engine.stop()
        assert node.stored_events(reply.run_id)[-1] == "workflow_execution_completed"


@in_virtual_time
async def test_a_start_that_nobody_gets_any_more_is_taken_back_before_the_end() -> None:
    async with running() as node:
        reply = await node.start_workflow()
        await node.complete(await node.poll(), schedule_activity())
        node.faults.before_commit.shut()
        poll = await started(node.poll_activity())
        poll.cancel()
        stop = await started(node.engine.stop())
        node.faults.before_commit.open()
        await stop
        assert node.database.tables.pending[reply.run_id].activities[5].status == "scheduled"


@in_virtual_time
async def test_a_stopped_node_changes_nothing_any_more() -> None:
    async with running() as node:
        reply = await node.start_workflow()
        await node.complete(await node.poll(), start_timer("t", 5))
        await node.engine.stop()
        await asyncio.sleep(100)
        assert "timer_fired" not in node.stored_events(reply.run_id)
        assert len(asyncio.all_tasks()) == 1, "tasks are left behind"


@in_virtual_time
async def test_a_store_that_is_away_does_not_hold_up_the_stop() -> None:
    """A failed batch left runs to be read anew, which cannot be done; the next process will do it."""
    async with running() as node:
        await node.start_workflow()
        node.faults.before_commit.errors.append(unavailable())
        with pytest.raises(Unavailable):
            await node.signal()
        node.store.loading.errors += [unavailable()] * 1_000_000
        await asyncio.sleep(3)
        await asyncio.wait_for(node.engine.stop(), 10)


@in_virtual_time
async def test_a_call_whose_run_is_loaded_just_as_the_node_stops_gets_an_answer() -> None:
    async with running() as first:
        await first.start_workflow()
        node = await first.crash()
        node.store.loading.shut()
        signal = await started(node.signal())
        stop = asyncio.create_task(node.engine.stop())
        while not node.engine._committer.is_stopped:
            await asyncio.sleep(0)
        node.store.loading.open()
        await stop
        await settle()
        assert signal.done(), "it waits for a batch that nobody will write"
        with pytest.raises(Unavailable):
            await signal


@in_virtual_time
async def test_a_database_that_cannot_tell_the_fate_of_a_batch_does_not_hold_up_the_stop() -> None:
    async with running() as node:
        node.faults.after_commit.errors.append(CommitUnknown("the connection broke"))
        node.store.resolving.errors.extend(unavailable() for _ in range(1_000))
        start = await started(node.start_workflow())
        assert await elapsed(node.engine.stop()) < 1
        with pytest.raises(Unavailable):
            await start


@in_virtual_time
async def test_nor_does_it_where_a_timer_waits_for_that_batch() -> None:
    async with running() as node:
        await node.start_workflow()
        await node.complete(await node.poll(), start_timer("t", 5))
        node.faults.after_commit.errors.append(CommitUnknown("the connection broke"))
        node.store.resolving.errors.extend(unavailable() for _ in range(1_000))
        await asyncio.sleep(6)
        assert await elapsed(node.engine.stop()) < 2
