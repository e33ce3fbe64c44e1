"""A run whose rows cannot be read back: its callers are told so at once, operators once, and all others go on."""

from __future__ import annotations

import asyncio
import logging

import pytest

from perdure.server.core.errors import DataLoss, NotFound
from perdure.server.store.memory import MemoryDatabase
from tests.server.engine.node import Node, complete_workflow, key_of, new_database, running, start_timer, started
from tests.virtual_time import in_virtual_time


def corrupt(database: MemoryDatabase, run_id: str = "") -> str:
    """Make the rows of a run senseless, without one the current run of `broken`; return its id."""
    run_id = run_id or database.tables.current[key_of("broken")]
    database.tables.runs[run_id].state = b"\xff"
    return run_id


async def with_broken(*workflow_ids: str) -> MemoryDatabase:
    """Return a database with these workflows, each with a task ready; the rows of `broken` are corrupt."""
    database = new_database()
    async with running(database=database) as node:
        for workflow_id in ("broken", *workflow_ids):
            await node.start_workflow(workflow_id)
    corrupt(database)
    return database


@in_virtual_time
async def test_it_is_answered_as_data_loss_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    database = await with_broken()
    run_id = database.tables.current[key_of("broken")]
    async with running(database=database) as node:
        for asked_run_id in ("", run_id, run_id):
            with pytest.raises(DataLoss, match=f"run {run_id} of workflow broken cannot be read back"):
                await node.locate("broken", run_id=asked_run_id)
    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    told = record.__dict__
    assert (told["namespace_id"], told["workflow_id"], told["run_id"]) == (*key_of("broken"), run_id)


@in_virtual_time
async def test_an_older_run_that_is_corrupt_leaves_the_current_one_alone() -> None:
    async with running() as node:
        first = await node.start_workflow(request_id="one")
        await node.terminate()
        await node.start_workflow(request_id="two")
        await node.locate()
        corrupt(node.database, first.run_id)
        with pytest.raises(DataLoss):
            await node.locate(run_id=first.run_id)
        assert (await node.locate()).run_id != first.run_id


@in_virtual_time
async def test_those_loaded_together_with_it_are_answered() -> None:
    async with running(database=await with_broken("whole")) as node:
        node.store.loading.shut()
        first = await started(node.signal("first"))
        broken, whole = await started(node.locate("broken")), await started(node.locate("whole"))
        node.store.loading.open()
        assert (await whole).next_event_id == 3
        with pytest.raises(DataLoss):
            await broken
        await asyncio.gather(first, return_exceptions=True)
        with pytest.raises(NotFound):
            await node.locate("another")


@in_virtual_time
async def test_its_task_does_not_keep_others_from_the_worker() -> None:
    async with running(database=await with_broken("whole")) as node:
        task = await node.poll(wait_seconds=1)
        assert task.workflow_execution.workflow_id == "whole"
        assert asyncio.get_running_loop().time() < 1


@in_virtual_time
async def test_its_alarm_rings_in_vain_and_quietly(caplog: pytest.LogCaptureFixture) -> None:
    database = new_database()
    async with running(database=database) as node:
        for workflow_id in ("broken", "whole"):
            await node.start_workflow(workflow_id)
            await node.complete(await node.poll(), start_timer("t", 10))
        await node.engine.stop()
    corrupt(database)
    successor = Node(database)
    await successor.start()
    await asyncio.sleep(600)
    await successor.complete(await successor.poll(wait_seconds=1), complete_workflow())
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) == 1
