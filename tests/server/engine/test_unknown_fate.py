"""Rule 4: where it is not known whether a batch was committed, that is found out before anyone is answered."""

from __future__ import annotations

import copy
import logging

import pytest

from perdure.server.core.errors import NotFound, Unavailable
from perdure.server.store.interface import Claim, CommitUnknown
from tests.server.engine.node import complete_workflow, event_names, running, started, unavailable
from tests.virtual_time import in_virtual_time, settle


def unknown() -> CommitUnknown:
    return CommitUnknown("the connection broke")


@in_virtual_time
async def test_a_batch_that_turns_out_durable_is_acknowledged() -> None:
    async with running() as node:
        node.faults.after_commit.errors.append(unknown())
        reply = await node.start_workflow()
        assert len(node.stored_events(reply.run_id)) == 2
        await node.signal()


@in_virtual_time
async def test_a_batch_that_turns_out_void_is_refused() -> None:
    async with running() as node:
        node.faults.before_commit.errors.append(unknown())
        with pytest.raises(Unavailable):
            await node.start_workflow()
        assert node.database.tables.runs == {}
        await node.start_workflow()


@pytest.mark.parametrize("is_durable", [True, False])
def test_nobody_is_answered_before_the_fate_is_known(is_durable: bool) -> None:
    @in_virtual_time
    async def test() -> None:
        async with running() as node:
            gate = node.faults.after_commit if is_durable else node.faults.before_commit
            gate.errors.append(unknown())
            node.store.resolving.shut()
            start = await started(node.start_workflow(request_id="one"))
            refused = await started(node.start_workflow(request_id="two"))
            read = await started(node.locate())
            assert not (start.done() or refused.done() or read.done())
            node.store.resolving.open()
            await settle()
            assert start.done() and refused.done() and read.done()
            assert (start.exception() is None) is is_durable

    test()


@pytest.mark.parametrize("is_durable", [True, False])
def test_a_database_that_cannot_tell_yet_is_asked_again(is_durable: bool) -> None:
    @in_virtual_time
    async def test() -> None:
        async with running() as node:
            gate = node.faults.after_commit if is_durable else node.faults.before_commit
            gate.errors.append(unknown())
            node.store.resolving.errors += [unavailable(), unknown(), unavailable()]
            if is_durable:
                await node.start_workflow()
            else:
                with pytest.raises(Unavailable):
                    await node.start_workflow()
            await node.start_workflow("next")
            assert not node.engine.fenced_event.is_set()

    test()


@in_virtual_time
async def test_what_was_collected_meanwhile_is_written_next() -> None:
    async with running() as node:
        node.faults.after_commit.errors.append(unknown())
        node.store.resolving.shut()
        start = await started(node.start_workflow())
        signal = await started(node.signal())
        node.store.resolving.open()
        run_id = (await start).run_id
        await signal
        assert node.stored_events(run_id)[-1] == "workflow_execution_signaled"


@in_virtual_time
async def test_who_comes_while_the_database_does_not_answer_is_refused_at_once() -> None:
    async with running() as node:
        await node.start_workflow("known")
        node.faults.after_commit.errors.append(unknown())
        node.store.resolving.errors += [unavailable()] * 3
        start = await started(node.start_workflow())
        for call in (node.signal("known"), node.start_workflow("new")):
            with pytest.raises(Unavailable, match="cannot be stored now"):
                await call
        assert not start.done()
        assert (await start).run_id
        await node.signal("known")
        assert len(node.faults.batches) == 3


@in_virtual_time
async def test_a_batch_whose_fate_was_unknown_can_never_be_written_later() -> None:
    async with running() as node:
        node.faults.before_commit.errors.append(unknown())
        before = node.database.claims["local"].incarnation
        with pytest.raises(Unavailable):
            await node.start_workflow()
        assert node.database.claims["local"].incarnation > before


@in_virtual_time
async def test_when_acknowledged_work_was_lost_all_memory_is_dropped(caplog: pytest.LogCaptureFixture) -> None:
    async with running() as node:
        kept = await node.start_workflow("kept")
        await node.locate("kept")
        older_tables, older_claim = copy.deepcopy(node.database.tables), node.database.claims["local"]
        await node.signal("kept")
        await node.start_workflow("lost")
        node.faults.before_commit.errors.append(unknown())
        node.store.resolving.shut()
        start = await started(node.start_workflow("third"))
        node.database.tables = older_tables
        node.database.claims["local"] = Claim(node.database.claims["local"].incarnation, older_claim.batch)
        with caplog.at_level(logging.CRITICAL):
            node.store.resolving.open()
            with pytest.raises(Unavailable):
                await start
        assert "lost acknowledged work" in caplog.text
        with pytest.raises(NotFound):
            await node.locate("lost")
        assert (await node.locate("kept")).next_event_id == 3, "memory still tells what the database does not hold"
        task = await node.poll()
        await node.complete(task, complete_workflow())
        assert event_names((await node.history("kept")).history.events)[-1] == "workflow_execution_completed"
        assert node.stored_events(kept.run_id)[-1] == "workflow_execution_completed"
