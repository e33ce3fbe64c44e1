"""A database that is slow, or stands still for one thing, is no reason to lose a lease that can be renewed."""

from __future__ import annotations

import asyncio

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
