"""The outbox: carries messages from run to workflow id until their receivers have answered.

A bounded window over the store's table of messages, soft state like the matcher's: a message is in it because its
transition became durable here, or because the table was read, at start-up and whenever the window had no room. Messages
of one pair (sending run, receiving id) go one after the other, in their order; different pairs at the same time.

Delivering is two inputs, each durable before the next thing happens: the message to its receiver, its answer to its
sender, whose transaction ends the message. Whatever breaks off is begun anew; only failures of the engine or the store
are, a refusal is an answer. This module knows no rule: what a message does is the core's.
"""

from __future__ import annotations

import asyncio
import logging
from bisect import insort
from collections.abc import Awaitable, Callable, Container, Iterable
from operator import attrgetter
from typing import Final, NamedTuple, Protocol

from perdure.server.core.errors import ServerError
from perdure.server.core.inputs import Acknowledge, Input
from perdure.server.core.messages import Answer, Message, message_of
from perdure.server.core.records import OutboxRecord, WorkflowKey
from perdure.server.core.shards import shard_of
from perdure.server.engine.background import run_for_ever
from perdure.server.engine.cluster.ownership import Elsewhere, Ownership
from perdure.server.engine.deliveries import MessageGone
from perdure.server.engine.settings import EngineSettings
from perdure.server.store.interface import Store, StoreError

_logger = logging.getLogger(__name__)

_FIRST_RETRY_SECONDS: Final = 0.1
_LAST_RETRY_SECONDS: Final = 30.0
_RETRY_SECONDS: Final = 1.0
_BY_NUMBER: Final = attrgetter("number")

Submit = Callable[[WorkflowKey, Input], Awaitable[object]]


class Deliver(Protocol):
    """How a message reaches its receiver; see `Deliveries.deliver`."""

    async def __call__(self, message: Message, *, is_first: bool) -> Answer:
        """Bring it there and return the answer."""


class Pair(NamedTuple):
    """Who sends to whom."""

    sender_run_id: str
    receiver: WorkflowKey


class Outbox:
    """The messages of this node.

    Args:
        store: Where the table of messages is.
        settings: Limits.
        submit: Takes an input through the loop; done when that is durable.
        deliver: Brings a message to its receiver.
        ownership: Whose messages are this node's.
    """

    def __init__(
        self, store: Store, settings: EngineSettings, submit: Submit, deliver: Deliver, ownership: Ownership
    ) -> None:
        self._store = store
        self._submit = submit
        self._deliver = deliver
        self._ownership = ownership
        self._room = settings.outbox_messages
        self._room_bytes = settings.outbox_bytes
        self._rescan_seconds = settings.outbox_rescan_seconds
        self._places = asyncio.Semaphore(settings.messages_at_once)
        self._waiting: dict[Pair, list[Message]] = {}
        """The window: messages by pair, in order."""
        self._seen: set[tuple[str, int]] = set()
        """The names of the messages of the window."""
        self._unsure: set[tuple[str, int]] = set()
        """Those that may have been delivered before: they came from the table, or broke off."""
        self._has_more_on_disk = True
        self._look_again = False
        """Whether a read that began before is not enough."""
        self._is_refilling = False
        self._came_meanwhile: list[Message] = []
        self._gone_meanwhile: set[tuple[str, int]] = set()
        self._on_their_way: set[tuple[str, int]] = set()
        self._wake = asyncio.Event()
        self._stopped = asyncio.Event()
        self._refiller: asyncio.Task[None] | None = None
        self._carrying: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Begin to deliver."""
        self._wake.set()
        self._refiller = run_for_ever(self._refill_for_ever(), "refill of the outbox")

    async def stop(self) -> None:
        """Stop delivering; what is on its way is let finish its present step."""
        self._stopped.set()
        if self._refiller is not None:
            self._refiller.cancel()
            await asyncio.gather(self._refiller, return_exceptions=True)
        await asyncio.gather(*self._carrying, return_exceptions=True)

    def __len__(self) -> int:
        return len(self._seen)

    def sent(self, message: Message) -> None:
        """Take in a message that has become durable."""
        if self._stopped.is_set():
            return
        if self._is_refilling:
            # One more than there is room for says that there are too many.
            if len(self._came_meanwhile) <= self._room:
                self._came_meanwhile.append(message)
        elif self._has_more_on_disk or len(self._seen) >= self._room:
            # Those on the disk may be earlier ones of the same pair.
            self._has_more_on_disk = True
        else:
            self._take([message])

    def withdrawn(self, pair: Pair, number: int) -> None:
        """Forget a message, unless it is on its way."""
        name = (pair.sender_run_id, number)
        if name in self._on_their_way:
            return
        queue = self._waiting.get(pair, [])
        queue[:] = [message for message in queue if message.number != number]
        self._forget(name)

    def forget_everything(self) -> None:
        """Read the table anew: the database does not hold what it had confirmed."""
        for queue in self._waiting.values():
            self._leave(queue)
        self._came_meanwhile.clear()
        self.look_again()

    def release(self, shards: Container[int]) -> None:
        """Forget the messages of senders whose shards are another node's from now on, unless they are on their way."""
        for queue in self._waiting.values():
            if queue and shard_of(queue[0].sender) in shards:
                self._leave(queue)
        self._came_meanwhile = [message for message in self._came_meanwhile if shard_of(message.sender) not in shards]

    def look_again(self) -> None:
        """Read the table: this node has come to own more of it. What is being read now may not show it."""
        self._has_more_on_disk = self._look_again = True
        self._wake.set()

    # --- the window ---------------------------------------------------------------------------------------------------

    def _forget(self, name: tuple[str, int]) -> None:
        self._seen.discard(name)
        self._unsure.discard(name)
        if self._is_refilling:
            # What is being read may still show it.
            self._gone_meanwhile.add(name)

    def _take(self, messages: Iterable[Message]) -> int:
        """Put messages into the window and return how many were not there."""
        before = len(self._seen)
        for message in messages:
            if _name(message) not in self._seen:
                self._take_new(message)
        return len(self._seen) - before

    def _take_new(self, message: Message) -> None:
        self._seen.add(_name(message))
        pair = Pair(message.sender_run_id, message.receiver)
        queue = self._waiting.get(pair)
        if queue is not None:
            insort(queue, message, key=_BY_NUMBER)
        else:
            self._waiting[pair] = [message]
            task = asyncio.create_task(self._carry_all(pair), name=f"messages of {message.sender_run_id}")
            self._carrying.add(task)
            task.add_done_callback(self._carrying.discard)

    async def _refill_for_ever(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._rescan_seconds):
                    await self._wake.wait()
            except TimeoutError:
                # The net: nothing should be there that is not in the window.
                self._has_more_on_disk = True
            self._wake.clear()
            # Where all that was read is in the window already, the next look waits until some of that has left it.
            while self._wants_more and await self._refill_or_wait():
                pass

    @property
    def _wants_more(self) -> bool:
        return self._has_more_on_disk and len(self._seen) <= self._room // 2

    async def _refill_or_wait(self) -> bool:
        try:
            return await self._refill()
        except StoreError as error:
            _logger.warning("the outbox cannot be read, trying again: %s", error)
            await self._wait(_RETRY_SECONDS)
            return True

    async def _refill(self) -> bool:
        """Read the head of the table, and return whether there may be anything new in it at once.

        What is sent meanwhile waits, so that each pair keeps its order.
        """
        self._look_again = False
        self._is_refilling = True
        self._gone_meanwhile.clear()
        try:
            head = await self._store.read_outbox(self._room, self._room_bytes)
        except BaseException:
            self._came_meanwhile.clear()
            raise
        finally:
            self._is_refilling = False
        came, self._came_meanwhile = self._came_meanwhile, []
        came = [message for message in came if _name(message) not in self._gone_meanwhile]
        known = self._seen | self._gone_meanwhile
        new = [record for record in head.records if (record.run_id, record.number) not in known]
        read = [message for record in new if (message := _read(record)) is not None]
        self._unsure.update({_name(message) for message in read} - {_name(message) for message in came})
        too_many_came = len(came) > self._room
        self._has_more_on_disk = not head.is_all or too_many_came or self._look_again
        is_new = self._take(read if self._has_more_on_disk else [*read, *came]) > 0
        return is_new or too_many_came or self._look_again

    # --- delivering ---------------------------------------------------------------------------------------------------

    async def _carry_all(self, pair: Pair) -> None:
        """Deliver the messages of a pair one after the other, as long as there are any."""
        queue = self._waiting[pair]
        pause = _FIRST_RETRY_SECONDS
        while queue and not self._stopped.is_set():
            async with self._places:
                # While it waited for a place, it may have been withdrawn.
                is_done = not queue or self._stopped.is_set() or await self._carry(queue)
            if is_done:
                pause = _FIRST_RETRY_SECONDS
            else:
                await self._wait(pause)
                pause = min(2 * pause, _LAST_RETRY_SECONDS)
        del self._waiting[pair]
        if self._wants_more:
            self._wake.set()

    async def _carry(self, queue: list[Message]) -> bool:
        """Deliver the first message of a queue; return whether that is over, both ways durable."""
        message = queue[0]
        name = _name(message)
        self._on_their_way.add(name)
        try:
            await self._submit_both(message)
        except MessageGone:
            _logger.info("a message was answered already", extra={"run_id": message.sender_run_id})
        except Exception as error:
            if isinstance(error, Elsewhere) and error.shard == shard_of(message.sender):
                # Another node delivers what is left; or this one, if the shard is back already.
                self._leave(queue)
                queue.remove(message)
                self._forget(name)
                self.look_again()
                return True
            self._unsure.add(name)
            _logger.warning(
                "a message is not delivered yet, trying again: %s",
                error,
                exc_info=None if isinstance(error, ServerError | StoreError) else error,
                extra={"run_id": message.sender_run_id, "workflow_id": message.receiver.workflow_id},
            )
            return False
        finally:
            self._on_their_way.discard(name)
        if message in queue:
            queue.remove(message)
        self._forget(name)
        return True

    async def _submit_both(self, message: Message) -> None:
        self._ownership.require(message.sender)
        answer = await self._deliver(message, is_first=_name(message) not in self._unsure)
        await self._submit(message.sender, Acknowledge(message.sender_run_id, message, answer))

    def _leave(self, queue: list[Message]) -> None:
        """Forget the messages of a pair, unless they are on their way."""
        for message in list(queue):
            if _name(message) not in self._on_their_way:
                queue.remove(message)
                self._forget(_name(message))

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopped.wait()
        except TimeoutError:
            return


def _read(record: OutboxRecord) -> Message | None:
    """Return the message of a row; one that cannot be read must not keep all others waiting for ever."""
    try:
        return message_of(record)
    except Exception:
        _logger.exception("message %d of run %s cannot be read back from its row", record.number, record.run_id)
        return None


def _name(message: Message) -> tuple[str, int]:
    return message.sender_run_id, message.number
