"""A database that was restored to an older state: every node notices, drops what it knows, and goes on from there."""

from __future__ import annotations

import asyncio
import copy
import logging

import pytest

from perdure.server.core.errors import NotFound, Unavailable
from perdure.server.store.memory import MemoryDatabase
from tests.server.engine.cluster.nodes import LEASE_SECONDS, ClusterNode, town
from tests.virtual_time import in_virtual_time


class Backup:
    """What a database held at one moment."""

    def __init__(self, database: MemoryDatabase) -> None:
        self._tables = copy.deepcopy(database.tables)
        self._claims = copy.deepcopy(database.claims)
        self._members = copy.copy(database.members)
        self._members._rows = copy.deepcopy(database.members._rows)
        self._members._owners = dict(database.members._owners)

    def restore(self, database: MemoryDatabase) -> None:
        database.tables, database.claims, database.members = self._tables, self._claims, self._members


async def start_until_answered(node: ClusterNode, workflow_id: str) -> str:
    """Start a workflow as a client does, and return its run id."""
    while True:
        try:
            return (await node.start_workflow(workflow_id)).run_id
        except Unavailable:
            await asyncio.sleep(0.1)


@in_virtual_time
async def test_nodes_go_on_from_what_a_restored_database_holds(caplog: pytest.LogCaptureFixture) -> None:
    async with town("a", "b") as nodes:
        a, b = nodes.nodes.values()
        kept = {name: (await a.start_workflow(name)).run_id for name in (nodes.here(a, "kept"), nodes.here(b, "kept"))}
        backup = Backup(nodes.database)
        lost = [nodes.here(a, "lost"), nodes.here(b, "lost")]
        for name in lost:
            await a.start_workflow(name)
        c = await nodes.add("c")
        await nodes.settle()
        with caplog.at_level(logging.CRITICAL):
            backup.restore(nodes.database)
            await nodes.settle(4 * LEASE_SECONDS)
        assert "as if it was restored" in caplog.text
        assert "lost acknowledged work" in caplog.text
        for node in (a, b, c):
            for name, run_id in kept.items():
                assert (await node.describe(name)).workflow_execution_info.execution.run_id == run_id
                await node.signal(name)
            for name in lost:
                with pytest.raises(NotFound):
                    await node.describe(name)
        for name in lost:
            assert await start_until_answered(b, name)
        polled = {(await c.poll()).workflow_execution.workflow_id for _ in range(4)}
        assert polled == {*kept, *lost}


@in_virtual_time
async def test_a_restored_database_whose_members_are_the_same_is_noticed_by_the_next_batch(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with town("a", "b") as nodes:
        a, b = nodes.nodes.values()
        backup = Backup(nodes.database)
        name = nodes.here(a)
        run_id = (await a.start_workflow(name)).run_id
        with caplog.at_level(logging.CRITICAL):
            backup.restore(nodes.database)
            await start_until_answered(a, nodes.here(a, "next"))
        assert "lost acknowledged work" in caplog.text
        assert await start_until_answered(b, name) != run_id
