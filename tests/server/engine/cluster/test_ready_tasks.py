"""Ready tasks find a poll at once, whatever became of their node and wherever the poll waits, without a slow rescan."""

from __future__ import annotations

import asyncio

from perdure.server.engine.cluster.settings import ClusterSettings
from perdure.server.engine.matching import MatcherSettings
from perdure.server.engine.settings import EngineSettings
from tests.server.engine.cluster.nodes import town
from tests.virtual_time import in_virtual_time

SOON_SECONDS = 5.0
"""Much less than matcher.rescan_seconds."""


@in_virtual_time
async def test_a_task_that_was_started_before_its_node_was_replaced_is_offered_again() -> None:
    async with town("a") as nodes:
        a = nodes.nodes["a"]
        await a.start_workflow("w")
        assert (await a.poll()).workflow_execution.workflow_id == "w"
        a.engine.fenced()
        await asyncio.sleep(1)
        assert (await a.poll(wait_seconds=SOON_SECONDS)).workflow_execution.workflow_id == "w"


@in_virtual_time
async def test_more_tasks_than_the_window_holds_go_to_a_worker_at_another_node() -> None:
    few = MatcherSettings(window_offers=4, refill_offers=2)
    settings = EngineSettings(cluster=ClusterSettings(), matcher=few)
    async with town("a", "b", settings=settings) as nodes:
        a, b = nodes.nodes.values()
        names = {nodes.here(b, f"w{number}.") for number in range(20)}
        for name in names:
            await b.start_workflow(name)
        polls = [await a.poll(wait_seconds=SOON_SECONDS) for _ in names]
        assert {task.workflow_execution.workflow_id for task in polls} == names
