"""Reading histories: it waits, wakes and expires; pages go on where they stopped, in both directions."""

from __future__ import annotations

import asyncio

import pytest
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import (
    GetWorkflowExecutionHistoryReverseRequest,
    GetWorkflowExecutionHistoryReverseResponse,
)

from perdure.server.core.errors import InvalidArgument, NotFound, Unavailable
from perdure.server.core.inputs import Delete
from perdure.server.engine.settings import EngineSettings
from tests.server.engine.node import (
    Node,
    complete_workflow,
    event_names,
    key_of,
    running,
    schedule_activity,
    started,
    unavailable,
)
from tests.virtual_time import elapsed, in_virtual_time


async def with_signals(node: Node, count: int) -> str:
    """Start a workflow whose history is Started, Scheduled and so many Signaled."""
    reply = await node.start_workflow()
    for number in range(count):
        await node.signal(name=f"signal {number}")
    return reply.run_id


@in_virtual_time
async def test_a_history_comes_in_pages() -> None:
    async with running() as node:
        await with_signals(node, 5)
        sizes, ids, token = [], [], b""
        while True:
            page = await node.history(token=token, page_size=3)
            sizes.append(len(page.history.events))
            ids += [event.event_id for event in page.history.events]
            token = page.next_page_token
            if not token:
                break
        assert (sizes, ids) == ([3, 3, 1], [1, 2, 3, 4, 5, 6, 7])


@in_virtual_time
async def test_a_page_is_no_larger_than_it_may_be_and_has_one_event_at_least() -> None:
    async with running(EngineSettings(history_page_bytes=1)) as node:
        await with_signals(node, 1)
        page = await node.history()
        assert len(page.history.events) == 1
        assert page.next_page_token


@in_virtual_time
async def test_pages_do_not_grow_while_they_are_read() -> None:
    """What comes later is not part of the history that was asked for."""
    async with running() as node:
        await with_signals(node, 1)
        page = await node.history(page_size=2)
        await node.signal()
        rest = await node.history(token=page.next_page_token)
        assert [event.event_id for event in rest.history.events] == [3]
        assert not rest.next_page_token


@in_virtual_time
async def test_pages_stay_with_the_run_they_began_with() -> None:
    async with running() as node:
        first = await node.start_workflow(request_id="one")
        page = await node.history(page_size=1)
        await node.terminate()
        second = await node.start_workflow(request_id="two")
        rest = await node.history(token=page.next_page_token, run_id=first.run_id)
        assert event_names(rest.history.events) == ["workflow_task_scheduled"]
        with pytest.raises(InvalidArgument, match="RunId"):
            await node.history(token=page.next_page_token, run_id=second.run_id)


@in_virtual_time
async def test_memory_and_store_tell_the_same() -> None:
    async with running() as node:
        await with_signals(node, 4)
        from_memory = await node.history()
        successor = await node.crash()
        assert await successor.history() == from_memory


@in_virtual_time
async def test_a_reader_is_told_at_once_what_is_there() -> None:
    async with running() as node:
        await with_signals(node, 1)
        reading = node.history(wait_seconds=30)
        assert await elapsed(reading) == 0


@in_virtual_time
async def test_a_reader_waits_for_the_next_event() -> None:
    async with running() as node:
        await with_signals(node, 0)
        first = await node.history(wait_seconds=30)
        reader = await started(node.history(wait_seconds=30, token=first.next_page_token))
        await asyncio.sleep(7)
        assert not reader.done()
        await node.signal()
        assert event_names((await reader).history.events) == ["workflow_execution_signaled"]
        assert asyncio.get_running_loop().time() == 7


@in_virtual_time
async def test_a_reader_that_has_waited_long_enough_gets_a_token_to_go_on() -> None:
    async with running() as node:
        await with_signals(node, 0)
        first = await node.history(wait_seconds=30)
        loop = asyncio.get_running_loop()
        page = await node.history(wait_seconds=30, token=first.next_page_token)
        assert loop.time() == 30
        assert len(page.history.events) == 0
        await node.signal()
        rest = await node.history(wait_seconds=30, token=page.next_page_token)
        assert event_names(rest.history.events) == ["workflow_execution_signaled"]


@in_virtual_time
async def test_the_last_page_of_a_closed_run_says_so() -> None:
    async with running() as node:
        await with_signals(node, 0)
        await node.terminate()
        page = await node.history(wait_seconds=30, page_size=2)
        assert page.next_page_token
        rest = await node.history(wait_seconds=30, page_size=2, token=page.next_page_token)
        assert event_names(rest.history.events) == ["workflow_execution_terminated"]
        assert not rest.next_page_token


@in_virtual_time
async def test_who_wants_the_end_only_waits_for_it_and_nothing_else() -> None:
    async with running() as node:
        await node.start_workflow()
        reader = await started(node.history(wait_seconds=30, close_event_only=True))
        await node.signal()
        task = await node.poll()
        assert not reader.done()
        await node.complete(task, complete_workflow())
        page = await reader
        assert event_names(page.history.events) == ["workflow_execution_completed"]
        assert not page.next_page_token


@in_virtual_time
async def test_the_wait_for_the_end_expires_with_a_token_and_goes_on() -> None:
    async with running() as node:
        reply = await node.start_workflow()
        page = await node.history(wait_seconds=5, close_event_only=True)
        assert asyncio.get_running_loop().time() == 5
        assert len(page.history.events) == 0
        reader = await started(
            node.history(wait_seconds=5, close_event_only=True, token=page.next_page_token, run_id=reply.run_id)
        )
        await node.terminate()
        assert event_names((await reader).history.events) == ["workflow_execution_terminated"]


@in_virtual_time
async def test_who_does_not_wait_for_the_end_is_told_nothing_of_a_run_that_goes_on() -> None:
    async with running() as node:
        await with_signals(node, 1)
        page = await node.history(close_event_only=True)
        assert event_names(page.history.events) == []
        assert not page.next_page_token


@in_virtual_time
async def test_a_reader_of_a_run_that_is_deleted_hears_that_it_is_gone() -> None:
    async with running() as node:
        reply = await node.start_workflow()
        reader = await started(node.history(wait_seconds=30, close_event_only=True, run_id=reply.run_id))
        await node.submit("w", Delete(reply.run_id))
        with pytest.raises(NotFound):
            await reader


@in_virtual_time
async def test_backwards_it_is_the_same_history() -> None:
    async with running() as node:
        run_id = await with_signals(node, 3)
        request = GetWorkflowExecutionHistoryReverseRequest(
            execution=WorkflowExecution(workflow_id="w"), maximum_page_size=2
        )
        pages: list[list[int]] = []
        while True:
            reply = await node.engine.read_history_reverse(key_of("w"), request)
            assert isinstance(reply, bytes)
            page = GetWorkflowExecutionHistoryReverseResponse.FromString(reply)
            pages.append([event.event_id for event in page.history.events])
            if not page.next_page_token:
                break
            request.next_page_token = page.next_page_token
            request.execution.run_id = run_id
        assert pages == [[5, 4], [3, 2], [1]]


@in_virtual_time
async def test_a_store_that_cannot_be_read_is_said_to_be_so() -> None:
    async with running() as first:
        await with_signals(first, 0)
        node = await first.crash()
        node.store.reading_events.errors.append(unavailable())
        with pytest.raises(Unavailable):
            await node.history()
        assert len((await node.history()).history.events) == 2


@in_virtual_time
async def test_a_token_of_somebody_else_is_refused() -> None:
    async with running() as node:
        await with_signals(node, 0)
        with pytest.raises(InvalidArgument, match="NextPageToken"):
            await node.history(token=b"nonsense")


@in_virtual_time
async def test_nobody_waits_any_more_once_the_node_drains() -> None:
    async with running() as node:
        await with_signals(node, 0)
        first = await node.history(wait_seconds=30)
        readers = [
            await started(node.history(wait_seconds=30, token=first.next_page_token)),
            await started(node.history(wait_seconds=30, close_event_only=True)),
        ]
        await node.engine.drain()
        for reader in readers:
            page = await reader
            assert page.next_page_token
            assert len(page.history.events) == 0
        assert asyncio.get_running_loop().time() == 0


@in_virtual_time
async def test_a_reader_does_not_miss_what_becomes_durable_between_its_look_and_its_wait() -> None:
    """Its look waits for a heartbeat that is being written; a signal is written right after."""
    async with running() as node:
        await node.start_workflow()
        await node.complete(await node.poll(), schedule_activity())
        activity = await node.poll_activity()
        page = await node.history(wait_seconds=60)
        node.faults.before_commit.shut()
        heartbeat = await started(node.heartbeat(activity))
        reader = await started(node.history(wait_seconds=60, token=page.next_page_token))
        signal = await started(node.signal())
        node.faults.before_commit.open()
        await asyncio.gather(heartbeat, signal)
        await asyncio.sleep(0.1)
        assert reader.done()
        await reader
