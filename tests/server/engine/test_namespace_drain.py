"""A namespace that is deleted: closed at once, its runs deleted in the background, then gone, whatever happens."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from perdure.server.core.errors import FailedPrecondition, NotFound, Unavailable
from perdure.server.core.records import NamespaceRecord, WorkflowKey
from perdure.server.engine.namespaces import NoFellows
from perdure.server.engine.settings import EngineSettings
from perdure.server.store.memory import MemoryDatabase
from tests.server.engine.node import NAMESPACE_ID, Node, new_database, running, start_timer, started, unavailable
from tests.server.engine.test_messages import signal_external, start_child
from tests.virtual_time import in_virtual_time

DAY = 86_400


async def with_runs(node: Node, count: int) -> None:
    """Make open runs and closed ones, in turns."""
    for number in range(count):
        await node.start_workflow(f"w{number}")
        if number % 2:
            await node.terminate(f"w{number}")


def names(node: Node) -> list[str]:
    return sorted(record.name for record in node.database.tables.namespaces.values())


async def delete(node: Node, delay_seconds: int = 0) -> NamespaceRecord:
    return await node.engine.namespaces.begin_deletion("default", delay_seconds)


def assert_gone(node: Node) -> None:
    tables = node.database.tables
    assert not tables.runs
    assert not tables.events
    assert not tables.outbox
    assert NAMESPACE_ID not in tables.namespaces
    with pytest.raises(NotFound):
        node.engine.namespaces.by_id(NAMESPACE_ID)


@in_virtual_time
async def test_its_runs_are_deleted_open_ones_too_and_then_itself() -> None:
    async with running() as node:
        await with_runs(node, 30)
        record = await delete(node)
        assert record.name == f"default-deleted-{NAMESPACE_ID[:5]}"
        await asyncio.sleep(2)
        assert_gone(node)
        assert not node.engine._cache.keys()


@in_virtual_time
async def test_nothing_starts_in_it_once_it_is_closed() -> None:
    async with running() as node:
        await delete(node, delay_seconds=DAY)
        with pytest.raises(FailedPrecondition, match=r"invalid state: Deleted\. Must be Registered or Deprecated\."):
            await node.start_workflow()


@in_virtual_time
async def test_a_start_that_was_let_in_just_before_is_found() -> None:
    """It is not durable yet when the first pass finds nothing: the namespace must wait for it."""
    async with running() as node:
        node.faults.before_commit.shut()
        start = await started(node.start_workflow())
        await delete(node)
        await asyncio.sleep(60)
        assert NAMESPACE_ID in node.database.tables.namespaces
        node.faults.before_commit.open()
        await start
        await asyncio.sleep(60)
        assert_gone(node)


@in_virtual_time
async def test_no_more_are_deleted_per_second_than_the_setting_says() -> None:
    async with running(EngineSettings(deletions_per_second=10)) as node:
        await with_runs(node, 100)
        await delete(node)
        counts = []
        for _ in range(12):
            counts.append(len(node.database.tables.runs))
            await asyncio.sleep(1)
        # A second may have both its ends at a turn.
        assert all(0 <= before - after <= 11 for before, after in pairwise(counts))
        assert counts[-1] == 0


@in_virtual_time
async def test_it_goes_on_after_a_crash() -> None:
    async with running(EngineSettings(deletions_per_second=10)) as node:
        await with_runs(node, 60)
        await delete(node)
        await asyncio.sleep(3)
        remaining = len(node.database.tables.runs)
        assert 0 < remaining < 60
        successor = await node.crash()
        await asyncio.sleep(10)
        assert_gone(successor)
        assert names(successor) == ["default"], "a new one, made at the start"


@in_virtual_time
async def test_a_store_that_is_away_is_asked_again() -> None:
    async with running() as node:
        await with_runs(node, 10)
        await delete(node)
        node.faults.before_commit.errors = [unavailable()] * 3
        await asyncio.sleep(120)
        assert_gone(node)


class NotSure(NoFellows):
    """This node changes namespaces, and refuses to, so often, for its lease has ended."""

    def __init__(self, refusals: int) -> None:
        self.refusals = refusals

    def require_registry(self) -> None:
        if self.refusals:
            self.refusals -= 1
            raise Unavailable("this node has not reached the database for as long as its lease lasts; try again")


@in_virtual_time
@pytest.mark.parametrize("delay_seconds", [0, 60])
async def test_a_node_whose_lease_has_ended_goes_on_when_it_has_one_again(delay_seconds: int) -> None:
    async with running() as node:
        await with_runs(node, 4)
        await delete(node, delay_seconds)
        node.engine.namespaces._fellows = fellows = NotSure(3)
        await asyncio.sleep(180)
        assert fellows.refusals == 0
        assert_gone(node)


@in_virtual_time
async def test_it_goes_on_with_others_where_one_is_gone() -> None:
    """Another node has removed it, and this one has not heard of that."""
    async with running() as node:
        await delete(node, delay_seconds=DAY)
        del node.database.tables.namespaces[NAMESPACE_ID]
        await asyncio.sleep(60)
        made = await node.engine.namespaces.register("other", retention_seconds=DAY)
        await node.engine.namespaces.begin_deletion("other", 0)
        await asyncio.sleep(60)
        assert made.namespace_id not in node.database.tables.namespaces


@in_virtual_time
async def test_it_stays_for_its_delay_when_its_runs_are_gone() -> None:
    async with running() as node:
        await with_runs(node, 4)
        await delete(node, delay_seconds=DAY)
        await asyncio.sleep(DAY / 2)
        assert not node.database.tables.runs
        successor = await node.crash()
        await asyncio.sleep(DAY / 2 - 60)
        assert NAMESPACE_ID in successor.database.tables.namespaces
        await asyncio.sleep(120)
        assert_gone(successor)


@in_virtual_time
async def test_asked_for_again_it_takes_the_new_delay() -> None:
    async with running() as node:
        name = (await delete(node, delay_seconds=30 * DAY)).name
        await asyncio.sleep(60)
        again = await node.engine.namespaces.begin_deletion(name, 0)
        assert again.name == name
        await asyncio.sleep(1)
        assert_gone(node)


@in_virtual_time
async def test_its_name_is_free_at_once() -> None:
    async with running() as node:
        await delete(node)
        made = await node.engine.namespaces.register("default", retention_seconds=DAY)
        assert made.namespace_id != NAMESPACE_ID
        await asyncio.sleep(2)
        assert names(node) == ["default"]
        assert node.engine.namespaces.by_name("default") is made


@in_virtual_time
async def test_runs_of_other_namespaces_stay() -> None:
    database = new_database()
    other = NamespaceRecord("other-id", "other", 1, "", "", {}, retention_seconds=DAY, created_at=0)
    database.tables.namespaces["other-id"] = other
    async with running(database=database) as node:
        await with_runs(node, 3)
        _copy_run(database, "w0", WorkflowKey("other-id", "kept"))
        await delete(node)
        await asyncio.sleep(2)
        assert [run.workflow_id for run in database.tables.runs.values()] == ["kept"]
        assert names(node) == ["other"]


def _copy_run(database: MemoryDatabase, workflow_id: str, key: WorkflowKey) -> None:
    run = next(run for run in database.tables.runs.values() if run.workflow_id == workflow_id)
    copied = type(run)(**{name: getattr(run, name) for name in run.__struct_fields__})
    copied.namespace_id, copied.workflow_id, copied.run_id = key.namespace_id, key.workflow_id, "copied"
    database.tables.runs["copied"] = copied
    database.tables.current[key] = "copied"


@in_virtual_time
async def test_timers_and_tasks_of_deleted_runs_trouble_nobody() -> None:
    async with running() as node:
        for number in range(3):
            await node.start_workflow(f"w{number}")
            await node.complete(await node.poll(), start_timer("t", 30))
        await node.start_workflow("unanswered", task_seconds=5)
        await node.poll()
        await delete(node)
        await asyncio.sleep(120)
        assert_gone(node)


@in_virtual_time
async def test_families_and_their_messages_go_with_it() -> None:
    async with running() as node:
        await node.start_workflow("parent")
        await node.complete(await node.poll(), start_child("one"), start_child("two"), signal_external("nobody"))
        for _ in range(3):
            await node.poll()
        await node.start_workflow("late")
        await node.complete(await node.poll(), start_child("three"))
        await delete(node)
        await asyncio.sleep(30)
        assert_gone(node)


@in_virtual_time
async def test_a_run_that_cannot_be_read_back_keeps_the_namespace_and_no_other_run() -> None:
    async with running() as node:
        await with_runs(node, 10)
        next(iter(node.database.tables.runs.values())).state = b"nonsense"
        successor = await node.crash()
        await delete(successor)
        await asyncio.sleep(60)
        assert len(successor.database.tables.runs) == 1
        assert NAMESPACE_ID in successor.database.tables.namespaces
