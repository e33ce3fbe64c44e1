"""Runs that follow one another under one workflow id: continue-as-new, workflow retry and cron."""

from __future__ import annotations

from datetime import timedelta

import pytest
from temporalio import workflow
from temporalio.api.enums.v1 import ContinueAsNewInitiator
from temporalio.api.history.v1 import HistoryEvent, WorkflowExecutionStartedEventAttributes
from temporalio.client import Client, WorkflowExecutionDescription, WorkflowExecutionStatus, WorkflowHandle
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError

from tests.interop.python.harness import T, event_name, events_of, eventually, fresh_id, worker

pytestmark = pytest.mark.process


@workflow.defn
class CountDown:
    """Continues as new until nothing is left."""

    @workflow.run
    async def run(self, left: int) -> str:
        if left > 0:
            workflow.continue_as_new(left - 1)
        return workflow.info().first_execution_run_id


@workflow.defn
class ThirdTimeLucky:
    """Fails in its first two runs."""

    @workflow.run
    async def run(self) -> int:
        attempt = workflow.info().attempt
        if attempt < 3:
            raise ApplicationError(f"run {attempt} failed")
        return attempt


@workflow.defn
class Tally:
    """Adds one to the result of the run before."""

    @workflow.run
    async def run(self) -> int:
        return 1 + (workflow.get_last_completion_result(int) or 0)


async def chain(client: Client, first: WorkflowHandle[T, object]) -> list[list[HistoryEvent]]:
    """Return the histories of all runs of a workflow, first to last."""
    run_id = first.first_execution_run_id or ""
    histories = []
    while run_id:
        histories.append(await events_of(client.get_workflow_handle(first.id, run_id=run_id)))
        closing = histories[-1][-1]
        run_id = (
            closing.workflow_execution_continued_as_new_event_attributes.new_execution_run_id
            or closing.workflow_execution_failed_event_attributes.new_execution_run_id
        )
    return histories


def started(history: list[HistoryEvent]) -> WorkflowExecutionStartedEventAttributes:
    return history[0].workflow_execution_started_event_attributes


async def test_continue_as_new_makes_a_chain_of_runs(client: Client) -> None:
    async with worker(client, workflows=[CountDown]) as running:
        handle = await client.start_workflow(CountDown.run, 2, id=fresh_id("count"), task_queue=running.task_queue)
        assert await handle.result() == handle.first_execution_run_id
    histories = await chain(client, handle)
    assert [event_name(history[-1]) for history in histories] == [
        "WorkflowExecutionContinuedAsNew",
        "WorkflowExecutionContinuedAsNew",
        "WorkflowExecutionCompleted",
    ]
    assert {started(history).first_execution_run_id for history in histories} == {handle.first_execution_run_id}
    run_ids = [started(history).original_execution_run_id for history in histories]
    assert len(set(run_ids)) == 3
    assert [started(history).continued_execution_run_id for history in histories] == ["", *run_ids[:2]]
    first = client.get_workflow_handle(handle.id, run_id=handle.first_execution_run_id)
    assert (await first.describe()).status == WorkflowExecutionStatus.CONTINUED_AS_NEW


async def test_a_failed_workflow_is_retried_as_a_new_run(client: Client) -> None:
    async with worker(client, workflows=[ThirdTimeLucky]) as running:
        handle = await client.start_workflow(
            ThirdTimeLucky.run,
            id=fresh_id("lucky"),
            task_queue=running.task_queue,
            retry_policy=RetryPolicy(initial_interval=timedelta(milliseconds=50), backoff_coefficient=1.0),
        )
        assert await handle.result() == 3
    histories = await chain(client, handle)
    assert [event_name(history[-1]) for history in histories] == [
        "WorkflowExecutionFailed",
        "WorkflowExecutionFailed",
        "WorkflowExecutionCompleted",
    ]
    assert [started(history).attempt for history in histories] == [1, 2, 3]
    assert [started(history).continued_failure.message for history in histories] == [
        "",
        "run 1 failed",
        "run 2 failed",
    ]
    assert {started(history).initiator for history in histories[1:]} == {
        ContinueAsNewInitiator.CONTINUE_AS_NEW_INITIATOR_RETRY
    }
    backoff = started(histories[1]).first_workflow_task_backoff.ToTimedelta()
    # Temporal lets a second pass between the starts of two runs, whatever the retry policy says.
    assert timedelta(milliseconds=50) <= backoff <= timedelta(seconds=1)


async def test_a_cron_workflow_starts_again_and_knows_the_last_result(client: Client) -> None:
    async with worker(client, workflows=[Tally]) as running:
        handle = await client.start_workflow(
            Tally.run, id=fresh_id("cron"), task_queue=running.task_queue, cron_schedule="@every 1s"
        )
        current = client.get_workflow_handle(handle.id)

        async def third_run() -> WorkflowExecutionDescription | None:
            first = await events_of(current)
            knows = started(first).last_completion_result.payloads
            return await current.describe() if knows and knows[0].data == b"2" else None

        described = await eventually(third_run)
        await current.terminate()
    assert described.run_id != handle.first_execution_run_id
    first_run = await events_of(client.get_workflow_handle(handle.id, run_id=handle.first_execution_run_id))
    assert event_name(first_run[-1]) in ("WorkflowExecutionCompleted", "WorkflowExecutionContinuedAsNew")
    assert started(first_run).first_workflow_task_backoff.ToTimedelta() > timedelta()
