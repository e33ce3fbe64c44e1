"""A database that is slow, stands still for one thing, or was away: nobody loses by it what is theirs."""

from __future__ import annotations

import asyncio
from collections import Counter

from tests.server.engine.cluster.nodes import LEASE_SECONDS, town
from tests.virtual_time import in_virtual_time


@in_virtual_time
async def test_a_node_renews_its_lease_while_a_batch_of_it_takes_long() -> None:
    async with town("a") as nodes:
        a = nodes.nodes["a"]
        a.faults.before_commit.shut()
        b = await nodes.add("b")
        await asyncio.sleep(4 * LEASE_SECONDS)
        assert a.faults.before_commit.waiting == 1, "a gives shards to b"
        assert a.cluster.membership.holds_its_lease, "it was not renewed"
        assert b.shards == 0, "b took what it was to be given"
        a.faults.before_commit.open()
        await nodes.settle()
        assert b.shards > 300


@in_virtual_time
async def test_when_the_database_is_back_nothing_goes_to_the_node_that_renews_first() -> None:
    async with town("a", "b") as nodes:
        a, b = nodes.nodes.values()
        before = a.shards
        for row in nodes.database.members._rows.values():
            row.lease_until = 0
        await b.store.renew(LEASE_SECONDS)
        await a.cluster.membership.look()
        owners = Counter(row.owner for row in (await a.store.read_view()).shards)
        assert owners["a"] == before, "a gave its shards away, for as long as its own lease was not renewed"
