"""The matcher as the engine uses it: offers, polls that wait, expire and are cancelled, and its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from perdure.server.core.errors import ResourceExhausted
from perdure.server.engine.matching import Matcher, MatcherSettings, Offer, QueueKey
from tests.server.engine.matching.fakes import (
    ACTIVITIES,
    STICKY,
    STICKY_WORKER,
    WORKER,
    WORKFLOWS,
    FakeIndex,
    after,
    parked_poll,
    query,
    running,
    start_poll,
    task,
    warm_up,
)
from tests.virtual_time import Deadlock, VirtualClock, elapsed, in_virtual_time, run, settle

# --- polls ------------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_parked_poll_gets_an_offer_at_once() -> None:
    async with running() as matcher:
        poll = await parked_poll(matcher)
        assert matcher.offer(WORKFLOWS, task(1))
        assert await elapsed(poll) == 0
        assert poll.result() == task(1)


@in_virtual_time
async def test_a_poll_ends_empty_at_its_deadline() -> None:
    async with running() as matcher:
        assert await elapsed(matcher.poll(WORKFLOWS, WORKER, after(60))) == 60


@in_virtual_time
async def test_each_parked_poll_ends_at_its_own_deadline_whichever_parked_first() -> None:
    async with running() as matcher:
        await warm_up(matcher)
        began = asyncio.get_running_loop().time()
        ended: dict[int, float] = {}

        async def poll(seconds: int) -> None:
            assert await matcher.poll(WORKFLOWS, WORKER, began + seconds) is None
            ended[seconds] = asyncio.get_running_loop().time() - began

        await asyncio.gather(*map(poll, (60, 5, 20, 5)))
        assert ended == {60: 60, 5: 5, 20: 20}


@in_virtual_time
async def test_a_poll_that_got_its_offer_leaves_the_deadlines_of_others_alone() -> None:
    async with running() as matcher:
        await warm_up(matcher)
        served = await parked_poll(matcher)
        waiting = start_poll(matcher, seconds=90)
        await settle()
        matcher.offer(WORKFLOWS, task(1))
        assert await served == task(1)
        assert await elapsed(waiting) == 90
        assert waiting.result() is None


@in_virtual_time
async def test_an_offer_at_the_very_deadline_is_not_lost() -> None:
    async with running() as matcher:
        await warm_up(matcher)
        expiring = start_poll(matcher, seconds=10)
        next_poll = start_poll(matcher, seconds=60)
        asyncio.get_running_loop().call_later(10, matcher.offer, WORKFLOWS, task(1))
        results = [await expiring, await next_poll]
        assert sorted(results, key=lambda result: result is None) == [task(1), None]


@in_virtual_time
async def test_a_poll_past_its_deadline_takes_what_is_there_and_waits_for_nothing() -> None:
    async with running() as matcher:
        await warm_up(matcher)
        matcher.offer(WORKFLOWS, task(1))
        assert await matcher.poll(WORKFLOWS, WORKER, after(-1)) == task(1)
        assert await matcher.poll(WORKFLOWS, WORKER, after(-1)) is None


@in_virtual_time
async def test_queues_are_apart_by_namespace_name_and_kind() -> None:
    async with running() as matcher:
        keys = [WORKFLOWS, ACTIVITIES, STICKY, WORKFLOWS._replace(namespace_id="other")]
        polls = [await parked_poll(matcher, key) for key in keys]
        for number, key in enumerate(keys):
            matcher.offer(key, task(number))
        assert [await poll for poll in polls] == [task(0), task(1), task(2), task(3)]


@in_virtual_time
async def test_a_cancelled_poll_gets_nothing() -> None:
    async with running() as matcher:
        cancelled, other = await parked_poll(matcher), await parked_poll(matcher)
        cancelled.cancel()
        await settle()
        matcher.offer(WORKFLOWS, task(1))
        assert await other == task(1)


@pytest.mark.parametrize("cancel_first", [True, False])
@in_virtual_time
async def test_an_offer_to_a_poll_cancelled_in_the_same_tick_goes_to_the_next_poll(cancel_first: bool) -> None:
    async with running() as matcher:
        cancelled = await parked_poll(matcher)
        if cancel_first:
            cancelled.cancel()
            matcher.offer(WORKFLOWS, task(1))
        else:
            matcher.offer(WORKFLOWS, task(1))
            cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        assert await matcher.poll(WORKFLOWS, WORKER, after(0)) == task(1)


@in_virtual_time
async def test_an_offer_given_back_by_a_cancelled_poll_goes_to_one_that_is_parked() -> None:
    async with running() as matcher:
        cancelled, other = await parked_poll(matcher), await parked_poll(matcher)
        matcher.offer(WORKFLOWS, task(1))
        cancelled.cancel()
        assert await elapsed(other) == 0
        assert other.result() == task(1)


def test_a_poll_that_was_served_leaves_no_timer_behind() -> None:
    async def be_served_and_wait_for_nothing() -> None:
        async with running() as matcher:
            poll = await parked_poll(matcher)
            matcher.offer(WORKFLOWS, task(1))
            await poll
        asyncio.get_running_loop().call_later(1, lambda: None)
        await asyncio.Event().wait()

    with pytest.raises(Deadlock, match=r"loop time 1\.0"):
        run(be_served_and_wait_for_nothing())


@in_virtual_time
async def test_parked_polls_are_limited() -> None:
    async with running(settings=MatcherSettings(max_parked_polls=2)) as matcher:
        polls = [await parked_poll(matcher), await parked_poll(matcher)]
        with pytest.raises(ResourceExhausted, match="orders"):
            await matcher.poll(WORKFLOWS, WORKER, after(60))
        matcher.offer(WORKFLOWS, task(1))
        assert await polls[0] == task(1)
        await parked_poll(matcher)


# --- answers of the owner ---------------------------------------------------------------------------------------------


@in_virtual_time
async def test_an_offer_given_back_is_polled_again() -> None:
    async with running() as matcher:
        poll = await parked_poll(matcher)
        matcher.offer(WORKFLOWS, task(1))
        await poll
        matcher.give_back(WORKFLOWS, task(1))
        assert await matcher.poll(WORKFLOWS, WORKER, after(0)) == task(1)


@pytest.mark.parametrize("answer", [Matcher.started, Matcher.stale])
@in_virtual_time
async def test_the_next_task_of_a_run_offered_before_the_answer_is_known_is_not_lost(
    answer: Callable[[Matcher, QueueKey, Offer], None],
) -> None:
    async with running() as matcher:
        poll = await parked_poll(matcher)
        matcher.offer(WORKFLOWS, task(1))
        await poll
        next_poll = await parked_poll(matcher)
        matcher.offer(WORKFLOWS, task(1, ready_at=99))
        await settle()
        assert not next_poll.done()
        answer(matcher, WORKFLOWS, task(1))
        assert await next_poll == task(1, ready_at=99)


@in_virtual_time
async def test_answers_about_a_queue_that_is_gone_are_ignored() -> None:
    async with running() as matcher:
        matcher.started(WORKFLOWS, task(1))
        matcher.stale(WORKFLOWS, task(1))
        matcher.give_back(WORKFLOWS, task(1))
        matcher.withdraw_query(WORKFLOWS, "q1")
        assert matcher.offers(WORKFLOWS) == []


# --- queries ----------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_query_needs_no_index() -> None:
    async with running() as matcher:
        assert matcher.offer(STICKY, query(1))
        assert await matcher.poll(STICKY, STICKY_WORKER, after(60)) == query(1)


@in_virtual_time
async def test_a_query_beyond_the_limit_is_refused() -> None:
    async with running(settings=MatcherSettings(max_queries=2)) as matcher:
        assert [matcher.offer(WORKFLOWS, query(number)) for number in range(3)] == [True, True, False]


@in_virtual_time
async def test_a_withdrawn_query_is_not_handed_out() -> None:
    async with running() as matcher:
        matcher.offer(WORKFLOWS, query(1))
        matcher.withdraw_query(WORKFLOWS, "q1")
        assert await matcher.poll(WORKFLOWS, WORKER, after(1)) is None


@in_virtual_time
async def test_a_query_to_a_poll_cancelled_in_the_same_tick_goes_to_the_next_poll() -> None:
    async with running() as matcher:
        poll = await parked_poll(matcher)
        matcher.offer(WORKFLOWS, query(1))
        poll.cancel()
        await settle()
        assert await matcher.poll(WORKFLOWS, WORKER, after(60)) == query(1)


# --- bounds and the end -----------------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_queue_that_nobody_polls_is_forgotten_and_its_tasks_are_found_again() -> None:
    index = FakeIndex()
    async with running(index) as matcher:
        await warm_up(matcher)
        index.commit(WORKFLOWS, task(1))
        matcher.offer(WORKFLOWS, task(1))
        assert matcher.offers(WORKFLOWS) == [task(1)]
        await asyncio.sleep(331)
        assert matcher.offers(WORKFLOWS) == []
        assert await matcher.poll(WORKFLOWS, WORKER, after(60)) == task(1)


@in_virtual_time
async def test_a_queue_with_a_waiting_query_is_not_forgotten() -> None:
    async with running() as matcher:
        matcher.offer(WORKFLOWS, query(1))
        await asyncio.sleep(3_600)
        assert await matcher.poll(WORKFLOWS, WORKER, after(0)) == query(1)


@in_virtual_time
async def test_tasks_of_queues_beyond_the_limit_are_still_found() -> None:
    index = FakeIndex()
    async with running(index, MatcherSettings(max_unpolled_queues=1)) as matcher:
        for number in range(3):
            key = WORKFLOWS._replace(name=f"queue-{number}")
            index.commit(key, task(number))
            assert matcher.offer(key, task(number))
            assert matcher.offer(key, query(number))
        for number in range(3):
            key = WORKFLOWS._replace(name=f"queue-{number}")
            assert await matcher.poll(key, WORKER, after(60)) == query(number)
            assert await matcher.poll(key, WORKER, after(60)) == task(number)


@in_virtual_time
async def test_stopping_ends_all_polls_empty_and_leaves_no_task() -> None:
    before = asyncio.all_tasks()
    matcher = Matcher(FakeIndex(), VirtualClock())
    await matcher.start()
    polls = [await parked_poll(matcher) for _ in range(5)]
    await matcher.stop()
    assert [await poll for poll in polls] == [None] * 5
    assert await matcher.poll(WORKFLOWS, WORKER, after(60)) is None
    assert asyncio.all_tasks() == before
    assert asyncio.get_running_loop().time() == 0


@in_virtual_time
async def test_polls_and_offers_before_the_start_are_served_after_it() -> None:
    index = FakeIndex()
    index.commit(WORKFLOWS, task(1))
    matcher = Matcher(index, VirtualClock())
    poll = await parked_poll(matcher)
    await matcher.start()
    assert await poll == task(1)
    await matcher.stop()
