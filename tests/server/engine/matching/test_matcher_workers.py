"""What the matcher knows of workers, how it lets them stop, and what it shows of a queue."""

from __future__ import annotations

import asyncio

import pytest

from perdure.server.engine.matching import BacklogStats, MatcherSettings, Poller, PollerInfo, QueueKind
from tests.server.engine.matching.fakes import (
    ACTIVITIES,
    STICKY,
    STICKY_WORKER,
    WORKER,
    WORKFLOWS,
    FakeIndex,
    after,
    parked_poll,
    poll_once,
    query,
    running,
    task,
    warm_up,
)
from tests.virtual_time import EPOCH_NS, elapsed, in_virtual_time, settle

# --- pollers that are known -------------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_sticky_worker_counts_as_gone_ten_seconds_after_its_last_poll() -> None:
    async with running() as matcher:
        assert not matcher.has_recent_poller(STICKY)
        poll = await parked_poll(matcher, STICKY, STICKY_WORKER, seconds=60)
        await asyncio.sleep(50)
        assert matcher.has_recent_poller(STICKY)
        await poll
        await asyncio.sleep(10)
        assert matcher.has_recent_poller(STICKY)
        await asyncio.sleep(0.1)
        assert not matcher.has_recent_poller(STICKY)


@in_virtual_time
async def test_a_poll_that_was_cancelled_counts_from_its_begin() -> None:
    async with running() as matcher:
        poll = await parked_poll(matcher, STICKY, STICKY_WORKER)
        await asyncio.sleep(11)
        poll.cancel()
        await settle()
        assert not matcher.has_recent_poller(STICKY)


@in_virtual_time
async def test_pollers_are_shown_with_the_time_of_their_last_poll() -> None:
    async with running() as matcher:
        assert matcher.pollers(WORKFLOWS) == []
        await asyncio.sleep(5)
        poll = await parked_poll(matcher, seconds=10)
        assert matcher.pollers(WORKFLOWS) == [PollerInfo(WORKER, EPOCH_NS + 5_000_000_000)]
        await poll
        assert matcher.pollers(WORKFLOWS) == [PollerInfo(WORKER, EPOCH_NS + 15_000_000_000)]
        await asyncio.sleep(301)
        assert matcher.pollers(WORKFLOWS) == []


# --- workers that shut down -------------------------------------------------------------------------------------------


@in_virtual_time
async def test_shutting_down_a_worker_ends_its_polls_and_no_others() -> None:
    other_worker = Poller("worker@host", worker_instance_key="instance-2")
    async with running() as matcher:
        own = [
            await parked_poll(matcher, WORKFLOWS),
            await parked_poll(matcher, ACTIVITIES),
            await parked_poll(matcher, STICKY, STICKY_WORKER),
        ]
        other = await parked_poll(matcher, WORKFLOWS, other_worker)
        ended = matcher.shutdown_worker("namespace", "instance-1", task_queue="orders", sticky_queue="sticky-1")
        assert ended == 3
        assert [await poll for poll in own] == [None, None, None]
        matcher.offer(WORKFLOWS, task(1))
        assert await other == task(1)
        assert asyncio.get_running_loop().time() == 0


@in_virtual_time
async def test_shutting_down_is_for_the_kinds_that_are_named() -> None:
    async with running() as matcher:
        workflows, activities = await parked_poll(matcher, WORKFLOWS), await parked_poll(matcher, ACTIVITIES)
        kinds = [QueueKind.ACTIVITY]
        assert matcher.shutdown_worker("namespace", "instance-1", task_queue="orders", kinds=kinds) == 1
        assert await activities is None
        assert not workflows.done()
        workflows.cancel()


@in_virtual_time
async def test_a_worker_that_was_shut_down_is_not_a_recent_poller() -> None:
    async with running() as matcher:
        polls = [await parked_poll(matcher, STICKY, STICKY_WORKER), await parked_poll(matcher, WORKFLOWS)]
        matcher.shutdown_worker("namespace", "instance-1", task_queue="orders", sticky_queue="sticky-1")
        assert not matcher.has_recent_poller(STICKY)
        await asyncio.gather(*polls)
        assert not matcher.has_recent_poller(STICKY)
        assert matcher.pollers(WORKFLOWS) == []


@in_virtual_time
async def test_later_polls_of_a_worker_that_was_shut_down_end_at_once_for_a_while() -> None:
    async with running() as matcher:
        matcher.shutdown_worker("namespace", "instance-1", task_queue="orders")
        await warm_up(matcher)
        assert await elapsed(matcher.poll(WORKFLOWS, WORKER, after(60))) == 0
        assert await elapsed(matcher.poll(WORKFLOWS, Poller("without key"), after(60))) == 60
        assert await elapsed(matcher.poll(WORKFLOWS, WORKER, after(60))) == 60


@in_virtual_time
async def test_the_sticky_queue_alone_tells_which_worker_of_an_older_sdk_it_is() -> None:
    async with running() as matcher:
        poll = await parked_poll(matcher, STICKY, Poller("old sdk", sticky=True))
        assert matcher.shutdown_worker("namespace", "", sticky_queue="sticky-1") == 1
        assert await poll is None
        assert not matcher.has_recent_poller(STICKY)


@in_virtual_time
async def test_workers_shut_down_are_remembered_up_to_a_limit() -> None:
    async with running(settings=MatcherSettings(max_shut_down_workers=2)) as matcher:
        for number in (1, 2, 3):
            matcher.shutdown_worker("namespace", f"instance-{number}")
        assert await elapsed(matcher.poll(WORKFLOWS, WORKER, after(1))) == 1
        assert await elapsed(matcher.poll(WORKFLOWS, Poller("", worker_instance_key="instance-2"), after(1))) == 0


# --- what people see --------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_the_backlog_is_what_waits_and_not_what_workers_have() -> None:
    index = FakeIndex()
    index.commit(WORKFLOWS, *(task(number) for number in range(4)))
    async with running(index) as matcher:
        started = await poll_once(matcher, WORKFLOWS, WORKER, after(60))
        assert started is not None
        matcher.started(WORKFLOWS, started)
        await poll_once(matcher, WORKFLOWS, WORKER, after(60))
        await asyncio.sleep(7)
        stats = await matcher.backlog(WORKFLOWS)
        assert stats.approximate_backlog_count == 2
        assert stats.approximate_backlog_age_seconds == 7


@in_virtual_time
async def test_a_long_backlog_is_counted_by_the_store() -> None:
    index = FakeIndex()
    index.commit(ACTIVITIES, *(task(number, 5) for number in range(2_000)))
    async with running(index) as matcher:
        assert (await matcher.backlog(ACTIVITIES)).approximate_backlog_count == 2_000


@in_virtual_time
async def test_the_backlog_of_an_unknown_queue_is_empty() -> None:
    async with running() as matcher:
        assert await matcher.backlog(WORKFLOWS) == BacklogStats(0, 0.0, 0.0, 0.0)


@in_virtual_time
async def test_rates_count_tasks_added_and_started_but_no_stale_ones_and_no_queries() -> None:
    async with running() as matcher:
        await warm_up(matcher)
        for number in range(10):
            matcher.offer(WORKFLOWS, task(number))
        matcher.offer(WORKFLOWS, query(1))
        for number in range(6):
            offer = await poll_once(matcher, WORKFLOWS, WORKER, after(60))
            assert offer is not None
            (matcher.started if number % 2 else matcher.stale)(WORKFLOWS, offer)
        await asyncio.sleep(9.999)
        stats = await matcher.backlog(WORKFLOWS)
        assert stats.tasks_add_rate == pytest.approx(1.0)
        assert stats.tasks_dispatch_rate == pytest.approx(0.3)
