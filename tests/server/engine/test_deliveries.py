"""Messages at their receivers: each has its effect once, whoever delivers it, how often and how late."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from perdure.server.core.inputs import Deliver, Input
from perdure.server.core.messages import Answer, Message, Outcome, SignalMessage, outbox_record
from perdure.server.core.records import InboxRecord, WorkflowKey
from perdure.server.core.shards import shard_of
from perdure.server.engine.background import Background
from perdure.server.engine.client_software import ClientSoftware
from perdure.server.engine.cluster.ownership import Elsewhere
from perdure.server.engine.cluster.services import Asked
from perdure.server.engine.deliveries import Deliveries, MessageGone
from perdure.server.store.interface import PairState, StoreUnavailable
from perdure.server.store.memory import MemoryStore
from tests.server.engine.node import Gate, NamespaceIds, started, unavailable
from tests.virtual_time import in_virtual_time

RECEIVER = WorkflowKey("n", "receiver")
MESSAGE = Message(WorkflowKey("n", "sender"), "run", RECEIVER, 1, 0, SignalMessage(5, b"", ""))


class Table(MemoryStore):
    """What is stored of the pair."""

    def __init__(self) -> None:
        super().__init__()
        self.pair = PairState(None, is_pending=True)
        self.reading = Gate()

    async def read_pair(self, receiver: WorkflowKey, sender_run_id: str, number: int) -> PairState:
        pair = self.pair
        await self.reading.passed()
        return pair


class Terms:
    """This node owns the receiver, in one term after the other."""

    def __init__(self) -> None:
        self.term = 1

    def require(self, key: WorkflowKey) -> int:
        return self.term

    def require_registry(self) -> None:
        raise AssertionError("nothing is registered")


class Owners:
    """This node is the owner, whenever that is asked."""

    async def ask_owner(self, shard: int, service: str, body: bytes) -> bytes | None:
        assert shard == shard_of(RECEIVER)
        return None


class Receiver:
    def __init__(self) -> None:
        self.table = Table()
        self.terms = Terms()
        self.taken: list[Deliver] = []
        self.background = Background()
        self.namespaces = NamespaceIds(RECEIVER.namespace_id)
        self.deliveries = Deliveries(self.table, self._submit, self.background, self.terms, Owners(), self.namespaces)

    async def _submit(self, key: WorkflowKey, given: Input) -> object:
        assert isinstance(given, Deliver)
        self.taken.append(given)
        self.table.pair = PairState(InboxRecord("run", *RECEIVER, 1, "receiving run"), is_pending=True)
        return Answer(Outcome.DONE)

    async def serve(self) -> bytes:
        body = msgspec.msgpack.encode([*outbox_record(MESSAGE), "of a newer release"])
        return await self.deliveries.serve(Asked("another node", body, None, ClientSoftware()))


@in_virtual_time
async def test_a_message_that_was_answered_does_nothing() -> None:
    receiver = Receiver()
    receiver.table.pair = PairState(None, is_pending=False)
    with pytest.raises(MessageGone):
        await receiver.deliveries.deliver(MESSAGE, is_first=False)
    assert await receiver.serve() == b""
    assert receiver.taken == []


@in_virtual_time
async def test_what_was_read_of_the_inbox_counts_only_while_the_receiver_stays() -> None:
    """Meanwhile another node may have owned it, taken the message in and given it back."""
    receiver = Receiver()
    receiver.table.reading.shut()
    delivery = await started(receiver.deliveries.deliver(MESSAGE, is_first=False))
    receiver.terms.term = 2
    receiver.table.pair = PairState(InboxRecord("run", *RECEIVER, 1, "receiving run"), is_pending=True)
    receiver.table.reading.open()
    await delivery
    [given] = receiver.taken
    assert given.received is not None


@in_virtual_time
async def test_a_first_delivery_that_waited_for_its_turn_looks_when_the_receiver_was_away() -> None:
    receiver = Receiver()
    receiver.table.reading.shut()
    other = await started(receiver.serve())
    first = await started(receiver.deliveries.deliver(MESSAGE, is_first=True))
    receiver.terms.term = 2
    receiver.table.reading.open()
    with pytest.raises(Elsewhere):
        await other
    await first
    assert len(receiver.taken) == 1


@in_virtual_time
async def test_deliveries_of_a_pair_take_turns() -> None:
    receiver = Receiver()
    await asyncio.gather(receiver.serve(), receiver.deliveries.deliver(MESSAGE, is_first=False), receiver.serve())
    assert [given.received is None for given in receiver.taken] == [True, False, False]
    assert not receiver.deliveries._turns._locks


@in_virtual_time
async def test_a_namespace_that_is_not_there_is_the_answer() -> None:
    receiver = Receiver()
    receiver.namespaces.ids.clear()
    answer = await receiver.deliveries.deliver(MESSAGE, is_first=True)
    assert answer == Answer(Outcome.NAMESPACE_NOT_FOUND)
    assert receiver.taken == []


@in_virtual_time
async def test_a_namespace_that_cannot_be_looked_up_is_no_answer() -> None:
    receiver = Receiver()
    receiver.namespaces.reading.errors = [unavailable()]
    with pytest.raises(StoreUnavailable):
        await receiver.deliveries.deliver(MESSAGE, is_first=True)
    assert await receiver.deliveries.deliver(MESSAGE, is_first=False) == Answer(Outcome.DONE)


@in_virtual_time
async def test_while_a_namespace_is_looked_up_the_receiver_may_go() -> None:
    receiver = Receiver()
    receiver.namespaces.reading.shut()
    delivery = await started(receiver.deliveries.deliver(MESSAGE, is_first=True))
    receiver.terms.term = 2
    receiver.table.pair = PairState(InboxRecord("run", *RECEIVER, 1, "receiving run"), is_pending=True)
    receiver.namespaces.reading.open()
    await delivery
    [given] = receiver.taken
    assert given.received is not None
