"""A pace: never faster, whoever asks, and never a burst after a pause."""

from __future__ import annotations

import asyncio

from perdure.server.engine.pace import Pace
from tests.virtual_time import in_virtual_time


@in_virtual_time
async def test_turns_are_as_far_apart_as_what_is_done_in_them_is_long() -> None:
    pace, loop = Pace(10), asyncio.get_running_loop()
    times = []
    for count in (1, 5, 1):
        await pace.turn(count)
        times.append(round(loop.time(), 3))
    assert times == [0, 0.1, 0.6]


@in_virtual_time
async def test_all_who_ask_share_it_in_the_order_in_which_they_ask() -> None:
    pace, loop = Pace(10), asyncio.get_running_loop()
    turns: list[tuple[str, float]] = []

    async def work(name: str) -> None:
        for _ in range(2):
            await pace.turn(1)
            turns.append((name, round(loop.time(), 3)))

    await asyncio.gather(work("a"), work("b"))
    assert turns == [("a", 0), ("b", 0.1), ("a", 0.2), ("b", 0.3)]


@in_virtual_time
async def test_a_pause_is_not_made_up_for() -> None:
    pace, loop = Pace(10), asyncio.get_running_loop()
    await pace.turn(1)
    await asyncio.sleep(100)
    began_at = loop.time()
    for _ in range(11):
        await pace.turn(1)
    assert round(loop.time() - began_at, 3) == 1.0
