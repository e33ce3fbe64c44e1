"""Alarms by themselves: never late, early is harmless, and nothing falls between the index and the heap."""

from __future__ import annotations

import asyncio

import pytest

from perdure.server.core.errors import NotFound, Unavailable
from perdure.server.core.records import WorkflowKey
from perdure.server.engine.alarms import Alarms
from perdure.server.engine.settings import EngineSettings
from perdure.server.store.interface import DueAlarm
from perdure.server.store.memory import MemoryStore
from tests.server.engine.node import CountingClock, Gate, unavailable
from tests.virtual_time import in_virtual_time, settle

KEY = WorkflowKey("n", "w")
SECOND = 1_000_000_000


class Index(MemoryStore):
    """An index of alarms that a test writes directly. What is read is what was there when the read began."""

    def __init__(self) -> None:
        super().__init__()
        self.alarms: dict[str, int] = {}
        self.gate = Gate()
        self.reads = 0

    async def due_alarms(self, before: int, limit: int) -> list[DueAlarm]:
        self.reads += 1
        due = sorted((at, run_id) for run_id, at in self.alarms.items() if at < before)
        await self.gate.passed()
        return [DueAlarm(*KEY, run_id, at) for at, run_id in due[:limit]]


class Bell:
    """The alarms on an index, and who was woken when. A run that is woken leaves the index."""

    def __init__(self, *, horizon: float = 60, page: int = 100, at_once: int = 100) -> None:
        self.index = Index()
        self.clock = CountingClock()
        self.epoch = self.clock.now()
        self.rung: list[tuple[str, float]] = []
        self.errors: list[Exception] = []
        self.ringing = Gate()
        settings = EngineSettings(alarm_horizon_seconds=horizon, alarms_in_memory=page, alarms_at_once=at_once)
        self.alarms = Alarms(self.index, self.clock, settings, self._ring)

    async def _ring(self, key: WorkflowKey, run_id: str) -> None:
        self.rung.append((run_id, (self.clock.now() - self.epoch) / SECOND))
        await self.ringing.passed()
        if self.errors:
            raise self.errors.pop(0)
        self.index.alarms.pop(run_id, None)

    def at(self, seconds: float) -> int:
        return self.epoch + round(seconds * SECOND)

    def store(self, run_id: str, seconds: float) -> None:
        """Put an alarm into the index only, as another process or an earlier life did."""
        self.index.alarms[run_id] = self.at(seconds)

    def commit(self, run_id: str, seconds: float) -> None:
        """Do what a commit does: the row, then the effect."""
        self.store(run_id, seconds)
        self.alarms.set(KEY, run_id, self.at(seconds), is_stored=True)


@in_virtual_time
async def test_a_stored_alarm_rings_on_time() -> None:
    bell = Bell(horizon=10)
    for run_id, seconds in (("now", -5.0), ("soon", 3.0), ("later", 33.25), ("much later", 100_000.5)):
        bell.store(run_id, seconds)
    await bell.alarms.start()
    await asyncio.sleep(100_001)
    assert bell.rung == [("now", 0.0), ("soon", 3.0), ("later", 33.25), ("much later", 100_000.5)]


@pytest.mark.parametrize("seconds", [0.0, 0.001, 4.9, 5.0, 9.99, 10.0, 10.01, 30.0, 200.0])
def test_an_alarm_of_a_commit_rings_on_time_wherever_the_horizon_is(seconds: float) -> None:
    @in_virtual_time
    async def test() -> None:
        bell = Bell(horizon=10)
        await bell.alarms.start()
        await asyncio.sleep(3)
        bell.commit("run", 3 + seconds)
        await asyncio.sleep(seconds + 0.001)
        assert bell.rung == [("run", 3 + seconds)]

    test()


@in_virtual_time
async def test_an_alarm_that_comes_while_the_index_is_read_is_not_lost() -> None:
    """The read began before the commit and does not show it; the horizon has moved already."""
    bell = Bell(horizon=10)
    await bell.alarms.start()
    bell.index.gate.shut()
    await asyncio.sleep(5.1)
    assert bell.index.gate.waiting == 1
    bell.commit("run", 14)
    bell.index.gate.open()
    await asyncio.sleep(10)
    assert bell.rung == [("run", 14.0)]


@in_virtual_time
async def test_a_slow_look_into_the_index_makes_nothing_late() -> None:
    """Neither what is in memory, nor what comes meanwhile and is due before the next look."""
    bell = Bell(horizon=10)
    await bell.alarms.start()
    bell.commit("before", 9)
    bell.index.gate.shut()
    await asyncio.sleep(5.1)
    assert bell.index.gate.waiting == 1
    bell.commit("meanwhile", 12)
    await asyncio.sleep(6)
    bell.index.gate.open()
    await asyncio.sleep(10)
    # The slow look still shows the first one: it may ring once more, which is harmless.
    assert bell.rung[0] == ("before", 9.0)
    assert ("meanwhile", 12.0) in bell.rung


@in_virtual_time
async def test_an_alarm_that_was_lowered_while_the_index_is_read_keeps_its_new_time() -> None:
    bell = Bell(horizon=10)
    bell.store("run", 14)
    await bell.alarms.start()
    bell.index.gate.shut()
    await asyncio.sleep(5.1)
    bell.commit("run", 7)
    bell.index.gate.open()
    await asyncio.sleep(4)
    assert bell.rung == [("run", 7.0)]


@in_virtual_time
async def test_an_alarm_that_only_memory_has_is_kept_beyond_the_horizon() -> None:
    bell = Bell(horizon=10)
    bell.store("run", 50)
    await bell.alarms.start()
    bell.alarms.set(KEY, "run", bell.at(45), is_stored=False)
    await asyncio.sleep(45.001)
    assert bell.rung == [("run", 45.0)]


@in_virtual_time
async def test_an_alarm_that_was_put_off_rings_once_at_the_later_time() -> None:
    bell = Bell()
    await bell.alarms.start()
    bell.commit("run", 5)
    bell.commit("run", 8)
    await asyncio.sleep(20)
    assert bell.rung == [("run", 8.0)]


@in_virtual_time
async def test_an_alarm_that_is_not_wanted_any_more_does_not_ring() -> None:
    bell = Bell()
    await bell.alarms.start()
    bell.commit("run", 5)
    del bell.index.alarms["run"]
    bell.alarms.set(KEY, "run", None, is_stored=False)
    await asyncio.sleep(20)
    assert bell.rung == []


@in_virtual_time
async def test_more_alarms_than_fit_into_memory_all_ring_on_time() -> None:
    bell = Bell(horizon=60, page=2)
    for number in range(9):
        bell.store(f"run {number}", 10 + number)
    await bell.alarms.start()
    await asyncio.sleep(30)
    assert [run_id for run_id, _ in bell.rung] == [f"run {number}" for number in range(9)]
    assert [at for _, at in bell.rung] == pytest.approx([10.0 + number for number in range(9)], abs=0.001)


@in_virtual_time
async def test_more_alarms_at_the_same_time_than_fit_into_memory_all_ring() -> None:
    bell = Bell(horizon=60, page=2)
    for number in range(9):
        bell.store(f"run {number}", 10)
    await bell.alarms.start()
    await asyncio.sleep(11)
    assert {run_id for run_id, _ in bell.rung} == {f"run {number}" for number in range(9)}


@in_virtual_time
async def test_alarms_that_were_put_off_do_not_hide_those_behind_them_in_the_index() -> None:
    bell = Bell(horizon=60, page=2)
    await bell.alarms.start()
    for run_id in ("busy 1", "busy 2", "busy 3"):
        bell.commit(run_id, 1)
        bell.alarms.set(KEY, run_id, bell.at(50), is_stored=True)
    bell.store("behind them", 45)
    await asyncio.sleep(49)
    assert ("behind them", 45.0) in bell.rung


@in_virtual_time
async def test_a_run_that_could_not_be_woken_is_woken_again() -> None:
    bell = Bell()
    bell.errors += [Unavailable("not now"), unavailable()]
    bell.store("run", 2)
    await bell.alarms.start()
    await asyncio.sleep(10)
    assert bell.rung == [("run", 2.0), ("run", 3.0), ("run", 4.0)]


@in_virtual_time
async def test_a_run_that_is_gone_is_let_be() -> None:
    bell = Bell(horizon=1000)
    bell.errors.append(NotFound("gone"))
    await bell.alarms.start()
    bell.alarms.set(KEY, "run", bell.at(2), is_stored=True)
    await asyncio.sleep(100)
    assert bell.rung == [("run", 2.0)]


@in_virtual_time
async def test_an_index_that_cannot_be_read_for_a_while_makes_nothing_late_that_is_in_memory() -> None:
    bell = Bell(horizon=10)
    await bell.alarms.start()
    bell.commit("known", 7)
    bell.store("unknown", 13)
    bell.index.gate.errors += [unavailable()] * 4
    await asyncio.sleep(20)
    assert bell.rung == [("known", 7.0), ("unknown", 13.0)]


@in_virtual_time
async def test_no_more_alarms_are_worked_on_at_once_than_may_be() -> None:
    bell = Bell(at_once=3)
    bell.ringing.shut()
    for number in range(10):
        bell.store(f"run {number}", 1)
    await bell.alarms.start()
    await asyncio.sleep(2)
    assert bell.ringing.waiting == 3
    bell.ringing.open()
    await settle()
    assert len(bell.rung) == 10


@in_virtual_time
async def test_stopping_lets_what_is_under_way_finish_and_rings_nothing_more() -> None:
    bell = Bell()
    bell.ringing.shut()
    bell.store("first", 1)
    bell.store("second", 2)
    await bell.alarms.start()
    await asyncio.sleep(1.5)
    stop = asyncio.create_task(bell.alarms.stop())
    await asyncio.sleep(5)
    assert not stop.done()
    bell.ringing.open()
    await stop
    assert [run_id for run_id, _ in bell.rung] == ["first"]


@in_virtual_time
async def test_an_idle_node_seldom_looks_into_the_index() -> None:
    bell = Bell(horizon=60)
    await bell.alarms.start()
    await asyncio.sleep(600)
    assert bell.index.reads <= 21
