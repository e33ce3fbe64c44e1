"""Messages at their receivers: brings one to the workflow id it is for, on whichever node that is, and its answer back.

A message must have its effect once, whoever delivers it how often. Two rules see to that beyond what the core knows:

- The deliveries of a pair, a sending run and a receiving id, are taken in one after the other, each until it is
  durable, also when one comes from a node that has lost the sender meanwhile.
- All but the first delivery of a message, which only its sender's node can make, look into the inbox, and in the same
  moment whether the message still is in the outbox. Where it is not, it was answered, and whoever delivers it is late.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, Protocol

import msgspec

from perdure.server.core.inputs import Deliver, Input
from perdure.server.core.messages import Answer, Message, Outcome, message_of, outbox_record
from perdure.server.core.records import OutboxRecord, WorkflowKey
from perdure.server.core.shards import shard_of
from perdure.server.engine.background import Background
from perdure.server.engine.cluster.ownership import Elsewhere, Ownership
from perdure.server.engine.cluster.services import DELIVER, Asked
from perdure.server.store.interface import Store

Submit = Callable[[WorkflowKey, Input], Awaitable[object]]

_encode: Final = msgspec.msgpack.Encoder().encode
_answer: Final = msgspec.msgpack.Decoder(Answer)


class _Delivery(msgspec.Struct, array_like=True):
    """A message on its way to another node: as its row, but that a newer release may add to the end."""

    run_id: str
    number: int
    namespace_id: str
    workflow_id: str
    receiver_namespace_id: str
    receiver_workflow_id: str
    kind: str
    initiated_event_id: int
    sent_at: int
    body: bytes


_delivery: Final = msgspec.msgpack.Decoder(_Delivery)

Pair = tuple[str, WorkflowKey]
_GONE: Final = b""
"""The answer to another node whose message is in the outbox no longer."""


class Owners(Protocol):
    """How to ask the owner of a shard."""

    async def ask_owner(self, shard: int, service: str, body: bytes) -> bytes | None:
        """Have the node that owns a shard answer; None where that is this node. Raises ServerError."""


class NamespaceRegistry(Protocol):
    """Which namespaces there are."""

    async def is_there(self, namespace_id: str) -> bool:
        """Return whether there is one of that id, by the store where it is not known. Raises StoreError."""


class MessageGone(Exception):
    """The message is in the outbox no longer: its sender has the answer."""


class Deliveries:
    """Takes messages to their receivers.

    Args:
        store: Where outbox and inbox are.
        submit: Takes an input through the loop; done when that is durable.
        background: Owns the deliveries that other nodes ask for.
        ownership: Whether this node may take them in.
        owners: The other nodes; None where there are none.
        namespaces: Where receivers may be.
    """

    def __init__(
        self,
        store: Store,
        submit: Submit,
        background: Background,
        ownership: Ownership,
        owners: Owners | None,
        namespaces: NamespaceRegistry,
    ) -> None:
        self._store = store
        self._submit = submit
        self._background = background
        self._ownership = ownership
        self._owners = owners
        self._namespaces = namespaces
        self._turns = _Turns()

    async def deliver(self, message: Message, *, is_first: bool) -> Answer:
        """Bring a message to its receiver and return the answer, when it is durable.

        Args:
            message: In this node's outbox.
            is_first: Whether it cannot have been delivered before.

        Raises:
            ServerError, StoreError: It may or may not have been taken in: deliver it again.
            MessageGone: It was answered before.
        """
        while True:
            try:
                return await self._take_in(message, is_first=is_first)
            except Elsewhere as elsewhere:
                if self._owners is None:
                    raise
                reply = await self._ask_owner(elsewhere.shard, message)
                if reply is not None:
                    return reply
                is_first = False

    async def serve(self, asked: Asked) -> bytes:
        """Take in a message of another node's outbox.

        Once begun it goes on, whatever becomes of the connection: the next delivery must find it done or not done.
        """
        message = message_of(OutboxRecord(*msgspec.structs.astuple(_delivery.decode(asked.body))))
        done: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._background.start(_settle(done, self._take_in(message, is_first=False)), "delivery for another node")
        try:
            return _encode(await asyncio.shield(done))
        except MessageGone:
            return _GONE

    async def _ask_owner(self, shard: int, message: Message) -> Answer | None:
        assert self._owners is not None, "only where there are other nodes"
        reply = await self._owners.ask_owner(shard, DELIVER, _encode(_Delivery(*outbox_record(message))))
        if reply == _GONE:
            raise MessageGone
        return None if reply is None else _answer.decode(reply)

    async def _take_in(self, message: Message, *, is_first: bool) -> Answer:
        term = self._ownership.require(message.receiver)
        async with self._turns.of((message.sender_run_id, message.receiver)):
            received = None
            # The core answers; only a namespace that is not there has nobody to ask.
            is_there = await self._namespaces.is_there(message.receiver.namespace_id)
            if not is_first:
                pair = await self._store.read_pair(message.receiver, message.sender_run_id, message.number)
                if not pair.is_pending:
                    raise MessageGone
                received = pair.inbox
            if self._ownership.require(message.receiver) != term:
                # Another node may have taken it in since the inbox was read, and given the shard back.
                raise Elsewhere(shard_of(message.receiver))
            if not is_there:
                return Answer(Outcome.NAMESPACE_NOT_FOUND)
            answer = await self._submit(message.receiver, Deliver(message.body.run_id, message, received))
        assert isinstance(answer, Answer)
        return answer


class _Turns:
    """Lets the deliveries of a pair in one at a time."""

    def __init__(self) -> None:
        self._locks: dict[Pair, tuple[asyncio.Lock, int]] = {}

    @asynccontextmanager
    async def of(self, pair: Pair) -> AsyncIterator[None]:
        lock, users = self._locks.get(pair, (None, 0))
        lock = lock or asyncio.Lock()
        self._locks[pair] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            lock, users = self._locks.pop(pair)
            if users > 1:
                self._locks[pair] = (lock, users - 1)


async def _settle(done: asyncio.Future[Answer], work: Awaitable[Answer]) -> None:
    try:
        answer = await work
    except Exception as error:  # noqa: BLE001 - whoever asked is told
        done.set_exception(error)
        # Whoever asked may have gone: then nobody reads the exception, and that is no mistake.
        done.exception()
    else:
        done.set_result(answer)
