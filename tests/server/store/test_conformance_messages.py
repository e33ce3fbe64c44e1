"""What every store owes the outbox: messages, the inbox and pending children, written and removed with entities."""

from __future__ import annotations

import pytest

from perdure.server.core.records import (
    ChildRecord,
    EntityWrite,
    InboxRecord,
    MailWrite,
    OutboxRecord,
    StoredChild,
    StoredMessage,
)
from perdure.server.store.interface import BatchRejected, MessagePosition, OutboxPage, PairState, Store
from tests.server.store import rows
from tests.server.store.conftest import Place
from tests.server.store.writing import Writer

MANY = 10_000_000


def message(
    run_id: str = "r", number: int = 1, *, receiver: str = "other", event_id: int = 0, body: bytes = b"\x00body\xff"
) -> OutboxRecord:
    return OutboxRecord(
        run_id, number, rows.NAMESPACE, "w", rows.NAMESPACE, receiver, "signal", event_id, rows.START, body
    )


def received(sender_run_id: str = "r", number: int = 1, *, workflow_id: str = "other") -> InboxRecord:
    return InboxRecord(sender_run_id, rows.NAMESPACE, workflow_id, number, "run of other")


def child(run_id: str, initiated_event_id: int, *, child_run_id: str | None = None) -> ChildRecord:
    return ChildRecord(
        run_id, initiated_event_id, rows.NAMESPACE, "w", "child", child_run_id, "Shipment", 0, rows.START
    )


def sending(*messages: OutboxRecord) -> EntityWrite:
    write = rows.write("w")
    write.mail = MailWrite(outbox=list(messages))
    return write


def receiving(*records: InboxRecord) -> EntityWrite:
    write = rows.write("other")
    write.mail = MailWrite(inbox=list(records))
    return write


def ending(run_id: str, number: int) -> EntityWrite:
    write = rows.write("w")
    write.mail = MailWrite(outbox_removed=[(run_id, number)], inbox_removed=[(run_id, rows.NAMESPACE, "other", number)])
    return write


async def inbox(store: Store, sender_run_id: str, workflow_id: str = "other") -> InboxRecord | None:
    return (await store.read_pair(rows.key(workflow_id), sender_run_id, 1)).inbox


async def test_an_empty_outbox_has_no_head(store: Store) -> None:
    assert await store.read_outbox(10, MANY) == OutboxPage([], is_last=True)
    assert await inbox(store, "r") is None


async def test_messages_come_in_the_order_of_runs_and_numbers(store: Store) -> None:
    writer = await Writer.claim(store)
    await writer.commit(sending(message("r2", 1), message("r1", 10), message("r1", 9)))
    head = await store.read_outbox(10, MANY)
    assert head.records == [message("r1", 9), message("r1", 10), message("r2", 1)]
    assert head.is_last


async def test_the_head_is_bounded_by_count_and_by_bytes(store: Store) -> None:
    writer = await Writer.claim(store)
    messages = [message("r", number, body=b"x" * 100) for number in range(1, 6)]
    await writer.commit(sending(*messages))
    assert await store.read_outbox(2, MANY) == OutboxPage(messages[:2], is_last=False)
    assert await store.read_outbox(10, 350) == OutboxPage(messages[:3], is_last=False)
    assert await store.read_outbox(10, 1) == OutboxPage(messages[:1], is_last=False)
    assert await store.read_outbox(5, MANY) == OutboxPage(messages, is_last=True)


async def test_the_outbox_is_paged_through(store: Store) -> None:
    writer = await Writer.claim(store)
    messages = [message(run_id, number) for run_id in ("r1", "r2") for number in (2, 9, 10)]
    await writer.commit(sending(*messages))
    first = await store.read_outbox(4, MANY)
    assert first == OutboxPage(messages[:4], is_last=False)
    assert await store.read_outbox(4, MANY, MessagePosition("r2", 2)) == OutboxPage(messages[4:], is_last=True)
    assert await store.read_outbox(4, MANY, MessagePosition("r1", 3)) == OutboxPage(messages[1:5], is_last=False)
    assert await store.read_outbox(4, MANY, MessagePosition("r2", 10)) == OutboxPage([], is_last=True)


async def test_a_message_is_stored_once(store: Store) -> None:
    writer = await Writer.claim(store)
    await writer.commit(sending(message()))
    with pytest.raises(BatchRejected):
        await writer.commit(sending(message()))


async def test_a_message_and_its_inbox_row_go_together(store: Store) -> None:
    writer = await Writer.claim(store)
    await writer.commit(sending(message("r", 1), message("r", 2)))
    await writer.commit(receiving(received("r", 1)))
    assert await inbox(store, "r") == received("r", 1)
    await writer.commit(ending("r", 1))
    assert (await store.read_outbox(10, MANY)).records == [message("r", 2)]
    assert await inbox(store, "r") is None


async def test_the_row_of_a_later_message_stays(store: Store) -> None:
    writer = await Writer.claim(store)
    await writer.commit(receiving(received("r", 1)))
    await writer.commit(ending("r", 1), receiving(received("r", 2)))
    assert await inbox(store, "r") == received("r", 2)
    await writer.commit(ending("r", 1))
    assert await inbox(store, "r") == received("r", 2)


async def test_the_row_of_an_earlier_message_goes_too(store: Store) -> None:
    writer = await Writer.claim(store)
    await writer.commit(receiving(received("r", 1)), receiving(received("r2", 1)))
    await writer.commit(ending("r", 2))
    assert await inbox(store, "r") is None
    assert await inbox(store, "r2") == received("r2", 1)


async def test_of_several_messages_from_one_sender_in_a_batch_the_last_is_known(store: Store) -> None:
    writer = await Writer.claim(store)
    await writer.commit(receiving(received("r", 1), received("r", 2), received("q", 1)))
    assert await inbox(store, "r") == received("r", 2)
    assert await inbox(store, "q") == received("q", 1)


async def test_inbox_rows_are_those_of_one_pair(store: Store) -> None:
    writer = await Writer.claim(store)
    await writer.commit(receiving(received("r1", 1), received("r2", 7), received("r1", 3, workflow_id="third")))
    assert await inbox(store, "r1") == received("r1", 1)
    assert await inbox(store, "r2") == received("r2", 7)
    assert await inbox(store, "r1", "third") == received("r1", 3, workflow_id="third")
    assert await inbox(store, "r2", "third") is None


async def test_a_pair_is_read_with_the_message_that_is_asked_about(store: Store) -> None:
    writer = await Writer.claim(store)
    other = rows.key("other")
    assert await store.read_pair(other, "r", 2) == PairState(None, is_pending=False)
    await writer.commit(sending(message("r", 2)))
    assert await store.read_pair(other, "r", 2) == PairState(None, is_pending=True)
    assert await store.read_pair(other, "r", 1) == PairState(None, is_pending=False)
    await writer.commit(receiving(received("r", 2)))
    assert await store.read_pair(other, "r", 2) == PairState(received("r", 2), is_pending=True)
    assert await store.read_pair(other, "r", 3) == PairState(received("r", 2), is_pending=False)
    await writer.commit(ending("r", 2))
    assert await store.read_pair(other, "r", 2) == PairState(None, is_pending=False)


async def test_messages_outlive_their_closed_and_deleted_run(store: Store) -> None:
    writer = await Writer.claim(store)
    write = rows.write("w", rows.run("w", "r"))
    write.events = [rows.event("r", 1)]
    write.mail = MailWrite(outbox=[message()])
    await writer.commit(write)
    end = rows.write("w", rows.run("w", "r", stored_version=1, status=rows.COMPLETED))
    end.runs_closed = ["r"]
    end.runs_deleted = ["r"]
    await writer.commit(end)
    assert await store.load_run(rows.key("w"), "r") is None
    assert (await store.read_outbox(10, MANY)).records == [message()]


async def test_an_entity_without_runs_may_write_about_messages(store: Store) -> None:
    writer = await Writer.claim(store)
    await writer.commit(receiving(received()), ending("another run", 9))
    assert await store.load_current_runs([rows.key("other")]) == [None]
    assert await inbox(store, "r") == received()


async def test_a_run_comes_back_with_its_children_and_messages(store: Store) -> None:
    writer = await Writer.claim(store)
    write = rows.write("w", rows.run("w", "r"))
    write.events = [rows.event("r", event_id, b"event-%d" % event_id) for event_id in (1, 5, 6, 11)]
    late, early = child("r", 11), child("r", 6, child_run_id="run of child")
    messages = [message("r", 12, event_id=11), message("r", 4, event_id=5), message("r", 13)]
    write.mail = MailWrite(children=[late, early], outbox=messages)
    await writer.commit(write)
    [loaded] = await store.load_current_runs([rows.key("w")])
    assert loaded is not None
    assert loaded.children == [StoredChild(early, b"event-6"), StoredChild(late, b"event-11")]
    assert loaded.messages == [StoredMessage(4, "signal", 5, b"event-5"), StoredMessage(12, "signal", 11, b"event-11")]


async def test_children_are_replaced_and_removed(store: Store) -> None:
    writer = await Writer.claim(store)
    write = rows.write("w", rows.run("w", "r"))
    write.mail = MailWrite(children=[child("r", 5), child("r", 6)])
    await writer.commit(write)
    change = rows.write("w", rows.run("w", "r", stored_version=1))
    started = child("r", 5, child_run_id="run of child")
    change.mail = MailWrite(children=[started], children_removed=[("r", 6)])
    await writer.commit(change)
    [loaded] = await store.load_current_runs([rows.key("w")])
    assert loaded is not None
    assert [each.record for each in loaded.children] == [started]


async def test_messages_are_there_after_a_restart(place: Place) -> None:
    writer = await Writer.claim(await place.open())
    await writer.commit(sending(message()), receiving(received()))
    again = await place.open()
    assert (await again.read_outbox(10, MANY)).records == [message()]
    assert await inbox(again, "r") == received()


async def test_a_refused_batch_leaves_no_message(store: Store) -> None:
    writer = await Writer.claim(store)
    stale = rows.write("v", rows.run("v", "r", stored_version=7))
    with pytest.raises(BatchRejected):
        await writer.commit(sending(message()), receiving(received()), stale)
    assert (await store.read_outbox(10, MANY)).records == []
    assert await inbox(store, "r") is None
