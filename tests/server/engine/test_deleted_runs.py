"""A deleted run is gone for everybody, also while the store still has it, and its id is free at once."""

from __future__ import annotations

import pytest
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import GetWorkflowExecutionHistoryReverseRequest

from perdure.server.core.errors import InvalidArgument, NotFound
from perdure.server.core.inputs import Delete
from perdure.server.engine.history import PageToken, _encode
from tests.server.engine.node import Node, key_of, running, started
from tests.virtual_time import in_virtual_time, settle


async def with_signals(node: Node, workflow_id: str = "w") -> str:
    reply = await node.start_workflow(workflow_id)
    for _ in range(6):
        await node.signal(workflow_id)
    return reply.run_id


@in_virtual_time
async def test_it_does_not_come_back_from_the_store_while_its_end_is_being_written() -> None:
    async with running() as node:
        first = await node.start_workflow(request_id="one")
        await node.terminate()
        node.faults.before_commit.shut()
        delete = await started(node.submit("w", Delete("")))
        read = await started(node.locate(run_id=first.run_id))
        start = await started(node.start_workflow(request_id="two"))
        again = await started(node.submit("w", Delete(first.run_id)))
        node.faults.before_commit.open()
        await delete
        second = await start
        for late in (read, again, node.locate(run_id=first.run_id)):
            with pytest.raises(NotFound):
                await late
        assert (await node.locate()).run_id == second.run_id


@in_virtual_time
async def test_it_is_not_remembered_once_its_end_is_durable() -> None:
    async with running() as node:
        for number in range(5):
            await node.start_workflow(request_id=f"start {number}")
            await node.submit("w", Delete(""))
        await node.start_workflow(request_id="last")
        await node.locate()
        entity = node.engine._cache.peek(key_of("w"))
        assert entity is not None
        assert entity.leaving == set()


@in_virtual_time
async def test_the_next_page_of_its_history_is_not_found() -> None:
    async with running() as node:
        run_id = await with_signals(node)
        page = await node.history(page_size=3)
        await node.submit("w", Delete(run_id))
        with pytest.raises(NotFound):
            await node.history(page_size=3, token=page.next_page_token)
        backwards = GetWorkflowExecutionHistoryReverseRequest(
            execution=WorkflowExecution(workflow_id="w"), maximum_page_size=2, next_page_token=page.next_page_token
        )
        with pytest.raises(NotFound):
            await node.engine.read_history_reverse(key_of("w"), backwards)


@in_virtual_time
async def test_a_token_reads_no_other_workflow() -> None:
    async with running() as node:
        await with_signals(node, "mine")
        await with_signals(node, "other")
        page = await node.history("other", page_size=3)
        with pytest.raises(NotFound):
            await node.history("mine", token=page.next_page_token)


@in_virtual_time
@pytest.mark.parametrize("position", [0, -1, 2**63 + 1])
async def test_a_token_with_a_made_up_position_does_no_harm(position: int) -> None:
    async with running() as node:
        run_id = await with_signals(node)
        backwards = GetWorkflowExecutionHistoryReverseRequest(
            execution=WorkflowExecution(workflow_id="w"),
            maximum_page_size=2,
            next_page_token=_encode(PageToken(run_id, position, 0)),
        )
        if position < 1:
            with pytest.raises(InvalidArgument):
                await node.engine.read_history_reverse(key_of("w"), backwards)
            return
        await node.engine.read_history_reverse(key_of("w"), backwards)
        page = await node.history(token=_encode(PageToken(run_id, position, position + 1)))
        assert not page.history.events
        await settle()
