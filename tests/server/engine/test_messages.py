"""Messages through the whole engine: whatever fails at whichever moment, both sides are told once."""

from __future__ import annotations

import asyncio

from temporalio.api.command.v1 import Command
from temporalio.api.common.v1 import WorkflowType
from temporalio.api.enums.v1 import CommandType

from perdure.server.core.inputs import Delete
from perdure.server.engine.settings import EngineSettings
from tests.server.engine.node import Node, complete_workflow, key_of, running, started, unavailable
from tests.virtual_time import in_virtual_time, settle

SIGNALED = "external_workflow_execution_signaled"


def signal_external(workflow_id: str = "other", name: str = "ping") -> Command:
    command = Command(command_type=CommandType.COMMAND_TYPE_SIGNAL_EXTERNAL_WORKFLOW_EXECUTION)
    attributes = command.signal_external_workflow_execution_command_attributes
    attributes.execution.workflow_id = workflow_id
    attributes.signal_name = name
    return command


def start_child(workflow_id: str = "child") -> Command:
    command = Command(command_type=CommandType.COMMAND_TYPE_START_CHILD_WORKFLOW_EXECUTION)
    attributes = command.start_child_workflow_execution_command_attributes
    attributes.workflow_id = workflow_id
    attributes.workflow_type.CopyFrom(WorkflowType(name="child type"))
    return command


def is_quiet(node: Node) -> bool:
    """Whether no message is left anywhere."""
    tables = node.database.tables
    return not tables.outbox and not tables.inbox


async def two(node: Node) -> tuple[str, str]:
    """Start `me` and `other`; return their run ids, with the first task of `me` next in the queue."""
    me = await node.start_workflow("me")
    other = await node.start_workflow("other")
    return me.run_id, other.run_id


def signals(node: Node, run_id: str) -> int:
    return node.stored_events(run_id).count("workflow_execution_signaled")


@in_virtual_time
async def test_a_signal_reaches_another_workflow_and_its_sender_hears_of_it() -> None:
    async with running() as node:
        me, other = await two(node)
        await node.complete(await node.poll(), signal_external())
        await settle()
        assert signals(node, other) == 1
        assert node.stored_events(me)[-2:] == [SIGNALED, "workflow_task_scheduled"]
        assert is_quiet(node)


@in_virtual_time
async def test_a_family_lives_and_ends() -> None:
    async with running() as node:
        parent = await node.start_workflow("parent")
        await node.complete(await node.poll(), start_child())
        tasks = [await node.poll(), await node.poll()]
        child = next(task for task in tasks if task.workflow_execution.workflow_id == "child")
        await node.complete(child, complete_workflow())
        await settle()
        task = next(task for task in tasks if task is not child)
        await node.complete(task)
        assert node.stored_events(parent.run_id)[-2:] == [
            "child_workflow_execution_completed",
            "workflow_task_scheduled",
        ]
        assert is_quiet(node)


@in_virtual_time
async def test_nothing_leaves_before_the_sender_is_durable() -> None:
    async with running() as node:
        _, other = await two(node)
        task = await node.poll()
        node.faults.before_commit.shut()
        completion = await started(node.complete(task, signal_external()))
        await settle()
        assert len(node.faults.batches) == 3
        node.faults.before_commit.errors.append(unavailable())
        node.faults.before_commit.open()
        await asyncio.gather(completion, return_exceptions=True)
        await asyncio.sleep(5)
        assert signals(node, other) == 0
        assert is_quiet(node)


@in_virtual_time
async def test_a_delivery_that_could_not_be_stored_is_made_again() -> None:
    async with running() as node:
        me, other = await two(node)
        task = await node.poll()
        node.faults.before_commit.errors += [None, unavailable(), unavailable()]
        await node.complete(task, signal_external())
        await asyncio.sleep(5)
        assert signals(node, other) == 1
        assert node.stored_events(me)[-2] == SIGNALED
        assert is_quiet(node)


@in_virtual_time
async def test_an_acknowledgement_that_could_not_be_stored_is_made_again() -> None:
    async with running() as node:
        me, other = await two(node)
        task = await node.poll()
        node.faults.before_commit.errors += [None, None, unavailable()]
        await node.complete(task, signal_external())
        await asyncio.sleep(5)
        assert signals(node, other) == 1
        assert node.stored_events(me).count(SIGNALED) == 1
        assert is_quiet(node)


@in_virtual_time
async def test_a_crash_before_the_delivery_loses_nothing() -> None:
    async with running() as node:
        me, other = await two(node)
        task = await node.poll()
        node.faults.after_commit.shut()
        await started(node.complete(task, signal_external()))
        successor = await node.crash()
        await settle()
        assert signals(successor, other) == 1
        assert successor.stored_events(me)[-2] == SIGNALED
        assert is_quiet(successor)


@in_virtual_time
async def test_a_crash_between_effect_and_acknowledgement_repeats_no_effect() -> None:
    """The effect is durable, nobody was told: the next process delivers again and is answered from the inbox."""
    async with running() as node:
        me, other = await two(node)
        task = await node.poll()
        node.faults.after_commit.shut()
        completion = await started(node.complete(task, signal_external()))
        node.faults.after_commit.let_one_pass()
        await completion
        await asyncio.sleep(0.1)
        assert node.faults.batches[-1] == [key_of("other")]
        assert node.faults.after_commit.waiting == 1
        successor = await node.crash()
        assert len(node.database.tables.outbox) == 1
        assert len(node.database.tables.inbox) == 1
        await settle()
        assert signals(successor, other) == 1
        assert successor.stored_events(me).count(SIGNALED) == 1
        assert is_quiet(successor)


@in_virtual_time
async def test_a_child_is_not_started_twice_although_it_has_ended_and_was_deleted() -> None:
    """The worst time to crash: the child has lived and gone, and its parent never heard that it started."""
    async with running() as node:
        parent = await node.start_workflow("parent")
        await node.complete(await node.poll(), start_child())
        node.reject("parent")
        child = await node.poll()
        assert child.workflow_execution.workflow_id == "child"
        await node.complete(child, complete_workflow())
        await node.submit("child", Delete(child.workflow_execution.run_id))
        successor = await node.crash()
        await asyncio.sleep(60)
        names = successor.stored_events(parent.run_id)
        assert names.count("child_workflow_execution_started") == 1
        assert names.count("child_workflow_execution_completed") == 1
        assert [run.workflow_id for run in successor.database.tables.runs.values()] == ["parent"]
        assert is_quiet(successor)


@in_virtual_time
async def test_a_message_outlives_its_sender() -> None:
    async with running() as node:
        me, other = await two(node)
        task = await node.poll()
        node.reject("other")
        await node.complete(task, signal_external(), complete_workflow())
        await node.submit("me", Delete(me))
        node.faults.rejected.clear()
        await asyncio.sleep(60)
        assert signals(node, other) == 1
        assert is_quiet(node)


@in_virtual_time
async def test_messages_find_a_receiver_that_is_not_in_memory() -> None:
    async with running(EngineSettings(cache_bytes=1)) as node:
        me, other = await two(node)
        await node.complete(await node.poll(), signal_external())
        await settle()
        assert signals(node, other) == 1
        assert node.stored_events(me)[-2] == SIGNALED


@in_virtual_time
async def test_a_message_to_nobody_fails_and_leaves_nothing() -> None:
    async with running() as node:
        me, _ = await two(node)
        await node.complete(await node.poll(), signal_external("nobody"))
        await settle()
        assert node.stored_events(me)[-2] == "signal_external_workflow_execution_failed"
        assert is_quiet(node)


@in_virtual_time
async def test_stopping_waits_for_what_is_under_way() -> None:
    async with running() as node:
        me, other = await two(node)
        await node.complete(await node.poll(), signal_external())
        await node.engine.stop()
        assert signals(node, other) == 1
        assert node.stored_events(me)[-2] == SIGNALED
