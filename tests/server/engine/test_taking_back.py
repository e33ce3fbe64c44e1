"""A worker goes away between the match and the reply: what it was given is taken back and offered again at once."""

from __future__ import annotations

import asyncio

import pytest

from perdure.server.core.errors import NotFound, Unavailable
from tests.server.engine.node import Node, running, schedule_activity, started, unavailable
from tests.virtual_time import elapsed, in_virtual_time, settle


async def hang_up(call: asyncio.Task[object]) -> None:
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call


async def with_ready_activity(node: Node) -> str:
    reply = await node.start_workflow()
    await node.complete(await node.poll(), schedule_activity(attempts=1))
    return reply.run_id


@pytest.mark.parametrize("gate", ["before_commit", "after_commit"])
def test_the_start_of_an_activity_is_taken_back(gate: str) -> None:
    @in_virtual_time
    async def test() -> None:
        async with running() as node:
            await with_ready_activity(node)
            commit = getattr(node.faults, gate)
            commit.shut()
            poll = await started(node.poll_activity())
            assert commit.waiting == 1, "the activity is not being started"
            await hang_up(poll)
            commit.open()
            task = await node.poll_activity(wait_seconds=5)
            assert task.attempt == 1
            assert asyncio.get_running_loop().time() < 1
            await node.complete_activity(task)

    test()


@in_virtual_time
async def test_a_token_that_was_taken_back_is_void() -> None:
    async with running() as node:
        run_id = await with_ready_activity(node)
        task = await node.poll_activity()
        await node.return_activity(task)
        again = await node.poll_activity(wait_seconds=5)
        assert again.attempt == 1
        with pytest.raises(NotFound):
            await node.complete_activity(task)
        await node.complete_activity(again)
        assert node.stored_events(run_id).count("activity_task_started") == 1


@in_virtual_time
async def test_the_start_of_a_workflow_task_is_taken_back() -> None:
    """The history is being read when the worker goes."""
    async with running() as first:
        await first.start_workflow()
        node = await first.crash()
        node.store.reading_events.shut()
        poll = await started(node.poll())
        assert node.store.reading_events.waiting == 1
        await hang_up(poll)
        node.store.reading_events.open()
        assert await elapsed(node.poll(wait_seconds=5)) < 1


@in_virtual_time
async def test_a_start_that_waited_for_another_change_is_taken_back() -> None:
    async with running() as node:
        await node.start_workflow()
        node.faults.before_commit.shut()
        signal = await started(node.signal())
        await hang_up(await started(node.poll()))
        node.faults.before_commit.open()
        await signal
        task = await node.poll(wait_seconds=5)
        assert task.task_token
        assert asyncio.get_running_loop().time() < 1


@in_virtual_time
async def test_a_poll_that_leaves_while_its_run_is_loaded_gives_the_offer_back() -> None:
    async with running() as first:
        await first.start_workflow()
        node = await first.crash()
        node.store.loading.shut()
        await hang_up(await started(node.poll()))
        node.store.loading.open()
        assert await elapsed(node.poll(wait_seconds=5)) < 1


@in_virtual_time
async def test_what_was_to_go_with_a_completion_is_taken_back() -> None:
    """The worker hangs up while its completion is written: the activity it wanted and the next task go to others."""
    async with running() as node:
        await node.start_workflow()
        task = await node.poll()
        await node.signal()
        node.faults.before_commit.shut()
        completion = await started(node.complete(task, schedule_activity(eager=True), return_next=True))
        await hang_up(completion)
        node.faults.before_commit.open()
        await settle()
        assert (await node.poll_activity(wait_seconds=5)).attempt == 1
        assert (await node.poll(wait_seconds=5)).task_token
        assert asyncio.get_running_loop().time() < 1


@in_virtual_time
async def test_what_was_handed_over_is_never_taken_back() -> None:
    async with running() as node:
        await with_ready_activity(node)
        poll = await started(node.poll_activity())
        assert poll.done()
        poll.cancel()
        task = await poll
        assert not (await node.poll_activity(wait_seconds=50)).task_token
        await node.complete_activity(task)


@in_virtual_time
async def test_a_poll_goes_on_after_a_start_that_could_not_be_stored() -> None:
    async with running() as node:
        await with_ready_activity(node)
        node.faults.before_commit.errors += [unavailable()] * 3
        task = await node.poll_activity(wait_seconds=30)
        assert task.attempt == 1
        await node.complete_activity(task)


@in_virtual_time
async def test_a_sticky_task_that_was_taken_back_still_leaves_its_queue_in_time() -> None:
    """The worker that polled the sticky queue is gone; nobody else polls it."""
    async with running() as node:
        await node.start_workflow()
        await node.poll(sticky="sticky", wait_seconds=0)
        await node.complete(await node.poll(), sticky="sticky")
        sticky_poll = await started(node.poll(sticky="sticky"))
        await node.signal()
        await node.return_workflow_task(await sticky_poll)
        assert await elapsed(node.poll(wait_seconds=60)) <= 5.1


@in_virtual_time
async def test_what_was_to_go_with_a_completion_is_taken_back_where_its_history_cannot_be_read() -> None:
    """The completion is durable, the worker is told of an error: what was meant for it goes to others at once."""
    async with running() as node:
        await node.start_workflow()
        task = await node.poll()
        await node.signal()
        large = [schedule_activity(f"large {number}", eager=True) for number in range(3)]
        for command in large:
            # Together more than a run keeps in memory of its history.
            command.schedule_activity_task_command_attributes.input.payloads.add(data=bytes(600_000))
        node.store.reading_events.errors.append(unavailable())
        with pytest.raises(Unavailable):
            await node.complete(task, *large, return_next=True)
        assert (await node.poll_activity(wait_seconds=5)).attempt == 1
        assert (await node.poll(wait_seconds=5)).task_token
        assert asyncio.get_running_loop().time() < 1


@in_virtual_time
async def test_an_eager_first_task_is_taken_back_where_its_client_hung_up() -> None:
    async with running() as node:
        node.faults.before_commit.shut()
        start = await started(node.start_workflow(eager=True))
        await hang_up(start)
        node.faults.before_commit.open()
        assert (await node.poll(wait_seconds=5)).task_token
        assert asyncio.get_running_loop().time() < 1


@in_virtual_time
async def test_an_eager_first_task_that_went_out_already_is_not_taken_back() -> None:
    async with running() as node:
        first = await node.start_workflow(eager=True)
        node.faults.before_commit.shut()
        signal = await started(node.signal())
        repeated = await started(node.start_workflow(eager=True))
        await hang_up(repeated)
        node.faults.before_commit.open()
        await signal
        await settle()
        assert first.eager_task is not None
        await node.complete(await node.engine.with_history(first.eager_task))
