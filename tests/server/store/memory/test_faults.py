"""The fake's faults: before a batch is durable, after it, and what a crash in between leaves."""

from __future__ import annotations

import asyncio

import pytest

from perdure.server.store.interface import Batch, Claim, CommitUnknown, Fenced, StoreUnavailable
from perdure.server.store.memory import MemoryDatabase, MemoryStore
from tests.server.store import rows
from tests.server.store.writing import Writer


class _Gates:
    """Holds batches up before and after they become durable, and fails them there on demand."""

    def __init__(self) -> None:
        self.may_begin = asyncio.Event()
        self.may_return = asyncio.Event()
        self.fail_before: Exception | None = None
        self.fail_after: Exception | None = None
        self.may_begin.set()
        self.may_return.set()

    async def before(self, batch: Batch) -> None:
        await self.may_begin.wait()
        if self.fail_before is not None:
            raise self.fail_before

    async def after(self, batch: Batch) -> None:
        await self.may_return.wait()
        if self.fail_after is not None:
            raise self.fail_after


async def _open(gates: _Gates, database: MemoryDatabase | None = None) -> tuple[MemoryStore, Writer]:
    store = MemoryStore(database, faults=gates)
    await store.open()
    return store, await Writer.claim(store)


async def _is_visible(store: MemoryStore) -> bool:
    return await store.load_run(rows.key("w"), "r") is not None


WRITE = rows.write("w", rows.run("w", "r"))


async def test_a_failure_before_leaves_nothing() -> None:
    gates = _Gates()
    gates.fail_before = StoreUnavailable("away")
    store, writer = await _open(gates)
    with pytest.raises(StoreUnavailable):
        await writer.commit(WRITE)
    assert not await _is_visible(store)
    gates.fail_before = None
    await writer.commit(WRITE)
    assert await _is_visible(store)


async def test_a_failure_after_leaves_the_batch_durable() -> None:
    gates = _Gates()
    gates.fail_after = CommitUnknown("who knows")
    store, writer = await _open(gates)
    with pytest.raises(CommitUnknown):
        await writer.commit(WRITE)
    assert await store.resolve() == Claim(incarnation=2, batch=1)
    assert await _is_visible(store)


async def test_a_batch_is_visible_when_its_commit_returns() -> None:
    gates = _Gates()
    gates.may_return.clear()
    store, writer = await _open(gates)
    commit = asyncio.create_task(writer.commit(WRITE))
    await asyncio.sleep(0)
    assert not await _is_visible(store)
    gates.may_return.set()
    await commit
    assert await _is_visible(store)


@pytest.mark.parametrize("durable", [False, True])
async def test_a_crash_during_a_commit_keeps_what_was_durable(durable: bool) -> None:
    gates = _Gates()
    (gates.may_return if durable else gates.may_begin).clear()
    store, writer = await _open(gates)
    commit = asyncio.create_task(writer.commit(WRITE))
    await asyncio.sleep(0)
    restarted = MemoryStore(store.database)
    await restarted.open()
    assert await restarted.claim("node") == Claim(incarnation=2, batch=1 if durable else 0)
    assert await _is_visible(restarted) is durable
    gates.may_begin.set()
    gates.may_return.set()
    if durable:
        await commit
    else:
        with pytest.raises(Fenced):
            await commit
    assert await _is_visible(restarted) is durable


async def test_the_fake_is_the_same_every_time() -> None:
    assert await (await _open(_Gates()))[0].cluster_id() == await (await _open(_Gates()))[0].cluster_id()
