"""Rule 1: nothing leaves the process before the batch it depends on is durable. Refusals, reads and tasks wait too."""

from __future__ import annotations

import pytest

from perdure.server.core.errors import AlreadyExists, NotFound, Unavailable
from tests.server.engine.node import (
    complete_workflow,
    event_names,
    running,
    schedule_activity,
    started,
    unavailable,
)
from tests.virtual_time import in_virtual_time, settle


@in_virtual_time
async def test_a_start_is_answered_when_it_is_durable() -> None:
    async with running() as node:
        node.faults.before_commit.shut()
        start = await started(node.start_workflow())
        assert not start.done()
        node.faults.before_commit.open()
        reply = await start
        assert node.stored_events(reply.run_id) == ["workflow_execution_started", "workflow_task_scheduled"]


@in_virtual_time
async def test_a_start_is_not_answered_while_the_commit_is_on_its_way_back() -> None:
    async with running() as node:
        node.faults.after_commit.shut()
        start = await started(node.start_workflow())
        assert not start.done()
        node.faults.after_commit.open()
        await start


@in_virtual_time
async def test_a_refusal_waits_for_what_it_is_about() -> None:
    async with running() as node:
        node.faults.before_commit.shut()
        start = await started(node.start_workflow(request_id="one"))
        refused = await started(node.start_workflow(request_id="two"))
        assert not refused.done()
        node.faults.before_commit.open()
        await start
        with pytest.raises(AlreadyExists):
            await refused


@in_virtual_time
async def test_nobody_is_told_of_a_run_whose_start_then_failed() -> None:
    async with running() as node:
        node.faults.before_commit.errors.append(unavailable())
        node.faults.before_commit.shut()
        start = await started(node.start_workflow(request_id="one"))
        refused = await started(node.start_workflow(request_id="two"))
        read = await started(node.locate())
        node.faults.before_commit.open()
        for call in (start, refused, read):
            with pytest.raises(Unavailable):
                await call


@in_virtual_time
async def test_a_read_waits_for_the_last_change_it_has_seen() -> None:
    async with running() as node:
        await node.start_workflow()
        node.faults.before_commit.shut()
        signal = await started(node.signal())
        read = await started(node.locate())
        assert not read.done()
        node.faults.before_commit.open()
        await signal
        assert (await read).next_event_id == 4


@in_virtual_time
async def test_a_refusal_that_follows_from_a_change_waits_for_it() -> None:
    async with running() as node:
        await node.start_workflow()
        node.faults.before_commit.errors.append(unavailable())
        node.faults.before_commit.shut()
        terminate = await started(node.terminate())
        too_late = await started(node.signal())
        assert not too_late.done()
        node.faults.before_commit.open()
        for call in (terminate, too_late):
            with pytest.raises(Unavailable):
                await call
        await node.signal()
        await node.terminate()
        with pytest.raises(NotFound):
            await node.signal()


@in_virtual_time
async def test_a_rejected_query_waits_for_the_end_it_is_rejected_for() -> None:
    async with running() as node:
        await node.start_workflow()
        node.faults.before_commit.errors.append(unavailable())
        node.faults.before_commit.shut()
        terminate = await started(node.terminate())
        query = await started(node.query(reject_condition=2))
        assert not query.done()
        node.faults.before_commit.open()
        for call in (terminate, query):
            with pytest.raises(Unavailable):
                await call


@in_virtual_time
async def test_a_task_is_offered_when_it_is_durable() -> None:
    async with running() as node:
        node.faults.before_commit.shut()
        poll = await started(node.poll())
        start = await started(node.start_workflow())
        assert not poll.done()
        node.faults.before_commit.open()
        reply = await start
        assert (await poll).workflow_execution.run_id == reply.run_id


@in_virtual_time
async def test_a_task_is_handed_out_when_all_it_is_about_is_durable() -> None:
    async with running() as node:
        await node.start_workflow()
        node.faults.before_commit.shut()
        signal = await started(node.signal())
        poll = await started(node.poll())
        assert not poll.done()
        node.faults.before_commit.open()
        await signal
        names = event_names((await poll).history.events)
        assert names[-2:] == ["workflow_execution_signaled", "workflow_task_started"]


@in_virtual_time
async def test_an_activity_is_handed_out_when_its_start_is_durable() -> None:
    async with running() as node:
        reply = await node.start_workflow()
        await node.complete(await node.poll(), schedule_activity())
        node.faults.before_commit.shut()
        poll = await started(node.poll_activity())
        assert not poll.done()
        node.faults.before_commit.open()
        task = await poll
        pending = node.database.tables.pending[reply.run_id].activities[5]
        assert (task.attempt, pending.status) == (1, "started")


@in_virtual_time
async def test_what_goes_with_a_completion_waits_for_it() -> None:
    async with running() as node:
        await node.start_workflow()
        task = await node.poll()
        node.faults.before_commit.shut()
        completion = await started(node.complete(task, schedule_activity(eager=True)))
        assert not completion.done()
        node.faults.before_commit.open()
        assert len((await completion).activity_tasks) == 1


@in_virtual_time
async def test_those_who_wait_for_the_end_hear_of_it_when_it_is_durable() -> None:
    async with running() as node:
        await node.start_workflow()
        task = await node.poll()
        reader = await started(node.history(wait_seconds=30, close_event_only=True))
        node.faults.before_commit.shut()
        completion = await started(node.complete(task, complete_workflow()))
        await settle()
        assert not reader.done()
        node.faults.before_commit.open()
        await completion
        assert event_names((await reader).history.events) == ["workflow_execution_completed"]


@in_virtual_time
async def test_the_answer_of_a_query_waits_for_the_completion_it_came_with() -> None:
    async with running() as node:
        await node.start_workflow()
        query = await started(node.query())
        task = await node.poll()
        node.faults.before_commit.shut()
        completion = await started(node.complete(task, answers=dict.fromkeys(task.queries, b"1")))
        assert not query.done()
        node.faults.before_commit.open()
        await completion
        assert (await query).query_result.payloads[0].data == b"1"
