"""Retention: a closed run goes when its namespace keeps it no longer, at a bounded pace, and in nobody's way."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from perdure.server.core.checks.namespaces import DELETED
from perdure.server.core.records import NamespaceRecord, WorkflowKey
from perdure.server.engine.settings import EngineSettings
from perdure.server.store.interface import ClosedRun, RunPosition
from perdure.server.store.memory import MemoryDatabase
from tests.server.engine.node import (
    NAMESPACE_ID,
    Node,
    complete_workflow,
    key_of,
    new_database,
    running,
    start_timer,
    unavailable,
)
from tests.virtual_time import in_virtual_time, settle

DAY = 86_400.0
HOUR = 3_600.0


async def closed_runs(node: Node, count: int, prefix: str = "w") -> None:
    for number in range(count):
        await node.start_workflow(f"{prefix}{number}")
        await node.terminate(f"{prefix}{number}")


async def keep_for(node: Node, seconds: float) -> None:
    def edit(record: NamespaceRecord) -> None:
        record.retention_seconds = int(seconds)

    await node.engine.namespaces.change("default", edit)


def left(node: Node) -> int:
    return len(node.database.tables.runs)


@in_virtual_time
async def test_a_closed_run_is_deleted_when_its_retention_ends_and_not_before() -> None:
    async with running() as node:
        await closed_runs(node, 1)
        await asyncio.sleep(DAY - 1)
        assert left(node) == 1
        await asyncio.sleep(2)
        assert left(node) == 0
        assert node.database.tables.events == {}
        assert not node.engine._cache.keys()


@in_virtual_time
async def test_runs_go_in_time_also_from_a_namespace_that_was_only_closed() -> None:
    def close(record: NamespaceRecord) -> None:
        record.state = DELETED

    async with running() as node:
        await closed_runs(node, 1)
        await node.engine.namespaces.change("default", close)
        await asyncio.sleep(DAY + 1)
        assert left(node) == 0


@in_virtual_time
async def test_open_runs_stay() -> None:
    async with running() as node:
        await node.start_workflow()
        await closed_runs(node, 1)
        await asyncio.sleep(3 * DAY)
        assert [run.workflow_id for run in node.database.tables.runs.values()] == ["w"]


@in_virtual_time
async def test_what_was_due_while_no_server_ran_goes_after_the_start() -> None:
    async with running() as node:
        await closed_runs(node, 3)
        await node.engine.stop()
        await asyncio.sleep(2 * DAY)
        async with running(database=node.database) as successor:
            await asyncio.sleep(1)
            assert left(successor) == 0


@in_virtual_time
async def test_a_shorter_retention_holds_for_what_is_closed_already() -> None:
    async with running() as node:
        await closed_runs(node, 3)
        await asyncio.sleep(2 * HOUR)
        await keep_for(node, HOUR)
        await asyncio.sleep(1)
        assert left(node) == 0


@in_virtual_time
async def test_a_longer_retention_holds_for_what_is_closed_already() -> None:
    async with running() as node:
        await closed_runs(node, 3)
        await keep_for(node, 2 * DAY)
        await asyncio.sleep(2 * DAY - 1)
        assert left(node) == 3
        await asyncio.sleep(2)
        assert left(node) == 0


@in_virtual_time
async def test_a_changed_retention_holds_after_a_crash() -> None:
    async with running() as node:
        await closed_runs(node, 3)
        await asyncio.sleep(2 * HOUR)
        await keep_for(node, HOUR)
        successor = await node.crash()
        await asyncio.sleep(1)
        assert left(successor) == 0


@in_virtual_time
async def test_no_more_are_deleted_per_second_than_the_setting_says() -> None:
    async with running(EngineSettings(deletions_per_second=10)) as node:
        await closed_runs(node, 100)
        await asyncio.sleep(DAY - 1)
        counts = []
        for _ in range(12):
            counts.append(left(node))
            await asyncio.sleep(1)
        # A second may have both its ends at a turn.
        assert all(0 <= before - after <= 11 for before, after in pairwise(counts))
        assert counts[0] == 100
        assert counts[-1] == 0


@in_virtual_time
async def test_a_mass_of_expired_runs_makes_no_timer_late() -> None:
    """Nor do they fill the window of alarms: with room for two, the timers are found all the same."""
    settings = EngineSettings(deletions_per_second=1, alarms_in_memory=2, alarm_horizon_seconds=5)
    async with running(settings) as node:
        await closed_runs(node, 200)
        await asyncio.sleep(DAY - 10)
        for number in range(5):
            await node.start_workflow(f"live{number}")
            await node.complete(await node.poll(), start_timer("t", 20 + number))
        for number in range(5):
            task = await node.poll(wait_seconds=60)
            assert task.workflow_execution.workflow_id == f"live{number}"
            late = node.clock.now() - (task.history.events[-2].event_time.ToNanoseconds())
            assert late < 1e9
            await node.complete(task, complete_workflow())
        elapsed = asyncio.get_running_loop().time() - DAY
        assert left(node) > 200 - elapsed - 10, "they are still being deleted"


@in_virtual_time
async def test_a_store_that_is_away_is_asked_again() -> None:
    async with running() as node:
        await closed_runs(node, 3)
        await asyncio.sleep(DAY - 60)
        node.faults.before_commit.errors = [unavailable()] * 3
        await asyncio.sleep(90)
        assert left(node) == 0


@in_virtual_time
async def test_a_run_that_cannot_be_read_back_is_in_the_way_of_no_other() -> None:
    database = new_database()
    async with running(database=database) as node:
        await closed_runs(node, 1200)
        for run in list(database.tables.runs.values())[:600]:
            run.state = b"nonsense"
        successor = await node.crash()
        await asyncio.sleep(DAY + 60)
        assert left(successor) == 600


@in_virtual_time
@pytest.mark.parametrize("runs", [0, 1])
async def test_between_looks_the_store_is_hardly_asked(runs: int) -> None:
    looks: list[RunPosition | None] = []
    async with running() as node:
        read = node.store.closed_runs

        async def closed(namespace_id: str, limit: int, after: RunPosition | None) -> list[ClosedRun]:
            looks.append(after)
            return await read(namespace_id, limit, after)

        node.store.closed_runs = closed  # type: ignore[method-assign]  # to count the reads
        await closed_runs(node, runs)
        await asyncio.sleep(HOUR)
        assert len(looks) <= 7


@in_virtual_time
async def test_the_namespaces_take_turns() -> None:
    database = new_database()
    second = NamespaceRecord("second", "second", 1, "", "", {}, retention_seconds=86_400, created_at=0)
    database.tables.namespaces["second"] = second
    async with running(database=database) as node:
        await closed_runs(node, 1100)
        await node.engine.stop()
    _move(database, "second", 100)
    async with running(EngineSettings(deletions_per_second=100), database):
        await asyncio.sleep(DAY + 7)
        remaining = [run.namespace_id for run in database.tables.runs.values()]
        assert "second" not in remaining
        assert NAMESPACE_ID in remaining


def _move(database: MemoryDatabase, namespace_id: str, count: int) -> None:
    """Let the last runs be of another namespace."""
    for run in list(database.tables.runs.values())[-count:]:
        del database.tables.current[key_of(run.workflow_id)]
        run.namespace_id = namespace_id
        database.tables.current[WorkflowKey(namespace_id, run.workflow_id)] = run.run_id


@in_virtual_time
async def test_it_stops_with_the_engine() -> None:
    async with running(EngineSettings(deletions_per_second=1)) as node:
        await closed_runs(node, 10)
        await asyncio.sleep(DAY + 2)
        await node.engine.stop()
        remaining = left(node)
        assert 0 < remaining < 10
        await asyncio.sleep(60)
        await settle()
        assert left(node) == remaining
