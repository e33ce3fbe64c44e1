"""A machine that tries all orders of events against the rules of a task queue."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from perdure.server.engine.matching.task_queue import Handover, Offer, TaskName, TaskQueue
from tests.server.engine.matching.fakes import FakePoll, query, task

WINDOW = 2
REFILL = 1


class Matching(RuleBasedStateMachine):
    """A queue, an index, and owners that know the truth; whatever happens, no ready task may be forgotten.

    A task becomes ready by a commit, which puts it into the index, and is offered some time later. Its owner starts it
    in memory only, so its row stays; the start is written later, or lost, which makes the task ready again.
    """

    def __init__(self) -> None:
        super().__init__()
        self.queue: TaskQueue[FakePoll] = TaskQueue(
            window_offers=WINDOW, refill_offers=REFILL, max_queries=2, answered_seconds=10, max_answered=1_000
        )
        self.now = 0.0
        self.index: dict[TaskName, Offer] = {}
        self.ready: set[TaskName] = set()
        self.unpublished: list[Offer] = []
        self.flights: list[Offer] = []
        self.landing: list[Offer] = []
        self.polls: list[FakePoll] = []
        self.reading: tuple[int, list[Offer]] | None = None
        self.refill_due = False
        self.queries: set[str] = set()
        self.asked = 0

    # A started task becomes ready anew under the same name, as the next workflow task of its run does.
    @rule(number=st.integers(0, 6), published=st.booleans())
    def commit(self, number: int, published: bool) -> None:
        offer = task(number)
        name = (offer.run_id, offer.scheduled_event_id)
        self.index.setdefault(name, offer)
        if name not in self.ready:
            self.ready.add(name)
            self.unpublished.append(offer)
            if published:
                self.publish(-1)

    @precondition(lambda self: self.unpublished)
    @rule(position=st.integers(0, 100))
    def publish(self, position: int) -> None:
        offer = self.unpublished.pop(position % len(self.unpublished))
        self.fly(self.queue.add(offer))

    @rule()
    def ask(self) -> None:
        self.asked += 1
        if self.queue.has_room_for_query():
            self.queries.add(f"q{self.asked}")
            self.fly(self.queue.add_query(query(self.asked)))

    @precondition(lambda self: self.queries)
    @rule(position=st.integers(0, 100))
    def withdraw(self, position: int) -> None:
        query_id = sorted(self.queries)[position % len(self.queries)]
        self.queries.remove(query_id)
        self.queue.withdraw_query(query_id)

    @rule()
    def poll(self) -> None:
        offer = self.queue.take()
        self.refill_due |= self.queue.refill_due()
        if offer is not None:
            self.flights.append(offer)
            return
        poll = FakePoll()
        self.polls.append(poll)
        self.queue.park(poll)

    @precondition(lambda self: self.polls)
    @rule(position=st.integers(0, 100), unparked=st.booleans())
    def cancel_poll(self, position: int, unparked: bool) -> None:
        poll = self.polls.pop(position % len(self.polls))
        poll.gone = True
        if unparked:
            self.queue.unpark(poll)

    @precondition(lambda self: self.flights)
    @rule(position=st.integers(0, 100))
    def give_back(self, position: int) -> None:
        self.fly(self.queue.give_back(self.flights.pop(position % len(self.flights))))

    # Between the owner's answer and its arrival here the run may move on, and its next task may be ready.
    @precondition(lambda self: self.flights)
    @rule(position=st.integers(0, 100))
    def answer(self, position: int) -> None:
        offer = self.flights.pop(position % len(self.flights))
        if offer.query_id:
            self.queries.discard(offer.query_id)
        else:
            self.ready.discard((offer.run_id, offer.scheduled_event_id))
        self.landing.append(offer)

    @precondition(lambda self: self.landing)
    @rule(position=st.integers(0, 100))
    def land(self, position: int) -> None:
        self.fly(self.queue.done(self.landing.pop(position % len(self.landing)), self.now))

    @precondition(lambda self: set(self.index) - self.ready)
    @rule(position=st.integers(0, 100))
    def write_start(self, position: int) -> None:
        started = sorted(set(self.index) - self.ready)
        del self.index[started[position % len(started)]]

    @precondition(lambda self: set(self.index) - self.ready)
    @rule(position=st.integers(0, 100))
    def lose_start(self, position: int) -> None:
        started = sorted(set(self.index) - self.ready)
        name = started[position % len(started)]
        self.ready.add(name)
        self.unpublished.append(self.index[name])

    @precondition(lambda self: self.refill_due and self.reading is None)
    @rule()
    def begin_refill(self) -> None:
        limit = self.queue.begin_refill(self.now)
        self.refill_due = False
        self.reading = (limit, list(self.index.values())[:limit])

    @precondition(lambda self: self.reading is not None)
    @rule(fails=st.integers(0, 4).map(lambda number: number == 4))
    def end_refill(self, fails: bool) -> None:
        assert self.reading is not None
        limit, rows = self.reading
        self.reading = None
        if fails:
            self.refill_due = True
            return
        for handover in self.queue.end_refill(rows, limit):
            self.fly(handover)
        if self.queue.parked_count:
            self.refill_due |= self.queue.refill_due()

    @rule(seconds=st.sampled_from([1.0, 9.0, 40.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        if seconds == 40.0:
            self.queue.doubt()
            if self.queue.parked_count:
                self.refill_due |= self.queue.refill_due()

    def fly(self, handover: Handover[FakePoll] | None) -> None:
        if handover is None:
            return
        assert handover.poll in self.polls, "an offer went to a poll that does not wait"
        self.polls.remove(handover.poll)
        handover.poll.gone = True
        self.flights.append(handover.offer)

    @invariant()
    def nothing_flies_twice(self) -> None:
        flying = (*self.flights, *self.landing)
        tasks = [(offer.run_id, offer.scheduled_event_id) for offer in flying if not offer.query_id]
        assert len(tasks) == len(set(tasks))
        held = {(offer.run_id, offer.scheduled_event_id) for offer in self.queue.held()}
        assert not held & set(tasks)

    @invariant()
    def the_window_is_bounded(self) -> None:
        assert len(self.queue.held()) <= WINDOW

    @invariant()
    def nobody_waits_beside_a_held_offer(self) -> None:
        assert not (self.polls and self.queue.held())

    @invariant()
    def a_waiting_poll_knows_all_or_is_about_to_read(self) -> None:
        if self.polls and not self.refill_due and self.reading is None:
            on_their_way = (*self.flights, *self.landing, *self.unpublished)
            assert self.ready <= {(offer.run_id, offer.scheduled_event_id) for offer in on_their_way}

    def teardown(self) -> None:
        """Whatever was ready is handed out once everything has come to rest, without any help from a rescan."""
        while self.unpublished:
            self.publish(0)
        for _ in range(200):
            if self.flights:
                self.answer(0)
            elif self.landing:
                self.land(0)
            elif self.reading is not None:
                self.end_refill(fails=False)
            elif self.refill_due:
                self.begin_refill()
            elif not self.polls:
                self.poll()
            else:
                break
        else:
            raise AssertionError("the queue does not come to rest")
        assert not self.ready
        assert not self.queries


TestMatching = Matching.TestCase
TestMatching.settings = settings(max_examples=300, stateful_step_count=60, deadline=None)
