"""What clients and workers see of a cluster: any node answers anything, and a poll at one gets the tasks of all."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from temporalio.api.enums.v1 import WorkflowExecutionStatus

from perdure.server.core.errors import Unimplemented
from perdure.server.engine.client_software import ClientSoftware
from perdure.server.engine.cluster.services import DESCRIBE_QUEUE, Asked
from perdure.server.engine.matching import QueueKey, QueueKind
from tests.server.engine.cluster.nodes import town
from tests.server.engine.node import complete_workflow, schedule_activity, started
from tests.virtual_time import in_virtual_time

COMPLETED = WorkflowExecutionStatus.WORKFLOW_EXECUTION_STATUS_COMPLETED


@in_virtual_time
async def test_nodes_share_the_shards() -> None:
    async with town("a", "b", "c") as nodes:
        assert all(node.shards > 200 for node in nodes.nodes.values())


@in_virtual_time
async def test_any_node_starts_and_describes_any_workflow() -> None:
    async with town("a", "b") as nodes:
        a, b = nodes.nodes.values()
        elsewhere = nodes.somewhere_else(a)
        reply = await a.start_workflow(elsewhere)
        assert (await b.describe(elsewhere)).workflow_execution_info.execution.run_id == reply.run_id
        await a.signal(elsewhere)
        assert (await a.describe(elsewhere)).workflow_execution_info.history_length == 3


@in_virtual_time
async def test_a_worker_at_one_node_gets_the_tasks_of_another() -> None:
    async with town("a", "b") as nodes:
        a, b = nodes.nodes.values()
        elsewhere = nodes.somewhere_else(a)
        poll = await started(a.poll())
        await b.start_workflow(elsewhere)
        task = await poll
        assert task.workflow_execution.workflow_id == elsewhere
        await a.complete(task, schedule_activity())
        activity = await a.poll_activity()
        await a.complete_activity(activity)
        await a.complete(await a.poll(), complete_workflow())
        assert (await a.describe(elsewhere)).workflow_execution_info.status == COMPLETED


@in_virtual_time
async def test_a_task_that_was_there_before_the_poll_is_found() -> None:
    async with town("a", "b") as nodes:
        a, b = nodes.nodes.values()
        elsewhere = nodes.somewhere_else(a)
        await b.start_workflow(elsewhere)
        task = await a.poll()
        assert task.workflow_execution.workflow_id == elsewhere


@in_virtual_time
async def test_a_sticky_task_goes_to_the_node_its_worker_polls() -> None:
    async with town("a", "b") as nodes:
        a, b = nodes.nodes.values()
        elsewhere = nodes.somewhere_else(a)
        await b.start_workflow(elsewhere)
        task = await a.poll()
        await a.complete(task, sticky="sticky of a")
        poll = await started(a.poll(sticky="sticky of a"))
        await b.signal(elsewhere)
        assert (await poll).workflow_execution.workflow_id == elsewhere


@in_virtual_time
async def test_workers_at_two_nodes_share_the_tasks_of_a_third() -> None:
    async with town("a", "b", "c") as nodes:
        a, b, c = nodes.nodes.values()
        names = [nodes.here(c, f"run{number}.") for number in range(40)]
        polls = [asyncio.create_task(node.poll()) for node in (a, b) for _ in range(20)]
        await asyncio.sleep(1)
        for name in names:
            await c.start_workflow(name)
        done, waiting = await asyncio.wait(polls, timeout=5)
        assert not waiting
        assert {poll.result().workflow_execution.workflow_id for poll in done} == set(names)


@in_virtual_time
async def test_a_node_that_stops_hands_its_shards_over_at_once() -> None:
    async with town("a", "b") as nodes:
        a, b = nodes.nodes.values()
        name = nodes.here(a)
        await a.start_workflow(name)
        began = asyncio.get_running_loop().time()
        await a.stop()
        assert asyncio.get_running_loop().time() - began < 0.5
        assert (await b.poll()).workflow_execution.workflow_id == name
        assert b.shards == 1024


@in_virtual_time
async def test_a_node_that_joins_takes_its_part_and_what_is_in_it() -> None:
    async with town("a") as nodes:
        a = nodes.nodes["a"]
        names = [f"w{number}" for number in range(30)]
        for name in names:
            await a.start_workflow(name)
        b = await nodes.add("b")
        await nodes.settle()
        assert any(b.serves(name) for name in names)
        got = {(await b.poll()).workflow_execution.workflow_id for _ in names}
        assert got == set(names)


# --- nodes of different releases --------------------------------------------------------------------------------------


@in_virtual_time
async def test_an_rpc_that_this_release_does_not_know_is_unimplemented() -> None:
    async with town("a") as nodes:
        asked = Asked("b", msgspec.msgpack.encode(["/of.a.newer.Release/Call", b""]), None, ClientSoftware())
        with pytest.raises(Unimplemented, match=r"/of\.a\.newer\.Release/Call"):
            await nodes.nodes["a"].dispatcher.serve_forwarded(asked)


@in_virtual_time
async def test_facts_of_a_queue_may_grow_and_those_that_cannot_be_read_are_left_out() -> None:
    async with town("a", "b", "c") as nodes:
        a, b, c = nodes.nodes.values()

        async def newer(asked: Asked) -> bytes:
            return msgspec.msgpack.encode([[["worker", 1.0, 7, None, None, "new"]], [2, 1.0, 0.5, 0.5, "new"], "new"])

        async def unreadable(asked: Asked) -> bytes:
            return msgspec.msgpack.encode("all is different")

        b.cluster.services.offer(DESCRIBE_QUEUE, newer)
        c.cluster.services.offer(DESCRIBE_QUEUE, unreadable)
        key = QueueKey("namespace", "queue", QueueKind.WORKFLOW)
        assert [info.poller.identity for info in await a.engine.task_queue_pollers(key)] == ["worker"]
        assert (await a.engine.task_queue_backlog(key)).approximate_backlog_count == 2
