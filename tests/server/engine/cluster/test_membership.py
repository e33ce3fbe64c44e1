"""Who is a member, who owns what, and what a node may do that is not sure of either."""

from __future__ import annotations

import asyncio

import pytest

from perdure.server.core.errors import Unavailable
from perdure.server.engine.cluster.errors import AddressInUse
from tests.server.engine.cluster.nodes import LEASE_SECONDS, ClusterNode, town
from tests.server.engine.node import NAMESPACE_ID, QUEUE, started
from tests.virtual_time import elapsed, in_virtual_time


@in_virtual_time
async def test_a_node_whose_lease_has_ended_refuses_reads() -> None:
    async with town("a", "b") as nodes:
        a, b = nodes.nodes.values()
        name = nodes.here(a)
        await a.start_workflow(name)
        a.store.is_silent = True
        await asyncio.sleep(0.9 * LEASE_SECONDS)
        with pytest.raises(Unavailable, match="lease"):
            await a.describe(name)
        await asyncio.sleep(2 * LEASE_SECONDS)
        assert (await b.describe(name)).workflow_execution_info.history_length == 2


@in_virtual_time
async def test_a_node_whose_place_was_taken_commits_nothing() -> None:
    async with town("a", "b") as nodes:
        a, b = nodes.nodes.values()
        name = nodes.here(a)
        await a.start_workflow(name)
        a.store.is_silent = True
        a.faults.before_commit.shut()
        signal = await started(a.signal(name))
        await asyncio.sleep(2 * LEASE_SECONDS)
        assert b.shards == 1024
        a.faults.before_commit.open()
        with pytest.raises(Unavailable):
            await signal
        assert "workflow_execution_signaled" not in await b.history(name)


@in_virtual_time
async def test_what_was_collected_under_an_old_claim_is_not_written_under_a_new_one() -> None:
    """A node that was replaced joins anew; what it collected before is of workflows that others own now."""
    async with town("a", "b") as nodes:
        a, b = nodes.nodes.values()
        written, collected = (nodes.here(a, f"run{number}.") for number in range(2))
        for name in (written, collected):
            await a.start_workflow(name)
        a.faults.after_commit.shut()
        signals = [await started(a.signal(name)) for name in (written, collected)]
        a.store.is_silent = True
        await asyncio.sleep(2 * LEASE_SECONDS)
        assert b.shards == 1024
        a.store.is_silent = False
        await asyncio.sleep(1)
        a.faults.after_commit.open()
        await signals[0]
        with pytest.raises(Unavailable):
            await signals[1]
        await nodes.settle()
        assert "workflow_execution_signaled" in await b.history(written)
        assert "workflow_execution_signaled" not in await b.history(collected)
        await a.signal(collected)
        assert "workflow_execution_signaled" in await b.history(collected)
        assert len(a.cluster.membership._sessions) == 2, "it was replaced once"


@in_virtual_time
async def test_a_node_that_has_given_shards_away_sees_nothing_of_them_in_the_indexes() -> None:
    async with town("a") as nodes:
        a = nodes.nodes["a"]
        theirs, own = nodes.wished_for("b", "a"), nodes.wished_for("a", "b")
        for name in (theirs, own):
            await a.start_workflow(name)
        await nodes.add("b")
        await nodes.settle()
        ready = await a.store.ready_workflow_tasks(NAMESPACE_ID, QUEUE, 10)
        assert [task.workflow_id for task in ready] == [own]


@in_virtual_time
async def test_a_node_that_was_replaced_joins_anew_in_the_same_process() -> None:
    async with town("a", "b") as nodes:
        a, b = nodes.nodes.values()
        name = nodes.here(a)
        a.store.is_cut = True
        await asyncio.sleep(3 * LEASE_SECONDS)
        assert b.shards == 1024
        await b.start_workflow(name)
        a.store.is_cut = False
        await nodes.settle()
        assert a.serves(name)
        assert not a.engine.fenced_event.is_set()
        await a.signal(name)
        assert (await b.describe(name)).workflow_execution_info.history_length == 3


@in_virtual_time
async def test_a_database_that_was_away_is_no_mass_takeover() -> None:
    async with town("a", "b", "c") as nodes:
        version = nodes.database.members.view().version
        everybody = list(nodes.nodes.values())
        for node in everybody:
            node.store.is_cut = True
        await asyncio.sleep(4 * LEASE_SECONDS)
        for node in everybody:
            with pytest.raises(Unavailable):
                await node.describe(nodes.here(node))
        for number, node in enumerate(everybody):
            # They find it again one after the other: those who do first see the others' leases ended.
            node.store.is_cut = False
            await asyncio.sleep(0.3 * number)
        await nodes.settle()
        assert nodes.database.members.view().version == version
        for node in everybody:
            await node.start_workflow(nodes.here(node))


@in_virtual_time
async def test_who_joins_waits_until_the_lease_of_its_former_life_has_ended() -> None:
    """That life may go on unnoticed, and answer reads for as long as it believes in its lease."""
    async with town("a", "b") as nodes:
        a = nodes.nodes["a"]
        a.store.is_silent = True
        waited = await elapsed(nodes.add("a"))
        assert LEASE_SECONDS / 2 < waited < 2 * LEASE_SECONDS
        with pytest.raises(Unavailable):
            await a.describe(nodes.here(a))


@in_virtual_time
async def test_a_second_process_of_a_name_does_not_start_while_the_first_lives() -> None:
    async with town("a", "b") as nodes:
        a = nodes.nodes["a"]
        with pytest.raises(AddressInUse, match="another process uses the address a"):
            await nodes.add("a")
        name = nodes.here(a)
        await a.start_workflow(name)
        assert (await a.describe(name)).workflow_execution_info.history_length == 2


@in_virtual_time
async def test_a_process_that_comes_back_to_find_its_name_used_gives_up() -> None:
    async with town("a", "b") as nodes:
        first = nodes.nodes["a"]
        first.store.is_cut = True
        second = await nodes.add("a")
        first.store.is_cut = False
        await asyncio.sleep(LEASE_SECONDS)
        assert first.engine.fenced_event.is_set()
        assert not second.engine.fenced_event.is_set()
        await second.start_workflow(nodes.here(second))


@in_virtual_time
async def test_a_node_that_has_not_joined_serves_nothing_however_often_it_looks() -> None:
    """A link that comes in makes a node look; what it owned in a former life may be another's by the time it joins."""
    async with town("a", "b") as nodes:
        nodes.nodes["a"].store.is_cut = True
        nodes.network.vanish("a")
        second = ClusterNode("a", nodes.database, nodes.network, nodes.settings, life=9)
        await second.store.open()
        await second.cluster.membership.look()
        assert second.shards == 0
