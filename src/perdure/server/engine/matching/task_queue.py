"""One task queue in memory: the offers it holds and the polls that wait for one. It decides who gets what.

Truth is in the state of the runs, and the store keeps an index over it of all ready tasks. An *offer* is only a name in
that index. Holding an offer too many costs one refusal by the owner of the run (StaleTask); an offer too few would
leave a task waiting, so these rules keep that from happening:

- The window holds a bounded number of offers. Before one is left out, the queue is marked *more on disk*; the mark goes
  only when a read of the index, begun after it was last set, came to the end of what is there.
- A refill reads the head of the index, never from a cursor: rows commit in another order than their times. It passes
  over the names that are in the window, in flight, or answered lately. The last matter because a started workflow task
  stays in the index until its start is written, which can be never.
- While more is on disk and no refill is due, a new offer is left on disk too: what is there is older.
- An offer handed to a poll is *in flight* until its owner answered. One that arrives for the same name meanwhile is
  kept beside it and counts when the flight ends: it may be about the next task of that run.
- A query has no row in the index. It is refused at the border when there are too many, never dropped, and goes first:
  somebody is waiting for it.

The poll that has waited longest is served first, as in Temporal: it spreads the work over the workers.

Everything here is synchronous and without a clock; times are the loop time passed in. It must never await, log or know
what a poll is beyond whether it still waits.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import Generic, NamedTuple, Protocol, TypeVar


class QueueKind(IntEnum):
    """What the tasks of a queue are for; a sticky queue is a WORKFLOW queue. The values are those of TaskQueueType."""

    WORKFLOW = 1
    ACTIVITY = 2
    NEXUS = 3


class QueueKey(NamedTuple):
    """Which queue."""

    namespace_id: str
    name: str
    kind: QueueKind


class Offer(NamedTuple):
    """Says that a run has a ready task, or a query to be answered."""

    workflow_id: str
    run_id: str
    scheduled_event_id: int
    """Of an activity; 0 for a workflow task or a query."""
    query_id: str
    """Empty where it is not a query."""
    ready_at: int
    """Nanoseconds since the epoch."""


class Poll(Protocol):
    """A poll as the queue sees it."""

    def waiting(self) -> bool:
        """Return whether it still waits: it was given nothing, has not expired and was not cancelled."""


P = TypeVar("P", bound=Poll)


class Handover(NamedTuple, Generic[P]):
    """The decision that a poll gets an offer. The offer is in flight from now on."""

    poll: P
    offer: Offer


TaskName = tuple[str, int]


class TaskQueue(Generic[P]):
    """The offers and the waiting polls of one queue; never both at once, but for polls that wait no longer.

    Args:
        window_offers: How many task offers are held.
        refill_offers: How many a refill is meant to find. A refill is due when that many fit into the window.
        max_queries: How many queries may wait for a poll.
        answered_seconds: How long a refill passes over a name that was answered, at least; three times that at most.
        max_answered: How many of these names are remembered before the older half is forgotten.
    """

    def __init__(
        self,
        *,
        window_offers: int,
        refill_offers: int,
        max_queries: int,
        answered_seconds: float,
        max_answered: int,
    ) -> None:
        assert 0 < refill_offers <= window_offers, "a refill must fit into the window"
        self._window: OrderedDict[TaskName, Offer] = OrderedDict()
        self._in_flight: dict[TaskName, Offer | None] = {}
        self._overtaken: set[TaskName] = set()
        """Names in flight whose answer tells nothing of what is ready now."""
        self._queries: OrderedDict[str, Offer] = OrderedDict()
        self._queries_in_flight: set[str] = set()
        self._polls: OrderedDict[P, None] = OrderedDict()
        self._answered = RecentNames(answered_seconds, max_answered)
        self._window_offers = window_offers
        self._refill_offers = refill_offers
        self._max_queries = max_queries
        self._more_on_disk = True
        self._refill_pending = False
        self._extra_rows = 0

    # --- offers ---------------------------------------------------------------------------------------------------

    def add(self, offer: Offer) -> Handover[P] | None:
        """Take a task offer: for the poll that waits longest, else for the window, else it stays on disk only."""
        name = (offer.run_id, offer.scheduled_event_id)
        if name in self._in_flight:
            self._in_flight[name] = offer
            return None
        self._answered.discard(name)
        return self._place(name, offer)

    def add_query(self, offer: Offer) -> Handover[P] | None:
        """Take a query, for which `has_room_for_query` was asked before."""
        if offer.query_id in self._queries_in_flight or offer.query_id in self._queries:
            return None
        poll = self._next_poll()
        if poll is None:
            self._queries[offer.query_id] = offer
            return None
        self._queries_in_flight.add(offer.query_id)
        return Handover(poll, offer)

    def has_room_for_query(self) -> bool:
        """Return whether a further query would not be one too many."""
        return len(self._queries) < self._max_queries

    def withdraw_query(self, query_id: str) -> None:
        """Forget a query whose caller has gone. One that is in flight will not come back."""
        self._queries.pop(query_id, None)
        self._queries_in_flight.discard(query_id)

    def done(self, offer: Offer, now: float) -> Handover[P] | None:
        """End the flight of an offer whose owner has answered, whether it started the task or called it stale."""
        if offer.query_id:
            self._queries_in_flight.discard(offer.query_id)
            return None
        name = (offer.run_id, offer.scheduled_event_id)
        if name not in self._in_flight:
            return None
        newer = self._end_flight(name, offer)
        if newer is None:
            self._answered.add(name, now)
            return None
        return self._place(name, newer)

    def give_back(self, offer: Offer) -> Handover[P] | None:
        """End the flight of an offer that reached nobody: it is the next to be handed out."""
        return self._give_back_query(offer) if offer.query_id else self._give_back_task(offer)

    @property
    def offer_count(self) -> int:
        """How many offers are held, queries included."""
        return len(self._window) + len(self._queries)

    def held(self) -> list[Offer]:
        """Return the task offers in the window, the next one first."""
        return list(self._window.values())

    def is_under_way(self, run_id: str, scheduled_event_id: int) -> bool:
        """Return whether a task is with a poll or was answered lately: its row in the index is then no backlog."""
        name = (run_id, scheduled_event_id)
        return name in self._in_flight or name in self._answered

    # --- polls ----------------------------------------------------------------------------------------------------

    def take(self) -> Offer | None:
        """Return the next offer, in flight from now on, or None where there is none."""
        if self._queries:
            query_id, offer = self._queries.popitem(last=False)
            self._queries_in_flight.add(query_id)
            return offer
        if self._window:
            name, offer = self._window.popitem(last=False)
            self._in_flight[name] = None
            return offer
        return None

    def park(self, poll: P) -> None:
        """Let a poll wait that `take` had nothing for."""
        assert not self._window and not self._queries, "a poll waits only where there is nothing to take"
        self._polls[poll] = None

    def unpark(self, poll: P) -> None:
        """Forget a poll, whether it is still parked or not."""
        self._polls.pop(poll, None)

    def release(self) -> P | None:
        """Return the poll that waits longest, which does so no longer, for something else than an offer."""
        return self._next_poll()

    @property
    def parked(self) -> Sequence[P]:
        """The polls that are parked, the oldest first."""
        return list(self._polls)

    @property
    def parked_count(self) -> int:
        """How many polls are parked."""
        return len(self._polls)

    # --- the index on disk ----------------------------------------------------------------------------------------

    def refill_due(self) -> bool:
        """Return True when the index is to be read; then not again until that refill has ended."""
        if not self._more_on_disk or self._refill_pending:
            return False
        if len(self._window) > self._window_offers - self._refill_offers:
            return False
        self._refill_pending = True
        return True

    def begin_refill(self, now: float) -> int:
        """Say how many rows to read from the head of the index. The read must begin after this call.

        An offer that is left out from now on may be missing in what is read, so it sets the mark anew. A read that
        failed is begun again, with this call.
        """
        self._answered.forget_old(now)
        self._more_on_disk = False
        return self._refill_offers + len(self._window) + len(self._in_flight) + self._extra_rows

    def end_refill(self, rows: Iterable[Offer], limit: int) -> list[Handover[P]]:
        """Take what was read with that limit, and hand out what parked polls can have of it."""
        handovers: list[Handover[P]] = []
        read = passed_over = added = 0
        for offer in rows:
            read += 1
            name = (offer.run_id, offer.scheduled_event_id)
            if name in self._window or name in self._in_flight:
                continue
            if name in self._answered:
                passed_over += 1
                continue
            added += 1
            handover = self._place(name, offer)
            if handover is not None:
                handovers.append(handover)
        self._refill_pending = False
        came_to_the_end = read < limit
        if not came_to_the_end:
            self._more_on_disk = True
        # Answered names at the head are known only by reading them. Where they filled the page, read twice as far.
        fruitless = not came_to_the_end and added * 2 < self._refill_offers
        self._extra_rows = 2 * passed_over + self._refill_offers if fruitless else passed_over
        return handovers

    def doubt(self) -> None:
        """Assume that the index holds more than is known here: the net under all the rules above."""
        self._more_on_disk = True

    def begin_anew(self) -> None:
        """Rely on no answer of the past: in a shard that comes from another node, what was started may be ready again.

        What is in flight was asked for before that, so it is offered once more.
        """
        self._answered.clear()
        self._overtaken.update(self._in_flight)
        self._more_on_disk = True

    def is_idle(self) -> bool:
        """Return whether the queue can be forgotten: all it holds is also on disk, and nobody waits for it."""
        return (
            not self._polls
            and not self._in_flight
            and not self._queries
            and not self._queries_in_flight
            and not self._refill_pending
        )

    # --- within ---------------------------------------------------------------------------------------------------

    def _end_flight(self, name: TaskName, offer: Offer) -> Offer | None:
        """Return what is to be offered under a name whose flight has ended; None where its owner has seen to it."""
        newer = self._in_flight.pop(name)
        if name in self._overtaken:
            self._overtaken.discard(name)
            return newer or offer
        return newer

    def _place(self, name: TaskName, offer: Offer) -> Handover[P] | None:
        poll = self._next_poll()
        if poll is not None:
            self._in_flight[name] = None
            return Handover(poll, offer)
        if name in self._window or self._may_hold_more():
            self._window[name] = offer
        else:
            self._more_on_disk = True
        return None

    def _may_hold_more(self) -> bool:
        older_on_disk = self._more_on_disk and not self._refill_pending
        return len(self._window) < self._window_offers and not older_on_disk

    def _next_poll(self) -> P | None:
        while self._polls:
            poll, _ = self._polls.popitem(last=False)
            if poll.waiting():
                return poll
        return None

    def _give_back_task(self, offer: Offer) -> Handover[P] | None:
        name = (offer.run_id, offer.scheduled_event_id)
        if name not in self._in_flight:
            return None
        newer = self._end_flight(name, offer) or offer
        poll = self._next_poll()
        if poll is not None:
            self._in_flight[name] = None
            return Handover(poll, newer)
        if len(self._window) >= self._window_offers:
            self._more_on_disk = True
            self._window.popitem(last=True)
        self._window[name] = newer
        self._window.move_to_end(name, last=False)
        return None

    def _give_back_query(self, offer: Offer) -> Handover[P] | None:
        if offer.query_id not in self._queries_in_flight:
            return None
        poll = self._next_poll()
        if poll is not None:
            return Handover(poll, offer)
        self._queries_in_flight.remove(offer.query_id)
        self._queries[offer.query_id] = offer
        self._queries.move_to_end(offer.query_id, last=False)
        return None


class RecentNames:
    """Task names of the last while, in two generations of which the older is forgotten as a whole.

    Args:
        seconds: How long a name is remembered at least; three times that at most, if time is told often enough.
        limit: How many names a generation may hold before it becomes the older one early.
    """

    def __init__(self, seconds: float, limit: int) -> None:
        self._seconds = seconds
        self._limit = limit
        self._younger: set[TaskName] = set()
        self._older: set[TaskName] = set()
        self._older_until = 0.0

    def add(self, name: TaskName, now: float) -> None:
        self.forget_old(now)
        self._younger.add(name)

    def discard(self, name: TaskName) -> None:
        self._younger.discard(name)
        self._older.discard(name)

    def clear(self) -> None:
        self._younger.clear()
        self._older.clear()

    def forget_old(self, now: float) -> None:
        """Begin a new generation where it is time."""
        if now >= self._older_until or len(self._younger) >= self._limit:
            expired = now >= self._older_until + self._seconds
            self._older = set() if expired else self._younger
            self._younger = set()
            self._older_until = now + self._seconds

    def __contains__(self, name: object) -> bool:
        return name in self._younger or name in self._older

    def __len__(self) -> int:
        return len(self._younger) + len(self._older)
