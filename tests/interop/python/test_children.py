"""Parents and children with the official SDK: how children start and end, alone and with their parents."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from temporalio import workflow
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowFailureError, WorkflowHandle
from temporalio.common import RetryPolicy, SearchAttributeKey, SearchAttributePair, TypedSearchAttributes
from temporalio.common import WorkflowIDReusePolicy as Reuse
from temporalio.exceptions import (
    ApplicationError,
    CancelledError,
    ChildWorkflowError,
    TerminatedError,
    TimeoutError,
    WorkflowAlreadyStartedError,
)
from temporalio.workflow import ChildWorkflowCancellationType, ParentClosePolicy

from tests.interop.python.harness import event_names, events_of, eventually, fresh_id, only_event, worker

pytestmark = pytest.mark.process

KEYWORD = SearchAttributeKey.for_keyword("InteropKeyword")


@workflow.defn
class Leaf:
    """Ends as it is told: a result, a failure, or after it was continued; `wait` waits for ever."""

    @workflow.run
    async def run(self, how: str) -> str:
        match how:
            case "fail":
                raise ApplicationError("the leaf fell", "autumn", type="Autumn")
            case "wait":
                await workflow.wait_condition(lambda: False)
            case "continue":
                workflow.continue_as_new("from the next run")
            case "third time":
                if workflow.info().attempt < 3:
                    raise ApplicationError("not yet")
        return f"{how}, attempt {workflow.info().attempt}"


@workflow.defn
class Parent:
    """Runs one leaf and tells how it ended."""

    @workflow.run
    async def run(self, how: str, child_id: str) -> str:
        return await workflow.execute_child_workflow(Leaf.run, how, id=child_id)


@workflow.defn
class Describer:
    """Tells what a child knows of its family."""

    @workflow.run
    async def run(self) -> list[str]:
        info = workflow.info()
        parent, root = info.parent, info.root
        assert parent is not None
        assert root is not None
        return [parent.workflow_id, parent.run_id, root.workflow_id, root.run_id, info.task_queue]


@workflow.defn
class Family:
    """A parent whose child has a child, or without `deep` is it itself."""

    @workflow.run
    async def run(self, deep: bool) -> list[str]:
        if deep:
            return await workflow.execute_child_workflow(Family.run, False)
        return await workflow.execute_child_workflow(Describer.run)


@workflow.defn
class Leaver:
    """Starts a child that waits, and ends as it is told once the child runs."""

    @workflow.run
    async def run(self, child_id: str, policy: int, how: str) -> None:
        await workflow.start_child_workflow(
            Leaf.run, "wait", id=child_id, parent_close_policy=ParentClosePolicy(policy)
        )
        if how == "fail":
            raise ApplicationError("gone")
        if how == "continue":
            workflow.continue_as_new(args=[fresh_child(child_id), policy, "complete"])


def fresh_child(child_id: str) -> str:
    """Return the id of the next run's child."""
    return f"{child_id}-next"


@workflow.defn
class Canceller:
    """Cancels its child, with a cancellation type, and tells what it was told."""

    @workflow.run
    async def run(self, child_id: str, kind: int) -> str:
        child = await workflow.start_child_workflow(
            Leaf.run, "wait", id=child_id, cancellation_type=ChildWorkflowCancellationType(kind)
        )
        child.cancel()
        try:
            await child
        except ChildWorkflowError as error:
            assert isinstance(error.cause, CancelledError)
            return "cancelled"
        return "completed"


@workflow.defn
class Options:
    """Starts a child with everything that can be said about it."""

    @workflow.run
    async def run(self, child_id: str) -> str:
        return await workflow.execute_child_workflow(
            Leaf.run,
            "third time",
            id=child_id,
            retry_policy=RetryPolicy(initial_interval=timedelta(milliseconds=1), maximum_attempts=3),
            memo={"note": "handle with care"},
            search_attributes=TypedSearchAttributes([SearchAttributePair(KEYWORD, "leaf")]),
            static_summary="a leaf",
            run_timeout=timedelta(minutes=1),
        )


@workflow.defn
class Reuser:
    """Runs two children under one id and tells how the second start went."""

    @workflow.run
    async def run(self, child_id: str, reuse: int) -> str:
        await workflow.execute_child_workflow(Leaf.run, "one", id=child_id)
        try:
            return await workflow.execute_child_workflow(Leaf.run, "two", id=child_id, id_reuse_policy=Reuse(reuse))
        except WorkflowAlreadyStartedError:
            return "already started"


@workflow.defn
class Crowd:
    """Runs many children at once."""

    @workflow.run
    async def run(self, count: int) -> int:
        results = await asyncio.gather(
            *(workflow.execute_child_workflow(Leaf.run, str(number)) for number in range(count))
        )
        return len(set(results))


WORKFLOWS = [Leaf, Parent, Describer, Family, Leaver, Canceller, Options, Reuser, Crowd]


async def start_parent(client: Client, how: str, queue: str) -> tuple[WorkflowHandle[Parent, str], str]:
    child_id = fresh_id("leaf")
    handle = await client.start_workflow(Parent.run, args=[how, child_id], id=fresh_id("parent"), task_queue=queue)
    return handle, child_id


async def failure_of(handle: WorkflowHandle[Parent, str]) -> ChildWorkflowError:
    with pytest.raises(WorkflowFailureError) as raised:
        await handle.result()
    assert isinstance(raised.value.cause, ChildWorkflowError)
    return raised.value.cause


async def closed_status(client: Client, workflow_id: str) -> WorkflowExecutionStatus:
    """Wait until a workflow has closed and return how."""

    async def look() -> WorkflowExecutionStatus | None:
        status = (await client.get_workflow_handle(workflow_id).describe()).status
        return None if status is WorkflowExecutionStatus.RUNNING else status

    return await eventually(look)


async def is_running(client: Client, workflow_id: str) -> None:
    async def look() -> bool | None:
        description = await client.get_workflow_handle(workflow_id).describe()
        return description.history_length > 2 or None

    await eventually(look)


async def test_the_history_of_a_parent_is_that_of_temporals_server(client: Client) -> None:
    async with worker(client, workflows=WORKFLOWS) as running:
        handle, child_id = await start_parent(client, "a result", running.task_queue)
        assert await handle.result() == "a result, attempt 1"
        names = await event_names(handle)
    assert [name for name in names if "WorkflowTask" not in name] == [
        "WorkflowExecutionStarted",
        "StartChildWorkflowExecutionInitiated",
        "ChildWorkflowExecutionStarted",
        "ChildWorkflowExecutionCompleted",
        "WorkflowExecutionCompleted",
    ]
    started = await only_event(handle, "ChildWorkflowExecutionStarted")
    child = await client.get_workflow_handle(child_id).describe()
    attributes = started.child_workflow_execution_started_event_attributes
    assert attributes.workflow_execution.run_id == child.run_id
    assert attributes.initiated_event_id == 5
    completed = await only_event(handle, "ChildWorkflowExecutionCompleted")
    assert completed.child_workflow_execution_completed_event_attributes.started_event_id == started.event_id
    assert child.parent_id == handle.id


async def test_a_child_knows_its_parent_and_its_root(client: Client) -> None:
    async with worker(client, workflows=WORKFLOWS) as running:
        handle = await client.start_workflow(Family.run, True, id=fresh_id("family"), task_queue=running.task_queue)
        parent_id, parent_run_id, root_id, root_run_id, queue = await handle.result()
    assert (root_id, root_run_id) == (handle.id, handle.first_execution_run_id)
    assert parent_id != handle.id
    assert queue == running.task_queue
    middle = await client.get_workflow_handle(parent_id, run_id=parent_run_id).describe()
    assert middle.parent_id == handle.id


async def test_a_failure_is_told_with_its_cause(client: Client) -> None:
    async with worker(client, workflows=WORKFLOWS) as running:
        handle, child_id = await start_parent(client, "fail", running.task_queue)
        error = await failure_of(handle)
    assert (error.workflow_id, error.workflow_type) == (child_id, "Leaf")
    assert isinstance(error.cause, ApplicationError)
    assert (error.cause.message, error.cause.type, error.cause.details) == ("the leaf fell", "Autumn", ("autumn",))


async def test_a_termination_is_told(client: Client) -> None:
    async with worker(client, workflows=WORKFLOWS) as running:
        handle, child_id = await start_parent(client, "wait", running.task_queue)
        await eventually(lambda: exists(client, child_id))
        await client.get_workflow_handle(child_id).terminate("enough")
        assert isinstance((await failure_of(handle)).cause, TerminatedError)


async def exists(client: Client, workflow_id: str) -> bool | None:
    found = [each async for each in client.list_workflows(f'WorkflowId = "{workflow_id}"')]
    return bool(found) or None


async def test_a_taken_id_is_told(client: Client) -> None:
    async with worker(client, workflows=WORKFLOWS) as running:
        other = await client.start_workflow(Leaf.run, "wait", id=fresh_id("leaf"), task_queue=running.task_queue)
        handle = await client.start_workflow(
            Parent.run, args=["x", other.id], id=fresh_id("parent"), task_queue=running.task_queue
        )
        with pytest.raises(WorkflowFailureError) as raised:
            await handle.result()
        assert isinstance(raised.value.cause, ApplicationError) or "already" in str(raised.value.cause)
        assert "StartChildWorkflowExecutionFailed" in await event_names(handle)
        await other.terminate()


async def test_the_result_of_a_chain_is_that_of_its_last_run(client: Client) -> None:
    async with worker(client, workflows=WORKFLOWS) as running:
        handle, child_id = await start_parent(client, "continue", running.task_queue)
        assert await handle.result() == "from the next run, attempt 1"
        completed = await only_event(handle, "ChildWorkflowExecutionCompleted")
        last = await client.get_workflow_handle(child_id).describe()
    execution = completed.child_workflow_execution_completed_event_attributes.workflow_execution
    assert execution.run_id == last.run_id
    assert last.parent_id == handle.id


async def test_what_a_parent_says_of_its_child_reaches_it(client: Client) -> None:
    async with worker(client, workflows=WORKFLOWS) as running:
        child_id = fresh_id("leaf")
        handle = await client.start_workflow(
            Options.run, child_id, id=fresh_id("parent"), task_queue=running.task_queue
        )
        assert await handle.result() == "third time, attempt 3"
        child = await client.get_workflow_handle(child_id).describe()
    assert await child.memo() == {"note": "handle with care"}
    assert child.typed_search_attributes[KEYWORD] == "leaf"
    assert child.parent_id == handle.id
    history = await events_of(handle)
    assert b"a leaf" in history[4].user_metadata.summary.data


@pytest.mark.parametrize(
    ("policy", "status"),
    [
        (ParentClosePolicy.TERMINATE, WorkflowExecutionStatus.TERMINATED),
        (ParentClosePolicy.REQUEST_CANCEL, WorkflowExecutionStatus.CANCELED),
        (ParentClosePolicy.ABANDON, None),
    ],
)
@pytest.mark.parametrize("how", ["complete", "fail", "continue"])
async def test_a_child_ends_by_its_policy_when_its_parent_does(
    client: Client, policy: ParentClosePolicy, status: WorkflowExecutionStatus | None, how: str
) -> None:
    async with worker(client, workflows=WORKFLOWS) as running:
        child_id = fresh_id("leaf")
        handle = await client.start_workflow(
            Leaver.run, args=[child_id, int(policy), how], id=fresh_id("parent"), task_queue=running.task_queue
        )
        try:
            await handle.result()
        except WorkflowFailureError:
            assert how == "fail"
        if status is not None:
            assert await closed_status(client, child_id) is status
            return
        await is_running(client, child_id)
        child = client.get_workflow_handle(child_id)
        assert (await child.describe()).status is WorkflowExecutionStatus.RUNNING
        await child.terminate()


@pytest.mark.parametrize("kind", list(ChildWorkflowCancellationType))
async def test_every_way_to_cancel_a_child(client: Client, kind: ChildWorkflowCancellationType) -> None:
    async with worker(client, workflows=WORKFLOWS) as running:
        child_id = fresh_id("leaf")
        handle = await client.start_workflow(
            Canceller.run, args=[child_id, int(kind)], id=fresh_id("parent"), task_queue=running.task_queue
        )
        assert await handle.result() == "cancelled"
        status = await closed_status(client, child_id)
    # What is not told to cancel, or not waited for, may meet the parent's end first.
    assert status in (WorkflowExecutionStatus.CANCELED, WorkflowExecutionStatus.TERMINATED)
    names = await event_names(handle)
    asks = kind is not ChildWorkflowCancellationType.ABANDON
    assert ("RequestCancelExternalWorkflowExecutionInitiated" in names) is asks


@pytest.mark.parametrize(
    ("reuse", "result"),
    [(Reuse.ALLOW_DUPLICATE, "two, attempt 1"), (Reuse.REJECT_DUPLICATE, "already started")],
)
async def test_reuse_policies_hold_for_children(client: Client, reuse: Reuse, result: str) -> None:
    async with worker(client, workflows=WORKFLOWS) as running:
        args = [fresh_id("leaf"), int(reuse)]
        handle = await client.start_workflow(
            Reuser.run, args=args, id=fresh_id("parent"), task_queue=running.task_queue
        )
        assert await handle.result() == result


async def test_many_children_at_once(client: Client) -> None:
    async with worker(client, workflows=WORKFLOWS) as running:
        handle = await client.start_workflow(Crowd.run, 100, id=fresh_id("crowd"), task_queue=running.task_queue)
        assert await handle.result() == 100


async def test_a_pending_child_is_described(client: Client) -> None:
    async with worker(client, workflows=WORKFLOWS) as running:
        handle, child_id = await start_parent(client, "wait", running.task_queue)
        await eventually(lambda: exists(client, child_id))

        async def look() -> str | None:
            [pending] = (await handle.describe()).raw_description.pending_children
            assert (pending.workflow_id, pending.workflow_type_name, pending.initiated_id) == (child_id, "Leaf", 5)
            return pending.run_id or None

        assert await eventually(look) == (await client.get_workflow_handle(child_id).describe()).run_id
        await handle.terminate()
        assert await closed_status(client, child_id) is WorkflowExecutionStatus.TERMINATED


async def test_a_timeout_is_told(client: Client) -> None:
    async with worker(client, workflows=[*WORKFLOWS, Impatient]) as running:
        handle = await client.start_workflow(Impatient.run, id=fresh_id("parent"), task_queue=running.task_queue)
        assert await handle.result() == "timed out"


@workflow.defn
class Impatient:
    """Gives its child half a second."""

    @workflow.run
    async def run(self) -> str:
        try:
            return await workflow.execute_child_workflow(Leaf.run, "wait", run_timeout=timedelta(seconds=0.5))
        except ChildWorkflowError as error:
            assert isinstance(error.cause, TimeoutError)
            return "timed out"
