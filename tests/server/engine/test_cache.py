"""The cache by itself: one load however many ask, bounded bytes, and nothing forgotten that only memory has."""

from __future__ import annotations

import asyncio

import pytest

from perdure.server.core.errors import Unavailable
from perdure.server.core.records import WorkflowKey
from perdure.server.engine.cache import Cache
from perdure.server.engine.settings import EngineSettings
from perdure.server.store.memory import MemoryDatabase
from tests.server.engine.node import Node, Store, key_of, new_database, running, started, unavailable
from tests.virtual_time import in_virtual_time, settle


async def with_workflows(*workflow_ids: str) -> MemoryDatabase:
    """Return a database in which these were started."""
    database = new_database()
    async with running(database=database) as node:
        for workflow_id in workflow_ids:
            await node.start_workflow(workflow_id)
    return database


async def cache_on(
    database: MemoryDatabase, *, bytes_max: int = 1_000_000, held: set[WorkflowKey] | None = None, load_keys: int = 100
) -> tuple[Cache, Store]:
    store = Node(database).store
    await store.open()
    held = held or set()
    cache = Cache(store, bytes_max=bytes_max, load_keys=load_keys, is_held=lambda key: key in held)
    cache.start()
    return cache, store


@in_virtual_time
async def test_all_who_ask_at_the_same_time_share_one_load() -> None:
    cache, store = await cache_on(await with_workflows("w"))
    store.loading.shut()
    asking = [await started(cache.load(key_of("w"))) for _ in range(5)]
    store.loading.open()
    entities = await asyncio.gather(*asking)
    assert store.loads == [[key_of("w")]]
    assert all(entity is entities[0] for entity in entities)


@in_virtual_time
async def test_keys_that_are_wanted_while_a_load_is_under_way_are_loaded_together() -> None:
    cache, store = await cache_on(await with_workflows("a", "b", "c"))
    store.loading.shut()
    asking = [await started(cache.load(key_of(name))) for name in ("a", "b", "c")]
    store.loading.open()
    await asyncio.gather(*asking)
    assert store.loads == [[key_of("a")], [key_of("b"), key_of("c")]]


@in_virtual_time
async def test_one_load_takes_no_more_keys_than_it_may() -> None:
    cache, store = await cache_on(await with_workflows(), load_keys=2)
    await asyncio.gather(*(cache.load(key_of(name)) for name in "abcde"))
    assert [len(keys) for keys in store.loads] == [2, 2, 1]


@in_virtual_time
async def test_what_is_in_memory_is_not_loaded_again() -> None:
    cache, store = await cache_on(await with_workflows("w"))
    assert await cache.load(key_of("w")) is await cache.load(key_of("w"))
    assert len(store.loads) == 1


@in_virtual_time
async def test_a_caller_that_goes_away_does_not_take_the_load_with_it() -> None:
    cache, store = await cache_on(await with_workflows("w"))
    store.loading.shut()
    gone, waiting = await started(cache.load(key_of("w"))), await started(cache.load(key_of("w")))
    gone.cancel()
    await settle()
    store.loading.open()
    assert (await waiting).current is not None


@in_virtual_time
async def test_a_load_that_failed_is_refused_and_the_next_one_tries_again() -> None:
    cache, store = await cache_on(await with_workflows("w"))
    store.loading.errors.append(unavailable())
    with pytest.raises(Unavailable):
        await cache.load(key_of("w"))
    assert (await cache.load(key_of("w"))).current is not None


@in_virtual_time
async def test_it_takes_no_more_memory_than_it_may() -> None:
    names = [f"w{number}" for number in range(20)]
    cache, _ = await cache_on(await with_workflows(*names), bytes_max=50_000)
    for name in names:
        cache.changed(await cache.load(key_of(name)))
        assert cache.bytes <= 50_000
    assert 1 < len(cache) < 20


@in_virtual_time
async def test_the_least_recently_used_goes_first() -> None:
    cache, store = await cache_on(await with_workflows("a", "b", "c"), bytes_max=1_000_000)
    for name in ("a", "b"):
        cache.changed(await cache.load(key_of(name)))
    small, _ = await cache_on(store.database, bytes_max=cache.bytes)
    for name in ("a", "b", "a", "c"):
        small.changed(await small.load(key_of(name)))
    assert small.peek(key_of("b")) is None
    assert small.peek(key_of("a")) is not None


@in_virtual_time
async def test_what_is_not_durable_is_never_forgotten() -> None:
    held = {key_of("held")}
    cache, _ = await cache_on(await with_workflows("held", "other"), bytes_max=1, held=held)
    cache.changed(await cache.load(key_of("held")))
    cache.changed(await cache.load(key_of("other")))
    assert cache.peek(key_of("held")) is not None
    assert cache.peek(key_of("other")) is None


@in_virtual_time
async def test_a_run_with_a_query_that_waits_is_never_forgotten() -> None:
    """The query is only in memory; the workflow is not dirty."""
    async with running(EngineSettings(cache_bytes=1)) as node:
        await node.start_workflow()
        await node.complete(await node.poll())
        query = await started(node.query(wait_seconds=30))
        for number in range(5):
            await node.start_workflow(f"other {number}")
        tasks = [await node.poll(wait_seconds=1) for _ in range(6)]
        assert sum(task.HasField("query") for task in tasks) == 1
        assert not query.done()


@in_virtual_time
async def test_an_id_without_a_workflow_takes_no_memory() -> None:
    cache, _ = await cache_on(await with_workflows())
    cache.changed(await cache.load(key_of("nobody")))
    assert (len(cache), cache.bytes) == (0, 0)


@in_virtual_time
async def test_who_waits_when_it_stops_is_refused() -> None:
    cache, store = await cache_on(await with_workflows("w"))
    store.loading.shut()
    asking = await started(cache.load(key_of("w")))
    await cache.stop()
    with pytest.raises(Unavailable, match="stopping"):
        await asking


@in_virtual_time
async def test_an_older_run_that_cannot_be_read_is_to_be_asked_for_again() -> None:
    async with running() as node:
        first = await node.start_workflow(request_id="one")
        await node.terminate()
        await node.start_workflow(request_id="two")
        await node.locate()
        node.store.loading.errors.append(unavailable())
        with pytest.raises(Unavailable):
            await node.locate(run_id=first.run_id)
        assert (await node.locate(run_id=first.run_id)).run_id == first.run_id
