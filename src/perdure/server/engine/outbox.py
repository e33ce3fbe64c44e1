"""The outbox: carries messages from run to workflow id until their receivers have answered.

A bounded window over the store's table of messages, soft state like the matcher's: a message is in it because its
transition became durable here, or because the table was read, at start-up and whenever the window had no room. Messages
of one pair (sending run, receiving id) go one after the other, in their order; different pairs at the same time.

The table is read in rounds, page by page from its head to its end. A round that passed by something which is not in the
window, because it was sent meanwhile, is followed by another one; after one that did not, what is sent is taken in as
it comes. A pair whose message has failed for long is *set aside*: it leaves the window, for others must not wait until
it can be delivered, and is tried again as rounds meet it, one of which begins at least every minute.

Delivering is two inputs, each durable before the next thing happens: the message to its receiver, its answer to its
sender, whose transaction ends the message. Whatever breaks off is begun anew; only failures of the engine or the store
are, a refusal is an answer. This module knows no rule: what a message does is the core's.
"""

from __future__ import annotations

import asyncio
import logging
from bisect import insort
from collections.abc import Awaitable, Callable, Container
from operator import attrgetter
from typing import Final, NamedTuple, Protocol

from perdure.server.core.errors import DataLoss, InvalidArgument, ServerError
from perdure.server.core.inputs import Acknowledge, Input
from perdure.server.core.messages import Answer, Message, message_of, size_of
from perdure.server.core.records import OutboxRecord, WorkflowKey
from perdure.server.core.shards import shard_of
from perdure.server.engine.background import run_for_ever
from perdure.server.engine.cluster.ownership import Elsewhere, Ownership
from perdure.server.engine.deliveries import MessageGone
from perdure.server.engine.settings import EngineSettings
from perdure.server.store.interface import MessagePosition, OutboxPage, Store, StoreError

_logger = logging.getLogger(__name__)

_FIRST_RETRY_SECONDS: Final = 0.1
_LAST_PAUSE_SECONDS: Final = 1.0
_LAST_PASSING_PAUSE_SECONDS: Final = 30.0
"""The same for failures that pass by themselves, as of a node or a database that is away."""
_ASIDE_SECONDS: Final = 30.0
_ASIDE_REMEMBERED_SECONDS: Final = 3_600.0
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
        self._seen: dict[tuple[str, int], int] = {}
        """The names of the messages of the window, and how many bytes each has."""
        self._bytes = 0
        self._unsure: set[tuple[str, int]] = set()
        """Those that may have been delivered before: they came from the table, or broke off."""
        self._aside: dict[Pair, float] = {}
        """Pairs that were set aside and have not succeeded since: when each may be tried again."""
        self._has_more_on_disk = True
        self._position: MessagePosition | None = None
        """Up to where the round has come; None at the head of the table."""
        self._round_began = 0.0
        self._has_passed_by = False
        """Whether something may have been passed by in this round that is not in the window."""
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
        elif self._has_more_on_disk or not self._has_room(1):
            # Those on the disk may be earlier ones of the same pair.
            self._has_more_on_disk = self._has_passed_by = True
        elif not self._is_aside(message):
            self._take(message)

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
        self._position = None
        self.look_again()

    def release(self, shards: Container[int]) -> None:
        """Forget the messages of senders whose shards are another node's from now on, unless they are on their way."""
        for queue in self._waiting.values():
            if queue and shard_of(queue[0].sender) in shards:
                self._leave(queue)
        self._came_meanwhile = [message for message in self._came_meanwhile if shard_of(message.sender) not in shards]

    def look_again(self) -> None:
        """Read the table: this node has come to own more of it. What is being read now may not show it."""
        self._has_more_on_disk = self._has_passed_by = True
        self._wake.set()

    # --- the window ---------------------------------------------------------------------------------------------------

    def _has_room(self, share: int) -> bool:
        """Return whether less than one part of so many of the window is taken."""
        return len(self._seen) * share < self._room and self._bytes * share < self._room_bytes

    def _forget(self, name: tuple[str, int]) -> None:
        self._bytes -= self._seen.pop(name, 0)
        self._unsure.discard(name)
        if self._is_refilling:
            # What is being read may still show it.
            self._gone_meanwhile.add(name)

    def _take(self, message: Message) -> None:
        name = _name(message)
        if name in self._seen:
            return
        self._seen[name] = size = size_of(message.body)
        self._bytes += size
        pair = _pair(message)
        queue = self._waiting.get(pair)
        if queue is not None:
            insort(queue, message, key=_BY_NUMBER)
        else:
            self._waiting[pair] = [message]
            task = asyncio.create_task(self._carry_all(pair), name=f"messages of {message.sender_run_id}")
            self._carrying.add(task)
            task.add_done_callback(self._carrying.discard)

    # --- reading ------------------------------------------------------------------------------------------------------

    async def _refill_for_ever(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._rescan_seconds):
                    await self._wake.wait()
            except TimeoutError:
                # The net: nothing should be there that is not in the window.
                self._has_more_on_disk = True
            self._wake.clear()
            while self._wants_more:
                await self._refill_or_wait()

    @property
    def _wants_more(self) -> bool:
        return self._has_more_on_disk and self._has_room(2)

    async def _refill_or_wait(self) -> None:
        try:
            await self._refill()
        except StoreError as error:
            _logger.warning("the outbox cannot be read, trying again: %s", error)
            await self._wait(_RETRY_SECONDS)

    async def _refill(self) -> None:
        """Read the next page of the table. What is sent meanwhile waits, so that each pair keeps its order."""
        after = self._position
        if after is None:
            self._has_passed_by = False
            self._round_began = asyncio.get_running_loop().time()
        self._is_refilling = True
        self._gone_meanwhile.clear()
        try:
            page = await self._store.read_outbox(self._room, self._room_bytes, after)
        except BaseException:
            # What came was passed by.
            self._came_meanwhile.clear()
            self._has_passed_by = True
            raise
        finally:
            self._is_refilling = False
        came, self._came_meanwhile = self._came_meanwhile, []
        came = [message for message in came if _name(message) not in self._gone_meanwhile]
        known = self._seen.keys() | self._gone_meanwhile
        new = [record for record in page.records if (record.run_id, record.number) not in known]
        read = [message for record in new if (message := _read(record)) is not None and self._may_try(message)]
        self._unsure.update({_name(message) for message in read} - {_name(message) for message in came})
        for message in read:
            self._take(message)
        if len(came) > self._room:
            self._has_passed_by = True
        self._go_on(page, after)
        if self._has_more_on_disk:
            self._has_passed_by |= bool(came)
            return
        for message in came:
            if not self._is_aside(message):
                self._take(message)

    def _go_on(self, page: OutboxPage, after: MessagePosition | None) -> None:
        """Note up to where the round has come, or that it is over, unless it was begun anew meanwhile."""
        if self._position != after:
            return
        if not page.is_last:
            last = page.records[-1]
            self._position = MessagePosition(last.run_id, last.number)
            return
        self._position = None
        self._has_more_on_disk = self._has_passed_by
        # A pair that still had messages would have been met and tried since.
        forgotten = self._round_began - _ASIDE_REMEMBERED_SECONDS
        self._aside = {pair: due for pair, due in self._aside.items() if due > forgotten}

    def _is_aside(self, message: Message) -> bool:
        """Return whether a message that was sent has to wait in the table behind those of its pair."""
        pair = _pair(message)
        return pair in self._aside and pair not in self._waiting

    def _may_try(self, message: Message) -> bool:
        """Return whether a message that was read may be tried: all of its pair in one round, or none of them."""
        due = self._aside.get(_pair(message))
        return due is None or due <= self._round_began

    # --- delivering ---------------------------------------------------------------------------------------------------

    async def _carry_all(self, pair: Pair) -> None:
        """Deliver the messages of a pair one after the other, as long as there are any."""
        queue = self._waiting[pair]
        pause = _FIRST_RETRY_SECONDS
        while queue and not self._stopped.is_set():
            async with self._places:
                if not queue or self._stopped.is_set():
                    # It was withdrawn while it waited for a place.
                    break
                failure = await self._carry(queue)
            if failure is None:
                pause = _FIRST_RETRY_SECONDS
                self._aside.pop(pair, None)
            elif pair in self._aside or pause > _last_pause(failure):
                self._aside[pair] = asyncio.get_running_loop().time() + _ASIDE_SECONDS
                self._leave(queue)
            else:
                await self._wait(pause)
                pause *= 2
        del self._waiting[pair]
        if self._wants_more:
            self._wake.set()

    async def _carry(self, queue: list[Message]) -> Exception | None:
        """Deliver the first message of a queue; return what has failed, None where it is over, both ways durable."""
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
                return None
            self._unsure.add(name)
            _logger.warning(
                "a message is not delivered yet, trying again: %s",
                error,
                exc_info=None if isinstance(error, ServerError | StoreError) else error,
                extra={"run_id": message.sender_run_id, "workflow_id": message.receiver.workflow_id},
            )
            return error
        finally:
            self._on_their_way.discard(name)
        if message in queue:
            queue.remove(message)
        self._forget(name)
        return None

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


def _last_pause(failure: Exception) -> float:
    """Return after how long a pause a message that fails so is set aside."""
    is_passing = isinstance(failure, ServerError | StoreError) and not isinstance(failure, DataLoss | InvalidArgument)
    return _LAST_PASSING_PAUSE_SECONDS if is_passing else _LAST_PAUSE_SECONDS


def _pair(message: Message) -> Pair:
    return Pair(message.sender_run_id, message.receiver)


def _name(message: Message) -> tuple[str, int]:
    return message.sender_run_id, message.number
