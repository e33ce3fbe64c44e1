"""Task queues across nodes: which node polls what, and who has tasks that nobody polls for where they are.

A poll is matched on the node at which it arrives, first with tasks of that node's own shards. What is left over travels
by three rules, all of them soft state that a broken link resets:

- A node *announces* to all others which queues are polled there, and when that ends. So an owner knows at once whether
  anybody polls a queue, a sticky one above all, and asks nobody for it.
- A node with tasks for which no poll waits *knocks* at a node that polls the queue. Until it is told "no more" it does
  not knock there again: the other keeps a *hint*.
- A node with a hint sends a waiting poll over, the *visit*. The owner starts the task as for a poll of its own; the
  answer carries the task, and how many there are still. With a hint and no poll that waits, it answers the knock with
  *busy*, and the owner knocks elsewhere too; its next polls take turns between its own tasks and those of the hints.

A knock and the answer to a visit may overtake one another on their way through this node's tasks. So both carry a
serial number of the owner's, and what is older than what was heard last is passed over. As a net the owner knocks
again, now and then, for offers that nobody came for.

Every node knows all polled queues instead of a home for each: a poll begins and ends rarely, a task needs no third
node, and no role has to be taken over when a node dies. See docs/decisions/0009-task-queues-across-nodes.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

import msgspec

from perdure.server.engine.cluster.link import Link
from perdure.server.engine.matching import QueueKey, QueueKind

POLLS: Final = "polls"
KNOCK: Final = "knock"
BUSY: Final = "busy"


class Queue(msgspec.Struct, array_like=True):
    """A task queue as it is named to other nodes."""

    namespace_id: str
    name: str
    kind: int

    @property
    def key(self) -> QueueKey:
        """The queue as the matcher names it."""
        return QueueKey(self.namespace_id, self.name, QueueKind(self.kind))


class Announcement(msgspec.Struct, array_like=True):
    """A node polls a queue, or does so no longer."""

    queue: Queue
    is_polled: bool
    is_sticky: bool = False
    """Whether only one worker polls it."""


class Knock(msgspec.Struct, array_like=True):
    """A node has so many tasks for which no poll waits there."""

    queue: Queue
    count: int
    serial: int
    """Rises with everything that this node says of its tasks."""


class Visit(msgspec.Struct, array_like=True):
    """A poll that is sent over: the request as the worker made it."""

    queue: Queue
    request: bytes


class Visited(msgspec.Struct, array_like=True):
    """What a visit brings home: the reply for the worker, empty for none, and how many tasks there are still."""

    reply: bytes
    left: int
    serial: int
    """See `Knock.serial`."""


_encode: Final = msgspec.msgpack.Encoder().encode
_announcement: Final = msgspec.msgpack.Decoder(Announcement)
_knock: Final = msgspec.msgpack.Decoder(Knock)
_queue: Final = msgspec.msgpack.Decoder(Queue)


class LocalQueues(Protocol):
    """What this module asks of the matcher of its node."""

    def has_recent_local_poller(self, key: QueueKey) -> bool:
        """Return whether a poll waits here, or one began or ended lately."""

    def look_for_tasks(self, key: QueueKey, *, is_sticky: bool) -> None:
        """See whether there are tasks of this node's shards in a queue, and report what is left over."""

    def send_over(self, key: QueueKey, node: str) -> bool:
        """Have the poll that waits longest visit a node; return False where none waits."""

    def offer_count(self, key: QueueKey) -> int:
        """Return how many offers for a queue are held."""


class _Hint(msgspec.Struct):
    """What is known of another node's tasks in a queue."""

    left: int
    serial: int
    visits: int = 0


class _Here(msgspec.Struct):
    """A queue that is polled here."""

    is_sticky: bool
    hints: dict[str, _Hint] = {}
    turn: int = 0


class _There(msgspec.Struct):
    """A queue that other nodes poll."""

    nodes: dict[str, None] = {}
    knocked: dict[str, None] = {}
    busy: set[str] = set()


class NeighbourQueues:
    """The task queues of the other nodes, as far as they concern this one.

    Args:
        links: The links that are up.
    """

    def __init__(self, links: Callable[[], list[Link]]) -> None:
        self._links = links
        self._local: LocalQueues
        self._here: dict[QueueKey, _Here] = {}
        self._there: dict[QueueKey, _There] = {}
        self._serial = 0

    def attach(self, local: LocalQueues) -> None:
        """Take the matcher of this node, before anything else."""
        self._local = local

    # --- polls here ---------------------------------------------------------------------------------------------------

    def polled(self, key: QueueKey, *, is_sticky: bool) -> None:
        """Note that a poll of a queue has come to this node."""
        if key not in self._here:
            self._here[key] = _Here(is_sticky)
            self._announce(Announcement(_named(key), True, is_sticky))

    def source(self, key: QueueKey, *, has_local: bool) -> str | None:
        """Return the node that a poll is to visit now, None where it should see to this node's own tasks."""
        here = self._here.get(key)
        if here is None or not here.hints:
            return None
        sources = [node for node, hint in here.hints.items() if hint.visits < hint.left]
        if not sources:
            return None
        here.turn += 1
        turn = here.turn % (len(sources) + has_local)
        if turn == len(sources):
            return None
        here.hints[sources[turn]].visits += 1
        return sources[turn]

    def returns(self, key: QueueKey, node: str, told: Visited | None) -> None:
        """Note what a visit told of the tasks that are left there; None where it told nothing."""
        hint = self._hint(key, node)
        if hint is None:
            return
        hint.visits = max(hint.visits - 1, 0)
        if told is not None and told.serial > hint.serial:
            hint.left, hint.serial = told.left, told.serial
        if hint.left == 0 and hint.visits == 0:
            del self._here[key].hints[node]
            return
        self._send_over(key, node, hint)

    def stays(self, key: QueueKey, node: str) -> None:
        """Note that a poll that was to visit a node has gone before."""
        self.returns(key, node, None)

    def gives_up(self, key: QueueKey, node: str) -> None:
        """Note that a visit got no answer in time: no poll is to go there until it knocks anew."""
        hint = self._hint(key, node)
        if hint is not None:
            hint.left = 0

    def sweep(self) -> None:
        """Tell the others which queues are not polled here any more, and knock again for what is left over."""
        for key, there in self._there.items():
            count = self._local.offer_count(key) if there.knocked else 0
            for node in there.knocked if count else ():
                self._tell(node, KNOCK, self._knock(key, count))
        for key in [key for key in self._here if not self._local.has_recent_local_poller(key)]:
            del self._here[key]
            self._announce(Announcement(_named(key), False))

    # --- tasks here ---------------------------------------------------------------------------------------------------

    def polls(self, key: QueueKey) -> bool:
        """Return whether another node polls a queue."""
        return key in self._there

    def left_over(self, key: QueueKey, count: int) -> None:
        """Note that this node holds offers for a queue, for which no poll waits here."""
        there = self._there.get(key)
        if there is not None and not there.knocked.keys() - there.busy:
            self._knock_next(key, there, count)

    def visited(self, key: QueueKey, node: str, left: int) -> int:
        """Note what a visiting node is told of the offers left here, and return the serial number of saying so."""
        self._serial += 1
        there = self._there.get(key)
        if there is None:
            return self._serial
        if left == 0:
            there.knocked.pop(node, None)
        else:
            there.knocked[node] = None
        there.busy.discard(node)
        return self._serial

    # --- what other nodes say -----------------------------------------------------------------------------------------

    def heard(self, peer: str, topic: str, body: bytes) -> None:
        """Take in news of another node."""
        if topic == POLLS:
            announcement = _announcement.decode(body)
            self._hear_announcement(peer, announcement)
        elif topic == KNOCK:
            knock = _knock.decode(body)
            self._hear_knock(peer, knock)
        elif topic == BUSY:
            self._hear_busy(peer, _queue.decode(body).key)

    def linked(self, link: Link) -> None:
        """Begin anew with a node to which a link has come up."""
        self.unlinked(link.peer)
        for key, here in self._here.items():
            link.cast(POLLS, _encode(Announcement(_named(key), True, here.is_sticky)))

    def unlinked(self, peer: str) -> None:
        """Forget what is known of a node that cannot be reached."""
        for here in self._here.values():
            here.hints.pop(peer, None)
        for key, there in list(self._there.items()):
            self._forget_poller(peer, key, there)

    # --- within -------------------------------------------------------------------------------------------------------

    def _announce(self, announcement: Announcement) -> None:
        body = _encode(announcement)
        for link in self._links():
            link.cast(POLLS, body)

    def _hint(self, key: QueueKey, node: str) -> _Hint | None:
        here = self._here.get(key)
        return here.hints.get(node) if here is not None else None

    def _hear_announcement(self, peer: str, announcement: Announcement) -> None:
        key = announcement.queue.key
        there = self._there.get(key)
        if announcement.is_polled:
            if there is None:
                there = self._there[key] = _There()
            there.nodes[peer] = None
            self._local.look_for_tasks(key, is_sticky=announcement.is_sticky)
        elif there is not None:
            self._forget_poller(peer, key, there)

    def _forget_poller(self, peer: str, key: QueueKey, there: _There) -> None:
        had_a_hint = peer in there.knocked
        there.nodes.pop(peer, None)
        there.knocked.pop(peer, None)
        there.busy.discard(peer)
        if not there.nodes:
            del self._there[key]
        elif had_a_hint:
            count = self._local.offer_count(key)
            if count:
                self.left_over(key, count)

    def _hear_knock(self, peer: str, knock: Knock) -> None:
        here = self._here.get(knock.queue.key)
        if here is None:
            # It is not polled here any more, as the other node has been told or will be.
            self._tell(peer, BUSY, knock.queue)
            return
        key, hints = knock.queue.key, here.hints
        hint = hints.get(peer)
        if hint is None:
            hint = hints[peer] = _Hint(knock.count, knock.serial)
        elif knock.serial > hint.serial:
            hint.left, hint.serial = knock.count, knock.serial
        self._send_over(key, peer, hint)

    def _hear_busy(self, peer: str, key: QueueKey) -> None:
        there = self._there.get(key)
        if there is None or peer not in there.knocked:
            return
        there.busy.add(peer)
        count = self._local.offer_count(key)
        if count:
            self._knock_next(key, there, count)

    def _knock_next(self, key: QueueKey, there: _There, count: int) -> None:
        """Knock at the node that was not knocked at for longest; where all have a hint already, at none."""
        for node in there.nodes:
            if node not in there.knocked:
                there.knocked[node] = None
                # To the end: the next knock is for another one.
                there.nodes[node] = there.nodes.pop(node)
                self._tell(node, KNOCK, self._knock(key, count))
                return

    def _knock(self, key: QueueKey, count: int) -> Knock:
        self._serial += 1
        return Knock(_named(key), count, self._serial)

    def _send_over(self, key: QueueKey, node: str, hint: _Hint) -> None:
        """Let as many waiting polls visit a node as it has tasks; where none can, tell it."""
        while hint.visits < hint.left and self._local.send_over(key, node):
            hint.visits += 1
        if hint.visits == 0:
            self._tell(node, BUSY, _named(key))

    def _tell(self, node: str, topic: str, news: Knock | Queue) -> None:
        for link in self._links():
            if link.peer == node:
                link.cast(topic, _encode(news))


def _named(key: QueueKey) -> Queue:
    return Queue(key.namespace_id, key.name, int(key.kind))
