"""The outbox by itself: nothing is lost, nothing overtakes, and memory stays bounded however many wait."""

from __future__ import annotations

import asyncio

from perdure.server.core.errors import Unavailable
from perdure.server.core.messages import Outcome
from perdure.server.core.records import OutboxRecord
from perdure.server.core.shards import shard_of
from perdure.server.engine.outbox import Pair
from tests.server.engine.node import unavailable
from tests.server.engine.post import SENDER, Post
from tests.virtual_time import in_virtual_time, settle


@in_virtual_time
async def test_what_is_sent_is_delivered_and_acknowledged() -> None:
    post = Post()
    await post.outbox.start()
    await settle()
    post.commit()
    await settle()
    assert post.delivered == [("r", 1)]
    assert post.table.messages == {}
    assert len(post.outbox) == 0


@in_virtual_time
async def test_what_an_earlier_life_left_is_delivered_at_the_start() -> None:
    post = Post()
    post.store("r1", 1)
    post.store("r2", 1)
    await post.outbox.start()
    await settle()
    assert sorted(post.delivered) == [("r1", 1), ("r2", 1)]


@in_virtual_time
async def test_only_what_may_have_been_delivered_before_is_looked_up() -> None:
    post = Post()
    post.store("old", 1)
    await post.outbox.start()
    await settle()
    post.commit("new", 1)
    await settle()
    assert post.table.inbox == ["old"]
    post.errors.append(Unavailable("not now"))
    post.commit("new", 2)
    await asyncio.sleep(1)
    assert post.table.inbox == ["old", "new"]


@in_virtual_time
async def test_a_pair_has_one_message_under_way_and_others_do_not_wait_for_it() -> None:
    post = Post()
    await post.outbox.start()
    await settle()
    post.delivering.shut()
    for number in (1, 2, 3):
        post.commit("r", number)
    post.commit("r", 4, receiver="third")
    post.commit("s", 1)
    await settle()
    assert post.under_way == 3
    post.delivering.open()
    await settle()
    assert [name for name in post.delivered if name in (("r", 1), ("r", 2), ("r", 3))] == [("r", 1), ("r", 2), ("r", 3)]


@in_virtual_time
async def test_the_next_one_waits_until_the_acknowledgement_is_durable() -> None:
    post = Post()
    await post.outbox.start()
    await settle()
    post.acknowledging.shut()
    post.commit("r", 1)
    post.commit("r", 2)
    await settle()
    assert post.delivered == [("r", 1)]
    post.acknowledging.open()
    await settle()
    assert post.delivered == [("r", 1), ("r", 2)]


@in_virtual_time
async def test_no_more_are_under_way_than_there_are_places() -> None:
    post = Post(at_once=3)
    await post.outbox.start()
    await settle()
    post.delivering.shut()
    for number in range(10):
        post.commit(f"r{number}", 1)
    await settle()
    assert post.most_under_way == 3
    post.delivering.open()
    await settle()
    assert len(post.delivered) == 10
    assert post.most_under_way == 3


@in_virtual_time
async def test_what_breaks_off_is_tried_again_less_and_less_often() -> None:
    post = Post()
    await post.outbox.start()
    await settle()
    post.errors += [Unavailable("not now")] * 8
    post.commit()
    await asyncio.sleep(10)
    assert 1 <= len(post.errors) <= 3
    await asyncio.sleep(60)
    assert post.delivered == [("r", 1)]


@in_virtual_time
async def test_one_that_cannot_be_delivered_holds_up_nobody_else() -> None:
    post = Post(at_once=1)
    await post.outbox.start()
    await settle()
    post.errors.append(Unavailable("not now"))
    post.commit("bad", 1)
    await settle()
    post.commit("good", 1)
    await settle()
    assert post.delivered == [("good", 1)]
    await asyncio.sleep(1)
    assert post.delivered == [("good", 1), ("bad", 1)]


@in_virtual_time
async def test_a_namespace_that_is_gone_is_an_answer() -> None:
    post = Post()
    await post.outbox.start()
    await settle()
    post.namespaces.ids.clear()
    post.commit()
    await settle()
    assert post.answers == [Outcome.NAMESPACE_NOT_FOUND]


@in_virtual_time
async def test_more_than_there_is_room_for_waits_in_the_table_and_keeps_its_order() -> None:
    post = Post(room=4)
    await post.outbox.start()
    await settle()
    post.delivering.shut()
    for number in range(1, 21):
        post.commit("r", number)
    await settle()
    assert len(post.outbox) == 4
    post.delivering.open()
    await settle()
    assert post.delivered == [("r", number) for number in range(1, 21)]
    assert post.table.messages == {}


@in_virtual_time
async def test_what_is_sent_while_the_table_is_read_overtakes_nothing() -> None:
    post = Post()
    post.store("r", 1)
    post.table.gate.shut()
    await post.outbox.start()
    await settle()
    post.commit("r", 2)
    await settle()
    assert post.delivered == []
    post.table.gate.open()
    await settle()
    assert post.delivered == [("r", 1), ("r", 2)]


@in_virtual_time
async def test_what_was_read_and_ended_meanwhile_is_not_delivered_again() -> None:
    """The table is read while a message is under way; by the time the answer comes, the message is done."""
    post = Post()
    await post.outbox.start()
    await settle()
    post.delivering.shut()
    post.commit("r", 1)
    await settle()
    post.table.gate.shut()
    await asyncio.sleep(61)
    post.delivering.open()
    await settle()
    post.table.gate.open()
    await settle()
    assert post.delivered == [("r", 1)]


@in_virtual_time
async def test_what_no_effect_told_is_found_by_looking_again() -> None:
    post = Post()
    await post.outbox.start()
    await settle()
    post.store()
    await settle()
    assert post.delivered == []
    await asyncio.sleep(61)
    assert post.delivered == [("r", 1)]


@in_virtual_time
async def test_a_table_that_cannot_be_read_is_read_again() -> None:
    post = Post()
    post.store()
    post.table.gate.errors.append(unavailable())
    await post.outbox.start()
    await asyncio.sleep(2)
    assert post.delivered == [("r", 1)]


@in_virtual_time
async def test_more_than_there_is_room_for_may_be_sent_while_the_table_is_read() -> None:
    post = Post(room=3)
    post.table.gate.shut()
    await post.outbox.start()
    await settle()
    for number in range(1, 11):
        post.commit("r", number)
    post.table.gate.open()
    await settle()
    assert post.delivered == [("r", number) for number in range(1, 11)]


@in_virtual_time
async def test_a_row_that_cannot_be_read_holds_up_nobody_else() -> None:
    post = Post()
    post.table.unreadable.append(OutboxRecord("bad", 1, "n", "sender", "n", "other", "signal", 5, 0, b"\xff"))
    post.store("r", 1)
    await post.outbox.start()
    await settle()
    assert post.delivered == [("r", 1)]


@in_virtual_time
async def test_a_bug_on_the_way_is_not_the_end_of_a_pair() -> None:
    post = Post()
    await post.outbox.start()
    await settle()
    post.errors.append(ZeroDivisionError("a bug"))
    post.commit("r", 1)
    await asyncio.sleep(1)
    assert post.delivered == [("r", 1)]


@in_virtual_time
async def test_a_withdrawn_message_is_not_delivered() -> None:
    post = Post()
    await post.outbox.start()
    await settle()
    message = post.commit("r", 1)
    post.commit("r", 2)
    post.outbox.withdrawn(Pair("r", message.receiver), 1)
    await settle()
    assert post.delivered == [("r", 2)]


@in_virtual_time
async def test_a_message_that_is_under_way_cannot_be_withdrawn() -> None:
    post = Post()
    await post.outbox.start()
    await settle()
    post.delivering.shut()
    message = post.commit("r", 1)
    await settle()
    post.outbox.withdrawn(Pair("r", message.receiver), 1)
    post.commit("r", 2)
    post.delivering.open()
    await settle()
    assert post.delivered == [("r", 1), ("r", 2)]


@in_virtual_time
async def test_after_a_loss_only_what_the_table_holds_counts() -> None:
    post = Post(at_once=1)
    await post.outbox.start()
    await settle()
    post.delivering.shut()
    post.commit("r", 1)
    await settle()
    post.commit("lost", 1)
    del post.table.messages["lost", 1]
    post.store("kept", 1)
    post.outbox.forget_everything()
    post.delivering.open()
    await settle()
    assert post.delivered == [("r", 1), ("kept", 1)]


@in_virtual_time
async def test_stopping_lets_what_is_under_way_come_to_its_end_and_begins_nothing() -> None:
    post = Post(at_once=1)
    await post.outbox.start()
    await settle()
    post.delivering.shut()
    post.commit("r", 1)
    post.commit("r", 2)
    post.commit("s", 1)
    await settle()
    stopping = asyncio.create_task(post.outbox.stop())
    await settle()
    assert not stopping.done()
    post.delivering.open()
    await stopping
    assert post.delivered == [("r", 1)]
    assert post.answers == [Outcome.DONE]
    post.commit("t", 1)
    await settle()
    assert post.delivered == [("r", 1)]


@in_virtual_time
async def test_an_idle_outbox_reads_once_a_minute() -> None:
    post = Post()
    await post.outbox.start()
    await asyncio.sleep(600)
    assert post.table.reads <= 11


@in_virtual_time
async def test_what_came_during_a_read_is_forgotten_with_its_shard() -> None:
    """Another node may have delivered it since: it is no first delivery any more when the shard comes back."""
    post = Post()
    post.table.gate.shut()
    await post.outbox.start()
    await settle()
    post.commit()
    post.outbox.release([shard_of(SENDER)])
    post.table.gate.open()
    post.outbox.look_again()
    await settle()
    assert post.delivered == [("r", 1)]
    assert post.table.inbox == ["r"]
