"""The outbox by itself: nothing is lost, nothing overtakes, and memory stays bounded however many wait."""

from __future__ import annotations

import asyncio

import pytest

from perdure.server.core.errors import DataLoss, Unavailable
from perdure.server.core.inputs import Acknowledge, Deliver, Input
from perdure.server.core.messages import Answer, Message, Outcome, SignalMessage, outbox_record
from perdure.server.core.records import OutboxRecord, WorkflowKey
from perdure.server.core.shards import shard_of
from perdure.server.engine.background import Background
from perdure.server.engine.cluster.ownership import SoleOwner
from perdure.server.engine.deliveries import Deliveries
from perdure.server.engine.outbox import Outbox, Pair
from perdure.server.engine.settings import EngineSettings
from perdure.server.store.interface import MessagePosition, OutboxPage, PairState
from perdure.server.store.memory import MemoryStore
from tests.server.engine.node import Gate, NamespaceIds, unavailable
from tests.virtual_time import in_virtual_time, settle

SENDER = WorkflowKey("n", "sender")


class Table(MemoryStore):
    """A table of messages that a test writes directly. What is read is what was there when the read began."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: dict[tuple[str, int], Message] = {}
        self.unreadable: list[OutboxRecord] = []
        self.inbox: list[str] = []
        self.gate = Gate()
        self.reads = 0

    async def read_outbox(self, max_messages: int, max_bytes: int, after: MessagePosition | None = None) -> OutboxPage:
        self.reads += 1
        records = [outbox_record(message) for name, message in sorted(self.messages.items()) if name > (after or ("",))]
        records += self.unreadable
        await self.gate.passed()
        return OutboxPage(records[:max_messages], len(records) <= max_messages)

    async def read_pair(self, receiver: WorkflowKey, sender_run_id: str, number: int) -> PairState:
        self.inbox.append(sender_run_id)
        return PairState(None, (sender_run_id, number) in self.messages)


class Post:
    """An outbox on such a table, and what it delivered. A message leaves the table with its acknowledgement."""

    def __init__(self, *, room: int = 100, at_once: int = 100, room_bytes: int = 1_000_000) -> None:
        self.table = Table()
        self.delivered: list[tuple[str, int]] = []
        self.answers: list[Outcome] = []
        self.errors: list[Exception] = []
        self.broken: dict[str, Exception] = {}
        """What the delivery to a receiver fails with, by its workflow id."""
        self.delivering = Gate()
        self.acknowledging = Gate()
        self.namespaces = NamespaceIds("n")
        self.under_way = 0
        self.tried = 0
        self.most_under_way = 0
        settings = EngineSettings(outbox_messages=room, messages_at_once=at_once, outbox_bytes=room_bytes)
        deliveries = Deliveries(self.table, self._submit, Background(), SoleOwner(), None, self.namespaces)
        self.outbox = Outbox(self.table, settings, self._submit, deliveries.deliver, SoleOwner())

    async def _submit(self, key: WorkflowKey, given: Input) -> object:
        if isinstance(given, Acknowledge):
            await self.acknowledging.passed()
            self.answers.append(given.answer.outcome)
            self.table.messages.pop((given.message.sender_run_id, given.message.number), None)
            return None
        assert isinstance(given, Deliver)
        self.tried += 1
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await self.delivering.passed()
            if self.errors:
                raise self.errors.pop(0)
            if key.workflow_id in self.broken:
                raise self.broken[key.workflow_id]
        finally:
            self.under_way -= 1
        self.delivered.append((given.message.sender_run_id, given.message.number))
        return Answer(Outcome.DONE)

    def store(self, run_id: str = "r", number: int = 1, receiver: str = "other", size: int = 0) -> Message:
        """Put a message into the table only, as an earlier life did."""
        body = SignalMessage(5, bytes(size), "")
        message = Message(SENDER, run_id, WorkflowKey("n", receiver), number, 0, body)
        self.table.messages[run_id, number] = message
        return message

    def commit(self, run_id: str = "r", number: int = 1, receiver: str = "other", size: int = 0) -> Message:
        """Do what a commit does: the row, then the effect."""
        message = self.store(run_id, number, receiver, size)
        self.outbox.sent(message)
        return message


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


# --- what cannot be delivered for long --------------------------------------------------------------------------------

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
