"""Shards that move from one living node to another, or from a dead one, in the middle of everything."""

from __future__ import annotations

import asyncio

from tests.server.engine.cluster.nodes import LEASE_SECONDS, town
from tests.server.engine.node import (
    complete_workflow,
    key_of,
    schedule_activity,
    signal_other,
    start_timer,
    started,
)
from tests.virtual_time import elapsed, in_virtual_time


@in_virtual_time
async def test_inputs_that_come_while_a_shard_moves_are_each_taken_once() -> None:
    async with town("a") as nodes:
        a = nodes.nodes["a"]
        name = nodes.wished_for("b", "a")
        await a.start_workflow(name)

        async def signal_often() -> None:
            for _ in range(300):
                await a.signal(name)
                await asyncio.sleep(0.01)

        signals = asyncio.create_task(signal_often())
        await asyncio.sleep(0.3)
        b = await nodes.add("b")
        await signals
        assert b.serves(name)
        # Two events are those of the start.
        assert (await a.describe(name)).workflow_execution_info.history_length == 302


@in_virtual_time
async def test_what_is_collected_for_a_shard_is_written_before_it_moves() -> None:
    async with town("a") as nodes:
        a = nodes.nodes["a"]
        name = nodes.wished_for("b", "a")
        await a.start_workflow(name)
        a.faults.before_commit.shut()
        signals = [await started(a.signal(name)) for _ in range(3)]
        b = await nodes.add("b")
        await asyncio.sleep(1)
        assert not b.serves(name)
        a.faults.before_commit.open()
        await asyncio.gather(*signals)
        await nodes.settle()
        assert b.serves(name)
        assert (await b.history(name)).count("workflow_execution_signaled") == 3


@in_virtual_time
async def test_a_node_that_stops_waits_for_no_owner_that_it_cannot_reach() -> None:
    """The message is in the database, and the next owner of its sender delivers it."""
    async with town("a", "b") as nodes:
        a, b = nodes.nodes.values()
        sender, receiver = nodes.here(a), nodes.here(b)
        for name in (receiver, sender):
            await a.start_workflow(name)
        tasks = {task.workflow_execution.workflow_id: task for task in (await a.poll(), await a.poll())}
        await a.complete(tasks[receiver])
        nodes.network.part("a", "b")
        await a.complete(tasks[sender], signal_other(receiver))
        await asyncio.sleep(0.1)
        assert await elapsed(a.stop()) < 1
        await asyncio.sleep(LEASE_SECONDS)
        assert "workflow_execution_signaled" in await b.history(receiver)


@in_virtual_time
async def test_a_poll_in_flight_outlives_a_takeover() -> None:
    """It waits at a node that lives, for a task that becomes ready at one that dies."""
    async with town("a", "b") as nodes:
        a, b = nodes.nodes.values()
        name = nodes.here(b)
        poll = await started(a.poll())
        b.faults.before_commit.shut()
        start = await started(b.start_workflow(name))
        b.store.is_silent = True
        nodes.network.vanish("b")
        await asyncio.sleep(2 * LEASE_SECONDS)
        assert a.shards == 1024
        assert not poll.done()
        again = await a.start_workflow(name)
        task = await poll
        assert task.workflow_execution.run_id == again.run_id
        start.cancel()


@in_virtual_time
async def test_a_task_that_was_started_for_a_poll_that_a_takeover_cut_off_comes_again() -> None:
    async with town("a", "b") as nodes:
        a, b = nodes.nodes.values()
        name = nodes.here(b)
        await b.start_workflow(name)
        task = await b.poll()
        await b.complete(task, schedule_activity("a", attempts=2, start_to_close=3))
        b.faults.after_commit.shut()
        poll = await started(a.poll_activity())
        # The start is durable, and nobody is told.
        nodes.network.vanish("b")
        b.store.is_silent = True
        activity = await a.poll_activity()
        assert activity.attempt == 2
        assert not poll.done() or not (await poll).task_token
        poll.cancel()


@in_virtual_time
async def test_who_waits_for_the_end_of_a_workflow_is_told_of_it_wherever_it_ends() -> None:
    async with town("a") as nodes:
        a = nodes.nodes["a"]
        name = nodes.wished_for("b", "a")
        await a.start_workflow(name)
        result = await started(a.result(name))
        b = await nodes.add("b")
        await nodes.settle(3)
        assert b.serves(name)
        await a.complete(await a.poll(), complete_workflow())
        closing = (await result).history.events[0]
        assert closing.HasField("workflow_execution_completed_event_attributes")


@in_virtual_time
async def test_a_query_that_waits_is_asked_anew_where_its_workflow_went() -> None:
    async with town("a") as nodes:
        a = nodes.nodes["a"]
        name = nodes.wished_for("b", "a")
        await a.start_workflow(name)
        await a.complete(await a.poll())
        query = await started(a.query(name))
        b = await nodes.add("b")
        await nodes.settle(3)
        assert b.serves(name)
        task = await a.poll()
        assert task.HasField("query")
        await a.answer_query(task, b"42")
        assert (await query).query_result.payloads[0].data == b"42"


@in_virtual_time
async def test_an_alarm_that_another_node_has_set_earlier_is_kept_when_the_shard_comes_back() -> None:
    """What a node knew of a shard that it lost is of the past."""
    async with town("a") as nodes:
        a = nodes.nodes["a"]
        name = nodes.wished_for("b", "a")
        await a.start_workflow(name)
        await a.complete(await a.poll(), start_timer("long", 40))
        await nodes.add("b")
        await nodes.settle(3)
        await a.signal(name)
        await a.complete(await a.poll(), start_timer("short", 20))
        await nodes.nodes.pop("b").stop()
        assert a.serves(name)
        assert await elapsed(a.poll()) < 21


@in_virtual_time
async def test_a_workflow_that_is_read_while_its_shard_goes_and_comes_back_is_read_anew() -> None:
    async with town("a") as nodes:
        a = nodes.nodes["a"]
        name = nodes.wished_for("b", "a")
        await a.start_workflow(name)
        a.engine._cache.drop(key_of(name))
        a.store.loading.shut()
        early = await started(a.signal(name))
        b = await nodes.add("b")
        await nodes.settle(3)
        assert b.serves(name)
        await b.signal(name)
        await nodes.nodes.pop("b").stop()
        assert a.serves(name)
        a.store.loading.open()
        await early
        assert (await a.history(name)).count("workflow_execution_signaled") == 2


@in_virtual_time
async def test_alarms_of_a_shard_that_comes_while_the_index_is_read_are_found_at_once() -> None:
    async with town("a", "b") as nodes:
        a, b = nodes.nodes.values()
        name = nodes.here(b)
        await b.start_workflow(name)
        await b.complete(await b.poll(), start_timer("timer", 45))
        a.store.reading_alarms.shut()
        # The index is looked into twice within the horizon; this look begins before the shard comes.
        await asyncio.sleep(31)
        assert a.store.reading_alarms.waiting == 1
        await nodes.nodes.pop("b").stop()
        assert a.serves(name)
        a.store.reading_alarms.open()
        await asyncio.sleep(15)
        assert "timer_fired" in await a.history(name)
