"""Messages that cannot be delivered for long are set aside: they hold up nobody else, and come back in order."""

from __future__ import annotations

import asyncio

import pytest

from perdure.server.core.errors import DataLoss, Unavailable
from tests.server.engine.post import Post
from tests.virtual_time import in_virtual_time, settle

LASTING = DataLoss("the receiver cannot be read back")
PASSING = Unavailable("its node is away")


@pytest.mark.parametrize("failure", [LASTING, PASSING], ids=["lasting", "passing"])
def test_more_than_there_is_room_for_that_cannot_be_delivered_hold_up_nobody_else(failure: Exception) -> None:
    @in_virtual_time
    async def test() -> None:
        post = Post(room=10)
        post.broken["broken"] = failure
        await post.outbox.start()
        await settle()
        for number in range(25):
            post.commit(f"a{number:02}", 1, "broken")
        await asyncio.sleep(600)
        for number in range(5):
            post.commit(f"b{number}", 1, "healthy")
            post.commit(f"A{number}", 1, "healthy")
        await asyncio.sleep(120)
        assert len(post.delivered) == 10
        post.broken.clear()
        await asyncio.sleep(180)
        assert len(post.delivered) == 35
        assert post.table.messages == {}

    test()


@in_virtual_time
async def test_large_messages_that_cannot_be_delivered_hold_up_nobody_else() -> None:
    post = Post(room_bytes=10_000)
    post.broken["broken"] = LASTING
    await post.outbox.start()
    await settle()
    for number in range(17):
        post.commit(f"a{number:02}", 1, "broken", size=2_000)
    await asyncio.sleep(600)
    post.commit("b", 1, "healthy")
    await asyncio.sleep(120)
    assert post.delivered == [("b", 1)]


@in_virtual_time
async def test_what_waits_in_memory_is_bounded_in_bytes() -> None:
    post = Post(room_bytes=10_000)
    await post.outbox.start()
    await settle()
    post.delivering.shut()
    for number in range(1, 21):
        post.commit("r", number, size=2_000)
    await settle()
    assert len(post.outbox) == 5
    post.delivering.open()
    await settle()
    assert post.delivered == [("r", number) for number in range(1, 21)]


@in_virtual_time
async def test_what_is_sent_behind_a_message_that_was_set_aside_does_not_overtake_it() -> None:
    post = Post()
    post.broken["other"] = LASTING
    await post.outbox.start()
    await settle()
    post.commit("r", 1)
    await asyncio.sleep(10)
    assert len(post.outbox) == 0
    del post.broken["other"]
    post.commit("r", 2)
    post.commit("r", 3, receiver="third")
    await settle()
    assert post.delivered == [("r", 3)]
    await asyncio.sleep(61)
    assert post.delivered == [("r", 3), ("r", 1), ("r", 2)]


@in_virtual_time
async def test_a_pair_comes_back_whole_however_many_pages_it_lies_on() -> None:
    """Its time may come between two pages of a round."""
    post = Post(room=4)
    post.broken["other"] = LASTING
    await post.outbox.start()
    await settle()
    for number in range(1, 13):
        post.commit("r", number)
    await asyncio.sleep(10)
    del post.broken["other"]
    for _ in range(60):
        await asyncio.sleep(2)
        post.outbox.look_again()
    assert post.delivered == [("r", number) for number in range(1, 13)]


@in_virtual_time
async def test_what_is_set_aside_is_tried_about_once_a_minute_and_read_no_more_often() -> None:
    post = Post(room=4)
    post.broken["other"] = LASTING
    await post.outbox.start()
    for number in range(40):
        post.store(f"r{number:02}", 1)
    await asyncio.sleep(120)
    reads, tried = post.table.reads, post.tried
    await asyncio.sleep(600)
    assert post.tried - tried <= 10 * 40
    assert post.table.reads - reads <= 10 * 11
