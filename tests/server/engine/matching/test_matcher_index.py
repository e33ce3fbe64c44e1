"""How the matcher and the index of ready tasks stay together: refills, rescans, failures."""

from __future__ import annotations

import asyncio
import logging
from random import Random

import pytest

from perdure.server.engine.matching import Matcher, MatcherSettings, Offer, QueueKey
from perdure.server.store.interface import ReadyTask
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
    running,
    start_poll,
    task,
    warm_up,
)
from tests.virtual_time import EPOCH_NS, elapsed, in_virtual_time

# --- the index --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [WORKFLOWS, ACTIVITIES])
@in_virtual_time
async def test_the_first_poll_finds_tasks_from_before_a_restart(key: QueueKey) -> None:
    index = FakeIndex()
    index.commit(key, task(1), task(2))
    async with running(index) as matcher:
        assert await matcher.poll(key, WORKER, after(60)) == task(1)
        assert await matcher.poll(key, WORKER, after(60)) == task(2)
        assert asyncio.get_running_loop().time() == 0


@in_virtual_time
async def test_an_activity_that_backs_off_is_not_read_before_its_time() -> None:
    index = FakeIndex()
    index.commit(ACTIVITIES, task(1, 5, ready_at=EPOCH_NS + 20_000_000_000))
    async with running(index) as matcher:
        assert await elapsed(matcher.poll(ACTIVITIES, WORKER, after(60))) == 30


@in_virtual_time
async def test_a_task_offered_before_anybody_polled_is_found() -> None:
    index = FakeIndex()
    async with running(index) as matcher:
        index.commit(WORKFLOWS, task(1))
        matcher.offer(WORKFLOWS, task(1))
        assert matcher.offers(WORKFLOWS) == []
        assert await poll_once(matcher, WORKFLOWS, WORKER, after(60)) == task(1)


@in_virtual_time
async def test_a_backlog_far_beyond_the_window_is_worked_off_in_order() -> None:
    index = FakeIndex()
    settings = MatcherSettings(window_offers=10, refill_offers=5)
    async with running(index, settings) as matcher:
        await warm_up(matcher)
        tasks = [task(number) for number in range(500)]
        for offer in tasks:
            index.commit(WORKFLOWS, offer)
            matcher.offer(WORKFLOWS, offer)
        assert len(matcher.offers(WORKFLOWS)) == 10
        taken: list[Offer] = []
        for _ in tasks:
            polled = await poll_once(matcher, WORKFLOWS, WORKER, after(60))
            assert polled is not None
            index.remove(WORKFLOWS, polled)
            matcher.started(WORKFLOWS, polled)
            taken.append(polled)
        assert taken == tasks
        assert asyncio.get_running_loop().time() < 1
        assert max(limit for _, limit in index.reads) <= 5 + 10 + 5


@in_virtual_time
async def test_many_pollers_get_a_backlog_of_tasks_whose_starts_are_not_written() -> None:
    index = FakeIndex()
    index.commit(WORKFLOWS, *(task(number) for number in range(300)))
    settings = MatcherSettings(window_offers=10, refill_offers=5)
    taken: list[Offer] = []
    async with running(index, settings) as matcher:

        async def work() -> None:
            while (offer := await poll_once(matcher, WORKFLOWS, WORKER, after(5))) is not None:
                await asyncio.sleep(0)
                matcher.started(WORKFLOWS, offer)
                taken.append(offer)

        await asyncio.gather(*(work() for _ in range(20)))
    assert sorted(taken) == sorted(task(number) for number in range(300))
    assert len(index.reads) < 150


@in_virtual_time
async def test_a_read_that_fails_is_tried_again() -> None:
    index = FakeIndex()
    index.commit(WORKFLOWS, task(1))
    index.failures = 3
    async with running(index) as matcher:
        assert await elapsed(matcher.poll(WORKFLOWS, WORKER, after(60))) == 3


@in_virtual_time
async def test_an_unexpected_error_of_a_read_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(FakeIndex):
        async def ready_workflow_tasks(self, namespace_id: str, task_queue: str, limit: int) -> list[ReadyTask]:
            if not self.failures:
                return await super().ready_workflow_tasks(namespace_id, task_queue, limit)
            self.failures -= 1
            raise ZeroDivisionError

    index = Broken()
    index.commit(WORKFLOWS, task(1))
    index.failures = 1
    async with running(index) as matcher:
        assert await poll_once(matcher, WORKFLOWS, WORKER, after(60)) == task(1)
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


@in_virtual_time
async def test_an_offer_that_never_came_is_found_by_the_rescan() -> None:
    index = FakeIndex()
    async with running(index) as matcher:
        poll = await parked_poll(matcher)
        index.commit(WORKFLOWS, task(1))
        assert await elapsed(poll) == MatcherSettings().rescan_seconds
        assert poll.result() == task(1)


@in_virtual_time
async def test_only_normal_queues_that_are_polled_are_rescanned() -> None:
    index = FakeIndex()
    async with running(index) as matcher:
        sticky = await parked_poll(matcher, STICKY, STICKY_WORKER, seconds=600)
        normal = await parked_poll(matcher, WORKFLOWS, seconds=600)
        await warm_up(matcher, ACTIVITIES)
        await asyncio.sleep(31)
        index.reads.clear()
        await asyncio.sleep(60)
        assert [key for key, _ in index.reads] == [WORKFLOWS, WORKFLOWS]
        sticky.cancel()
        normal.cancel()


@in_virtual_time
async def test_few_reads_go_on_at_one_time() -> None:
    index = FakeIndex()
    index.read_seconds = 0.1
    async with running(index, MatcherSettings(concurrent_refills=3)) as matcher:
        polls = [start_poll(matcher, WORKFLOWS._replace(name=f"queue-{number}"), seconds=5) for number in range(30)]
        await asyncio.gather(*polls)
    assert index.most_reading == 3
    assert len(index.reads) == 30


@in_virtual_time
async def test_an_offer_during_a_read_is_handed_out_at_once_and_only_once() -> None:
    index = FakeIndex()
    index.read_seconds = 1.0
    async with running(index) as matcher:
        index.commit(WORKFLOWS, task(1))
        first, second = await parked_poll(matcher), await parked_poll(matcher, seconds=10)
        await asyncio.sleep(0.5)
        matcher.offer(WORKFLOWS, task(1))
        assert await elapsed(first) == 0
        index.remove(WORKFLOWS, task(1))
        matcher.started(WORKFLOWS, task(1))
        assert await second is None


# --- everything at once -----------------------------------------------------------------------------------------------


class Owner:
    """Knows which tasks are ready, starts each once, and often makes the next one of the run ready at once."""

    def __init__(self, random: Random, index: FakeIndex, matcher: Matcher) -> None:
        self.ready: set[Offer] = set()
        self.random = random
        self.index = index
        self.matcher = matcher

    async def make_ready(self, offer: Offer) -> None:
        self.ready.add(offer)
        if offer not in self.index.tasks.get(WORKFLOWS, []):
            self.index.commit(WORKFLOWS, offer)
        await asyncio.sleep(self.random.choice([0, 0, 0.001]))
        self.matcher.offer(WORKFLOWS, offer)

    async def start(self, offer: Offer) -> None:
        if offer not in self.ready:
            self.matcher.stale(WORKFLOWS, offer)
            return
        self.ready.remove(offer)
        if self.random.random() < 0.7:
            self.index.remove(WORKFLOWS, offer)
        if self.random.random() < 0.3:
            await self.make_ready(offer)
        self.matcher.started(WORKFLOWS, offer)


@pytest.mark.parametrize("seed", range(30))
@in_virtual_time
async def test_nothing_is_lost_under_random_load_without_the_rescan(seed: int) -> None:
    random = Random(seed)
    index = FakeIndex()
    index.read_seconds = 0.01
    settings = MatcherSettings(window_offers=6, refill_offers=3, rescan_seconds=1_000_000)

    async with running(index, settings) as matcher:
        owner = Owner(random, index, matcher)

        async def produce() -> None:
            for number in range(300):
                await owner.make_ready(task(number))
                await asyncio.sleep(random.choice([0, 0, 0, 0.02]))

        async def work() -> None:
            while True:
                offer = await poll_once(matcher, WORKFLOWS, WORKER, after(random.choice([0.005, 0.05, 60])))
                if offer is not None and random.random() < 0.1:
                    matcher.give_back(WORKFLOWS, offer)
                elif offer is not None:
                    await asyncio.shield(asyncio.create_task(owner.start(offer)))
                await asyncio.sleep(random.choice([0.0001, 0.001, 0.03]))

        producing = asyncio.create_task(produce())
        workers = [asyncio.create_task(work()) for _ in range(4)]
        async with asyncio.timeout(100):
            while owner.ready or not producing.done():
                await asyncio.sleep(random.choice([0.001, 0.01, 0.1]))
                position = random.randrange(len(workers))
                workers[position].cancel()
                workers[position] = asyncio.create_task(work())
        for worker in workers:
            worker.cancel()
