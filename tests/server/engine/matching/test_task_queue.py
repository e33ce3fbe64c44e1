"""What one task queue decides, rule by rule; `test_task_queue_orders.py` tries them in all orders."""

from __future__ import annotations

from perdure.server.engine.matching.task_queue import Handover, Offer, RecentNames, TaskQueue
from tests.server.engine.matching.fakes import FakePoll, query, task

WINDOW = 4
REFILL = 2


def task_queue() -> TaskQueue[FakePoll]:
    return TaskQueue(
        window_offers=WINDOW,
        refill_offers=REFILL,
        max_queries=2,
        answered_seconds=10,
        max_answered=1_000,
    )


def complete_queue() -> TaskQueue[FakePoll]:
    """A queue that has read the index and found nothing."""
    queue = task_queue()
    assert refill(queue, []) == []
    return queue


def refill(queue: TaskQueue[FakePoll], index: list[Offer], now: float = 0.0) -> list[Handover[FakePoll]]:
    assert queue.refill_due()
    limit = queue.begin_refill(now)
    return queue.end_refill(index[:limit], limit)


def parked(queue: TaskQueue[FakePoll]) -> FakePoll:
    assert queue.take() is None
    poll = FakePoll()
    queue.park(poll)
    return poll


# --- offers and polls -------------------------------------------------------------------------------------------------


def test_an_offer_goes_to_the_poll_that_waits_longest() -> None:
    queue = complete_queue()
    first, second = parked(queue), parked(queue)
    assert queue.add(task(1)) == Handover(first, task(1))
    assert queue.add(task(2)) == Handover(second, task(2))


def test_a_poll_that_waits_no_longer_is_passed_over() -> None:
    queue = complete_queue()
    first, second = parked(queue), parked(queue)
    first.gone = True
    assert queue.add(task(1)) == Handover(second, task(1))
    assert queue.parked_count == 0


def test_held_offers_are_taken_in_the_order_of_their_coming() -> None:
    queue = complete_queue()
    for number in (1, 2, 3):
        assert queue.add(task(number)) is None
    assert [queue.take(), queue.take(), queue.take(), queue.take()] == [task(1), task(2), task(3), None]


def test_the_same_task_is_held_once() -> None:
    queue = complete_queue()
    queue.add(task(1))
    queue.add(task(1))
    assert queue.held() == [task(1)]


def test_two_activities_of_a_run_are_two_tasks() -> None:
    queue = complete_queue()
    queue.add(task(1, scheduled_event_id=5))
    queue.add(task(1, scheduled_event_id=6))
    assert len(queue.held()) == 2


def test_an_offer_in_flight_is_not_handed_out_again() -> None:
    queue = complete_queue()
    queue.add(task(1))
    assert queue.take() == task(1)
    queue.add(task(1))
    assert queue.take() is None


def test_an_offer_that_came_during_the_flight_counts_when_it_ends() -> None:
    queue = complete_queue()
    queue.add(task(1))
    flying = queue.take()
    assert flying is not None
    newer = flying._replace(ready_at=99)
    queue.add(newer)
    poll = parked(queue)
    assert queue.done(flying, now=0.0) == Handover(poll, newer)


def test_an_offer_given_back_is_the_next_one() -> None:
    queue = complete_queue()
    queue.add(task(1))
    queue.add(task(2))
    first = queue.take()
    assert first is not None
    assert queue.give_back(first) is None
    assert queue.held() == [task(1), task(2)]


def test_what_is_given_back_is_the_newest_offer_of_that_name() -> None:
    queue = complete_queue()
    queue.add(task(1))
    flying = queue.take()
    assert flying is not None
    newer = flying._replace(ready_at=99)
    queue.add(newer)
    queue.give_back(flying)
    assert queue.held() == [newer]


def test_an_offer_given_back_goes_to_a_parked_poll() -> None:
    queue = complete_queue()
    queue.add(task(1))
    first = queue.take()
    assert first is not None
    poll = parked(queue)
    assert queue.give_back(first) == Handover(poll, task(1))


def test_giving_back_twice_makes_no_second_offer() -> None:
    queue = complete_queue()
    queue.add(task(1))
    first = queue.take()
    assert first is not None
    queue.give_back(first)
    queue.give_back(first)
    assert queue.held() == [task(1)]
    assert queue.done(first, now=0.0) is None
    assert queue.held() == [task(1)]


# --- the window and the index -----------------------------------------------------------------------------------------


def test_a_new_queue_reads_the_index_and_hands_out_what_is_there() -> None:
    queue = task_queue()
    poll = parked(queue)
    assert refill(queue, [task(1), task(2)]) == [Handover(poll, task(1))]
    assert queue.held() == [task(2)]


def test_a_queue_that_nobody_polls_leaves_its_tasks_on_disk() -> None:
    queue = task_queue()
    queue.add(task(1))
    assert queue.held() == []
    assert queue.refill_due()


def test_a_refill_is_due_only_once() -> None:
    queue = task_queue()
    assert queue.refill_due()
    assert not queue.refill_due()
    limit = queue.begin_refill(0.0)
    assert not queue.refill_due()
    queue.end_refill([], limit)
    assert not queue.refill_due()


def test_a_full_window_leaves_the_rest_on_disk_and_finds_it_again_in_order() -> None:
    queue = complete_queue()
    index = [task(number) for number in range(10)]
    for offer in index:
        queue.add(offer)
    assert len(queue.held()) == WINDOW
    taken: list[Offer] = []
    while (offer_taken := queue.take()) is not None:
        taken.append(offer_taken)
        index.remove(offer_taken)
        queue.done(offer_taken, now=0.0)
        if queue.refill_due():
            limit = queue.begin_refill(0.0)
            queue.end_refill(index[:limit], limit)
    assert taken == [task(number) for number in range(10)]


def test_while_more_is_on_disk_a_new_offer_does_not_overtake_it() -> None:
    queue = complete_queue()
    for number in range(5):
        queue.add(task(number))
    assert queue.take() == task(0)
    queue.add(task(5))
    assert queue.held() == [task(1), task(2), task(3)]


def test_an_offer_left_out_during_a_refill_makes_another_one_due() -> None:
    queue = task_queue()
    assert queue.refill_due()
    limit = queue.begin_refill(0.0)
    for number in range(WINDOW + 1):
        queue.add(task(number))
    queue.end_refill([], limit)
    for _ in range(WINDOW):
        assert queue.take() is not None
    assert queue.refill_due()


def test_a_refill_passes_over_what_is_held_in_flight_or_answered() -> None:
    queue = complete_queue()
    for number in (1, 2, 3):
        queue.add(task(number))
    answered = queue.take()
    assert answered is not None
    queue.done(answered, now=0.0)
    assert queue.take() == task(2)
    queue.doubt()
    assert refill(queue, [task(1), task(2), task(3), task(4)]) == []
    assert queue.held() == [task(3), task(4)]


def test_an_answered_task_that_is_offered_again_is_held() -> None:
    queue = complete_queue()
    queue.add(task(1))
    answered = queue.take()
    assert answered is not None
    queue.done(answered, now=0.0)
    queue.add(task(1))
    assert queue.held() == [task(1)]


def test_an_answered_task_that_is_offered_again_and_left_on_disk_is_found_by_a_refill() -> None:
    queue = complete_queue()
    queue.add(task(1))
    answered = queue.take()
    assert answered is not None
    queue.done(answered, now=0.0)
    queue.doubt()
    queue.add(task(1))
    assert queue.held() == []
    refill(queue, [task(1)])
    assert queue.held() == [task(1)]


def test_an_answered_task_is_found_in_the_index_again_after_a_while() -> None:
    queue = complete_queue()
    queue.add(task(1))
    answered = queue.take()
    assert answered is not None
    queue.done(answered, now=0.0)
    queue.doubt()
    refill(queue, [task(1)], now=9.9)
    assert queue.held() == []
    queue.doubt()
    refill(queue, [task(1)], now=31.0)
    assert queue.held() == [task(1)]


def test_a_queue_that_begins_anew_finds_what_was_answered_in_the_index_at_once() -> None:
    queue = complete_queue()
    queue.add(task(1))
    assert queue.take() == task(1)
    queue.done(task(1), now=0.0)
    queue.begin_anew()
    assert refill(queue, [task(1)]) == []
    assert queue.take() == task(1)


def test_what_was_in_flight_when_a_queue_began_anew_is_offered_once_more() -> None:
    queue = complete_queue()
    queue.add(task(1))
    assert queue.take() == task(1)
    queue.begin_anew()
    refill(queue, [task(1)])
    queue.done(task(1), now=0.0)
    assert queue.take() == task(1)
    queue.done(task(1), now=0.0)
    assert queue.take() is None


def test_refills_get_past_any_number_of_started_tasks_at_the_head_of_the_index() -> None:
    queue = complete_queue()
    started = [task(number) for number in range(100)]
    for offer in started:
        queue.add(offer)
        taken = queue.take()
        if taken is not None:
            queue.done(taken, now=0.0)
    parked(queue)
    queue.doubt()
    index = [*started, task(1000)]
    reads = 0
    handovers: list[Handover[FakePoll]] = []
    while not handovers:
        handovers = refill(queue, index)
        reads += 1
    assert handovers[0].offer == task(1000)
    assert reads <= 7


def test_a_refill_that_failed_is_begun_again() -> None:
    queue = task_queue()
    assert queue.refill_due()
    queue.begin_refill(0.0)
    queue.doubt()
    assert not queue.refill_due()
    limit = queue.begin_refill(0.0)
    queue.end_refill([task(1)], limit)
    assert queue.held() == [task(1)]


def test_giving_back_into_a_full_window_leaves_the_last_offer_on_disk() -> None:
    queue = complete_queue()
    queue.add(task(0))
    first = queue.take()
    assert first is not None
    for number in range(1, WINDOW + 1):
        queue.add(task(number))
    queue.give_back(first)
    assert queue.held() == [task(0), task(1), task(2), task(3)]
    for _ in range(WINDOW):
        queue.take()
    assert queue.refill_due()


# --- queries ----------------------------------------------------------------------------------------------------------


def test_a_query_goes_before_tasks() -> None:
    queue = complete_queue()
    queue.add(task(1))
    queue.add_query(query(1))
    assert [queue.take(), queue.take()] == [query(1), task(1)]


def test_queries_are_limited_and_not_dropped() -> None:
    queue = complete_queue()
    queue.add_query(query(1))
    assert queue.has_room_for_query()
    queue.add_query(query(2))
    assert not queue.has_room_for_query()
    assert [queue.take(), queue.take()] == [query(1), query(2)]


def test_a_withdrawn_query_is_not_handed_out() -> None:
    queue = complete_queue()
    queue.add_query(query(1))
    queue.withdraw_query("q1")
    assert queue.take() is None


def test_a_query_given_back_is_the_next_one_unless_it_was_withdrawn() -> None:
    queue = complete_queue()
    queue.add_query(query(1))
    queue.add_query(query(2))
    first = queue.take()
    assert first is not None
    queue.give_back(first)
    assert queue.take() == query(1)
    queue.withdraw_query("q1")
    queue.give_back(first)
    assert [queue.take(), queue.take()] == [query(2), None]


def test_a_query_is_never_offered_twice_at_once() -> None:
    queue = complete_queue()
    queue.add_query(query(1))
    queue.add_query(query(1))
    assert [queue.take(), queue.take()] == [query(1), None]
    queue.add_query(query(1))
    assert queue.take() is None


def test_a_queue_is_idle_only_when_nothing_would_be_lost_with_it() -> None:
    queue = complete_queue()
    queue.add(task(1))
    assert queue.is_idle()
    flying = queue.take()
    assert flying is not None
    assert not queue.is_idle()
    queue.done(flying, now=0.0)
    assert queue.is_idle()
    queue.add_query(query(1))
    assert not queue.is_idle()
    flying = queue.take()
    assert flying is not None
    assert not queue.is_idle()
    queue.done(flying, now=0.0)
    poll = parked(queue)
    assert not queue.is_idle()
    queue.unpark(poll)
    assert queue.is_idle()


# --- names answered lately --------------------------------------------------------------------------------------------


def test_a_recent_name_is_kept_for_its_time_at_least_and_three_times_that_at_most() -> None:
    names = RecentNames(seconds=10, limit=100)
    names.add(("r", 0), now=0.0)
    for now in (0.0, 5.0, 10.0):
        names.forget_old(now)
        assert ("r", 0) in names
    names.forget_old(30.0)
    assert ("r", 0) not in names


def test_recent_names_are_bounded() -> None:
    names = RecentNames(seconds=10, limit=100)
    for number in range(10_000):
        names.add((f"r{number}", 0), now=0.0)
    assert len(names) <= 200
    assert ("r9999", 0) in names
