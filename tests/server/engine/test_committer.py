"""How changes come into batches: an idle node writes at once, a busy one collects; limits and order hold."""

from __future__ import annotations

import asyncio

import pytest

from perdure.server.engine.matching import Offer, QueueKey
from perdure.server.engine.settings import EngineSettings
from tests.server.engine.node import key_of, running, started
from tests.virtual_time import in_virtual_time


@in_virtual_time
async def test_an_idle_node_writes_at_once() -> None:
    async with running() as node:
        for number in range(3):
            await node.start_workflow(f"w{number}")
        assert [len(keys) for keys in node.faults.batches] == [1, 1, 1]
        assert asyncio.get_running_loop().time() == 0


@in_virtual_time
async def test_a_busy_node_collects_while_it_writes() -> None:
    async with running() as node:
        node.faults.before_commit.shut()
        calls = [await started(node.start_workflow(f"w{number}")) for number in range(6)]
        node.faults.before_commit.open()
        await asyncio.gather(*calls)
        assert [len(keys) for keys in node.faults.batches] == [1, 5]


@in_virtual_time
async def test_many_changes_of_one_workflow_are_one_write() -> None:
    async with running() as node:
        reply = await node.start_workflow()
        node.faults.before_commit.shut()
        calls = [await started(node.signal(name=f"signal {number}")) for number in range(5)]
        node.faults.before_commit.open()
        await asyncio.gather(*calls)
        assert node.faults.batches == [[key_of("w")]] * 3
        assert len(node.stored_events(reply.run_id)) == 7


@in_virtual_time
async def test_a_batch_takes_no_more_entities_than_it_may_and_keeps_their_order() -> None:
    async with running(EngineSettings(batch_entities=2)) as node:
        node.faults.before_commit.shut()
        calls = [await started(node.start_workflow(f"w{number}")) for number in range(6)]
        node.faults.before_commit.open()
        await asyncio.gather(*calls)
        names = [[key.workflow_id for key in keys] for keys in node.faults.batches]
        assert names == [["w0"], ["w1", "w2"], ["w3", "w4"], ["w5"]]


@in_virtual_time
async def test_a_change_of_what_is_being_written_waits_for_the_next_batch() -> None:
    async with running() as node:
        node.faults.before_commit.shut()
        start = await started(node.start_workflow())
        signal = await started(node.signal())
        node.faults.after_commit.shut()
        node.faults.before_commit.open()
        await asyncio.sleep(1)
        assert node.faults.after_commit.waiting == 1
        node.faults.after_commit.open()
        await start
        await signal
        assert len(node.faults.batches) == 2


@in_virtual_time
async def test_what_was_collected_in_a_split_batch_is_answered_with_its_own_part() -> None:
    async with running(EngineSettings(batch_entities=1)) as node:
        node.faults.before_commit.shut()
        first = await started(node.start_workflow("first"))
        second, third = await started(node.start_workflow("second")), await started(node.start_workflow("third"))
        signal = await started(node.signal("third"))
        seen = []
        for _ in range(4):
            seen.append([call.done() for call in (first, second, third, signal)])
            node.faults.before_commit.let_one_pass()
            await asyncio.sleep(0.1)
            if signal.done():
                break
        assert seen == [
            [False, False, False, False],
            [True, False, False, False],
            [True, True, False, False],
        ]
        assert third.done()


@in_virtual_time
async def test_an_effect_that_cannot_be_performed_stops_neither_the_answers_nor_the_writing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with running() as node:
        monkeypatch.setattr(node.engine.matcher, "offer", broken)
        await node.start_workflow("first")
        monkeypatch.undo()
        await node.start_workflow("second")
        assert "an effect failed: WorkflowTaskReady" in caplog.text


def broken(key: QueueKey, offer: Offer) -> bool:
    raise ZeroDivisionError("a bug")


@in_virtual_time
async def test_batches_gather_while_several_workflows_are_at_work() -> None:
    async with running(EngineSettings(gather_seconds=0.5)) as node:
        await asyncio.gather(node.start_workflow("w0"), node.start_workflow("w1"))
        assert asyncio.get_running_loop().time() == 0
        early = await started(node.start_workflow("w2"))
        await asyncio.sleep(0.3)
        assert not early.done()
        await node.start_workflow("w3")
        assert asyncio.get_running_loop().time() == 0.5
        assert early.done()
        assert [len(keys) for keys in node.faults.batches] == [2, 2]


@pytest.mark.parametrize(("writing_seconds", "apart_seconds"), [(0.01, 0.1), (0.1, 0.2), (1.0, 0.5)])
@in_virtual_time
async def test_the_longer_a_batch_takes_the_longer_the_next_one_gathers(
    writing_seconds: float, apart_seconds: float
) -> None:
    async with running(EngineSettings(gather_seconds=0.1, gather_seconds_max=0.5)) as node:
        node.faults.before_commit.shut()
        written, gathering = [await started(node.start_workflow(name)) for name in ("w0", "w1")]
        await asyncio.sleep(writing_seconds)
        node.faults.before_commit.open()
        await written
        assert asyncio.get_running_loop().time() == pytest.approx(writing_seconds)
        await gathering
        assert asyncio.get_running_loop().time() == pytest.approx(writing_seconds + apart_seconds)


@in_virtual_time
async def test_a_node_that_was_busy_writes_at_once_again_when_one_workflow_is_left() -> None:
    async with running(EngineSettings(gather_seconds=0.5)) as node:
        await asyncio.gather(node.start_workflow("w0"), node.start_workflow("w1"))
        await node.signal("w0", "held back")
        assert asyncio.get_running_loop().time() == 0.5
        await node.signal("w0", "at once")
        assert asyncio.get_running_loop().time() == 0.5


@in_virtual_time
async def test_changes_of_one_workflow_need_not_gather() -> None:
    async with running(EngineSettings(gather_seconds=0.5)) as node:
        await node.start_workflow()
        node.faults.before_commit.shut()
        calls = [await started(node.signal(name=f"signal {number}")) for number in range(5)]
        node.faults.before_commit.open()
        await asyncio.gather(*calls)
        assert asyncio.get_running_loop().time() == 0
