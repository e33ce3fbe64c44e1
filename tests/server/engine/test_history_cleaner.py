"""Long histories of deleted runs: gone for everybody at once, deleted piece by piece, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from perdure.server.core.errors import NotFound
from perdure.server.core.inputs import Delete
from perdure.server.engine.settings import EngineSettings
from tests.server.engine.node import Node, running, unavailable
from tests.virtual_time import in_virtual_time

SETTINGS = EngineSettings(events_deleted_at_once=20, events_deleted_per_second=20, discarded_rescan_seconds=1)


async def delete_long_run(node: Node, workflow_id: str = "w") -> str:
    reply = await node.start_workflow(workflow_id)
    for _ in range(150):
        await node.signal(workflow_id)
    await node.submit(workflow_id, Delete(""))
    return reply.run_id


def left(node: Node, run_id: str) -> int:
    return len(node.database.tables.events.get(run_id, {}))


@in_virtual_time
async def test_it_is_gone_for_everybody_before_it_is_deleted() -> None:
    async with running(SETTINGS) as node:
        run_id = await delete_long_run(node)
        assert left(node, run_id) > 100
        with pytest.raises(NotFound):
            await node.history(run_id=run_id)
        with pytest.raises(NotFound):
            await node.locate(run_id=run_id)
        assert (await node.start_workflow(request_id="again")).run_id != run_id


@in_virtual_time
async def test_it_goes_piece_by_piece_and_no_faster_than_the_setting_says() -> None:
    async with running(SETTINGS) as node:
        run_id = await delete_long_run(node)
        counts = [left(node, run_id)]
        while counts[-1]:
            await asyncio.sleep(1)
            counts.append(left(node, run_id))
        assert all(0 <= before - after <= 20 for before, after in pairwise(counts))
        assert len(counts) >= 7
        await asyncio.sleep(5)
        assert not node.database.tables.discarded


@in_virtual_time
async def test_a_crash_leaves_nothing_behind_for_ever() -> None:
    async with running(SETTINGS) as node:
        run_id = await delete_long_run(node)
        await asyncio.sleep(3)
        assert left(node, run_id)
        successor = await node.crash()
        await asyncio.sleep(60)
        assert not left(successor, run_id)
        assert not successor.database.tables.discarded


@in_virtual_time
async def test_a_store_that_is_away_is_asked_again() -> None:
    async with running(SETTINGS) as node:
        delete = node.store.delete_history
        failures = [unavailable(), unavailable()]

        async def delete_history(run_id: str, limit: int) -> bool:
            if failures:
                raise failures.pop()
            return await delete(run_id, limit)

        node.store.delete_history = delete_history  # type: ignore[method-assign]  # to let it fail
        run_id = await delete_long_run(node)
        await asyncio.sleep(60)
        assert not left(node, run_id)
