"""Queries end with their callers: nothing of them stays with the run, and none is lost with a poller."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from temporalio.api.enums.v1 import QueryResultType
from temporalio.api.errordetails.v1 import QueryFailedFailure
from temporalio.api.failure.v1 import Failure
from temporalio.api.query.v1 import WorkflowQueryResult

from perdure.server.core.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
)
from perdure.server.core.inputs import AnswerQuery, Delete
from perdure.server.core.tokens import decode_query
from perdure.server.engine.matching import MatcherSettings
from perdure.server.engine.settings import EngineSettings
from tests.server.engine.node import Node, key_of, running, started, unavailable
from tests.virtual_time import in_virtual_time, settle


async def idle_run(node: Node) -> str:
    """Start a workflow whose first task is done: its queries go to the workers by themselves."""
    reply = await node.start_workflow()
    await node.complete(await node.poll())
    return reply.run_id


def pending_queries(node: Node) -> list[str]:
    entity = node.engine._cache.peek(key_of("w"))
    assert entity is not None
    return [query_id for run in entity.runs.values() for query_id in run.queries.pending]


@in_virtual_time
async def test_a_query_nobody_answered_in_time_is_withdrawn() -> None:
    async with running() as node:
        await idle_run(node)
        with pytest.raises(DeadlineExceeded):
            await node.query(wait_seconds=3)
        await settle()
        assert pending_queries(node) == []


@in_virtual_time
async def test_queries_nobody_answered_do_not_use_up_the_room_for_others() -> None:
    async with running() as node:
        await node.start_workflow()
        most = node.engine.settings.limits.buffered_queries
        for _ in range(2):
            asked = [asyncio.create_task(node.query(wait_seconds=1)) for _ in range(most)]
            answers = await asyncio.gather(*asked, return_exceptions=True)
            assert {type(answer) for answer in answers} == {DeadlineExceeded}


@in_virtual_time
async def test_a_query_whose_caller_hung_up_is_withdrawn() -> None:
    async with running() as node:
        await idle_run(node)
        query = await started(node.query())
        assert len(pending_queries(node)) == 1
        query.cancel()
        await settle()
        assert pending_queries(node) == []


@in_virtual_time
async def test_a_query_its_task_queue_has_no_room_for_is_withdrawn() -> None:
    async with running(EngineSettings(matcher=MatcherSettings(max_queries=1))) as node:
        await idle_run(node)
        first = await started(node.query())
        with pytest.raises(ResourceExhausted):
            await node.query()
        await settle()
        assert len(pending_queries(node)) == 1
        first.cancel()


@in_virtual_time
async def test_a_query_of_nothing_does_not_load_it_twice() -> None:
    async with running() as node:
        with pytest.raises(NotFound):
            await node.query("unknown")
        await settle()
        assert node.store.loads == [[key_of("unknown")]]


@in_virtual_time
async def test_the_callers_of_a_run_that_is_deleted_are_told_at_once() -> None:
    async with running() as node:
        run_id = await idle_run(node)
        query = await started(node.query())
        await node.submit("w", Delete(run_id))
        await settle()
        assert query.done()
        with pytest.raises(InvalidArgument, match="deleted"):
            await query


@in_virtual_time
async def test_a_query_goes_to_another_poll_where_the_first_one_hung_up() -> None:
    async with running() as first:
        await idle_run(first)
        node = await first.crash()
        node.store.reading_events.shut()
        poll = await started(node.poll())
        query = await started(node.query())
        assert node.store.reading_events.waiting == 1, "the query is not on its way"
        poll.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await poll
        node.store.reading_events.open()
        task = await node.poll(wait_seconds=1)
        assert task.query.query_type == "query"
        query.cancel()


@in_virtual_time
async def test_a_query_is_given_out_again_where_its_history_could_not_be_read() -> None:
    async with running() as first:
        await idle_run(first)
        node = await first.crash()
        node.store.reading_events.errors.append(unavailable())
        query = await started(node.query())
        task = await node.poll(wait_seconds=1)
        assert task.query.query_type == "query"
        query.cancel()


@in_virtual_time
async def test_a_query_waits_for_a_delayed_first_task_as_long_as_its_caller() -> None:
    async with running() as node:
        await node.start_workflow(delay_seconds=20)
        with pytest.raises(FailedPrecondition, match="not scheduled yet"):
            await node.query(wait_seconds=19)
        query = await started(node.query(wait_seconds=21))
        task = await node.poll(wait_seconds=30)
        assert len(task.queries) == 1
        query.cancel()


@in_virtual_time
async def test_a_query_whose_caller_hung_up_before_it_was_offered_leaves_nothing() -> None:
    """It waits for a batch that it has seen; when that is written, nobody waits for the answer any more."""
    async with running() as node:
        await node.start_workflow()
        task = await node.poll()
        node.faults.before_commit.shut()
        completion = await started(node.complete(task))
        query = await started(node.query())
        query.cancel()
        await settle()
        node.faults.before_commit.open()
        await completion
        await settle()
        assert pending_queries(node) == []
        assert node.engine._queries._queues == {}


@in_virtual_time
async def test_the_caller_is_told_the_failure_of_its_query() -> None:
    async with running() as node:
        await idle_run(node)
        asked = await started(node.query())
        token = decode_query((await node.poll()).task_token)
        failure = Failure(message="no such query")
        result = WorkflowQueryResult(
            result_type=QueryResultType.QUERY_RESULT_TYPE_FAILED, error_message="failed", failure=failure
        )
        await node.submit("w", AnswerQuery(token.run_id, token.query_id, result))
        with pytest.raises(InvalidArgument, match="failed") as failed:
            await asked
        assert failed.value.detail == QueryFailedFailure(failure=failure)
