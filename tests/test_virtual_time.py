"""The virtual-time loop itself: it must be exact, repeatable, and loud where a real loop would hang."""

from __future__ import annotations

import asyncio
import threading

import pytest

from tests.virtual_time import (
    DAY_SECONDS,
    EPOCH_NS,
    Deadlock,
    TimeRanOut,
    TimeStandsStill,
    VirtualClock,
    elapsed,
    in_virtual_time,
    run,
    settle,
)


@in_virtual_time
async def test_sleeping_takes_exactly_the_time_asked_for() -> None:
    assert await elapsed(asyncio.sleep(3600)) == 3600


@in_virtual_time
async def test_timers_fire_in_the_order_of_their_time() -> None:
    fired: list[float] = []

    async def sleeper(seconds: float) -> None:
        await asyncio.sleep(seconds)
        fired.append(seconds)

    await asyncio.gather(*(sleeper(seconds) for seconds in (3, 1, 2.5, 0.001, 2)))
    assert fired == [0.001, 1, 2, 2.5, 3]


@in_virtual_time
async def test_a_cancelled_timer_does_not_move_the_clock() -> None:
    loop = asyncio.get_running_loop()
    loop.call_later(100, lambda: None).cancel()
    await asyncio.sleep(1)
    assert loop.time() == 1


@in_virtual_time
async def test_a_timeout_works_as_on_a_real_loop() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(60):
            await asyncio.Event().wait()
    assert asyncio.get_running_loop().time() == 60


def test_a_century_is_as_exact_as_a_second() -> None:
    async def sleep_for_a_century_in_small_steps_at_the_end() -> float:
        await asyncio.sleep(100 * 365 * DAY_SECONDS)
        return await elapsed(asyncio.sleep(0.25))

    assert run(sleep_for_a_century_in_small_steps_at_the_end(), limit_seconds=200 * 365 * DAY_SECONDS) == 0.25


@in_virtual_time
async def test_the_clock_shows_the_loop_time_since_the_epoch() -> None:
    clock = VirtualClock()
    assert clock.now() == EPOCH_NS
    await asyncio.sleep(0.1)
    await asyncio.sleep(0.2)
    assert clock.now() == EPOCH_NS + 300_000_000


@in_virtual_time
async def test_settle_lets_all_others_run_and_no_time_pass() -> None:
    steps: list[int] = []

    async def walk() -> None:
        for step in range(50):
            steps.append(step)
            await asyncio.sleep(0)
        await asyncio.sleep(1)
        steps.append(-1)

    walking = asyncio.create_task(walk())
    await settle()
    assert steps == list(range(50))
    assert asyncio.get_running_loop().time() == 0
    await walking


def test_waiting_on_nothing_is_a_deadlock_that_names_the_task() -> None:
    async def wait_for_nobody() -> None:
        await asyncio.Event().wait()

    with pytest.raises(Deadlock, match="wait_for_nobody"):
        run(wait_for_nobody())


def test_going_in_circles_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.virtual_time.MAX_STEPS_PER_INSTANT", 1_000)

    async def spin() -> None:
        while True:
            await asyncio.sleep(0)

    with pytest.raises(TimeStandsStill, match="spin"):
        run(spin())


def test_periodic_work_alone_runs_into_the_limit() -> None:
    async def tick() -> None:
        while True:
            await asyncio.sleep(10)

    with pytest.raises(TimeRanOut, match="tick"):
        run(tick(), limit_seconds=3_600)


@in_virtual_time
async def test_threads_are_refused() -> None:
    with pytest.raises(NotImplementedError, match="threads"):
        await asyncio.to_thread(threading.get_ident)


def test_tasks_left_behind_are_cancelled() -> None:
    cancelled: list[str] = []

    async def stay() -> None:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            cancelled.append("stay")
            raise

    async def leave_one_behind() -> None:
        left = asyncio.create_task(stay())
        await settle()
        assert not left.done()

    run(leave_one_behind())
    assert cancelled == ["stay"]


def test_the_same_program_takes_the_same_steps() -> None:
    async def race() -> list[tuple[float, int]]:
        loop = asyncio.get_running_loop()
        seen: list[tuple[float, int]] = []

        async def runner(number: int) -> None:
            for lap in range(5):
                await asyncio.sleep((number * 7 + lap * 3) % 4 / 10)
                seen.append((loop.time(), number))

        await asyncio.gather(*(runner(number) for number in range(20)))
        return seen

    assert run(race()) == run(race())
