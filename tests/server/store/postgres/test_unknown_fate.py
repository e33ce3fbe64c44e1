"""A COMMIT whose answer never came: its fate is asked for, told right, and nobody is fenced by their own question."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from perdure.server.core.shards import SHARDS
from perdure.server.store.interface import Claim, CommitUnknown, Fenced
from perdure.server.store.postgres import PostgresStore
from tests.server.store import rows
from tests.server.store.postgres.proxy import Cut, Proxy
from tests.server.store.writing import Writer

WRITE = rows.write("w", rows.run("w", "r"))
CUTS = [Cut.BEFORE_COMMIT_ARRIVES, Cut.BEFORE_ITS_ANSWER]


@pytest.fixture
async def proxy(postgres_url: str) -> AsyncIterator[Proxy]:
    async with Proxy(postgres_url).running() as proxy:
        yield proxy


@pytest.fixture
async def store(proxy: Proxy) -> AsyncIterator[PostgresStore]:
    store = PostgresStore(proxy.url)
    await store.open()
    yield store
    await store.close()


@pytest.mark.parametrize("cut", CUTS)
async def test_a_commit_without_an_answer_is_found_out(store: PostgresStore, proxy: Proxy, cut: Cut) -> None:
    arrived = cut is Cut.BEFORE_ITS_ANSWER
    writer = await Writer.claim(store)
    proxy.next_commit = cut
    with pytest.raises(CommitUnknown):
        await writer.commit(WRITE)
    claim = await store.resolve()
    assert claim == Claim(incarnation=2, batch=1 if arrived else 0)
    assert (await store.load_run(rows.key("w"), "r") is not None) is arrived
    await Writer(store, claim.batch).commit(rows.write("v", rows.run("v", "q")))
    assert await store.load_run(rows.key("v"), "q") is not None


@pytest.mark.parametrize("cut", CUTS)
async def test_a_resolve_without_an_answer_does_not_fence_its_own_process(
    store: PostgresStore, proxy: Proxy, cut: Cut
) -> None:
    arrived = cut is Cut.BEFORE_ITS_ANSWER
    writer = await Writer.claim(store)
    await writer.commit(WRITE)
    proxy.next_commit = cut
    with pytest.raises(CommitUnknown):
        await store.resolve()
    assert await store.resolve() == Claim(incarnation=3 if arrived else 2, batch=1)
    assert await store.resolve() == Claim(incarnation=4 if arrived else 3, batch=1)
    await writer.commit(rows.write("v", rows.run("v", "q")))


async def _claim(other: PostgresStore) -> None:
    await other.claim("node")


async def _join(other: PostgresStore) -> None:
    await other.join("node", "another life", "1.0", 60)


async def _take_over(other: PostgresStore) -> None:
    await other.join("other", "life", "1.0", 60)
    assert await other.take_over("node", "first life", {"other": range(SHARDS)})


@pytest.mark.parametrize("take_place", [_claim, _join, _take_over])
@pytest.mark.parametrize("cut", CUTS)
async def test_whoever_takes_the_place_after_a_resolve_without_an_answer_fences(
    store: PostgresStore,
    proxy: Proxy,
    postgres_url: str,
    cut: Cut,
    take_place: Callable[[PostgresStore], Awaitable[None]],
) -> None:
    """The nonce of that resolve would claim the place again, were it still there."""
    await store.join("node", "first life", "1.0", 60)
    await store.renew(0)
    proxy.next_commit = cut
    with pytest.raises(CommitUnknown):
        await store.resolve()
    other = PostgresStore(postgres_url)
    await other.open()
    await take_place(other)
    for _ in range(2):
        with pytest.raises(Fenced):
            await store.resolve()
    with pytest.raises(Fenced):
        await Writer(store, 0).commit(WRITE)
    await other.close()
