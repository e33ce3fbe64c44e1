"""A takeover meets what the dead node has left in the database: a batch that it began, and locks of others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from perdure.server.store.interface import CommitUnknown, Fenced, StoreUnavailable
from perdure.server.store.postgres import PostgresStore
from perdure.server.store.settings import PostgresSettings
from tests.server.store import rows
from tests.server.store.postgres.proxy import Cut, Proxy
from tests.server.store.postgres.shell import Shell, until
from tests.server.store.writing import Node

LEASE_SECONDS = 60.0
EXPIRED = 0.0
HASTY = PostgresSettings(idle_transaction_timeout_seconds=0.3)
PATIENT = PostgresSettings(idle_transaction_timeout_seconds=60.0, lock_timeout_seconds=60.0)
WRITE = rows.write("w", rows.run("w", "r"))
IN_TWO_STATEMENTS = (WRITE, rows.write("w", rows.run("w", "r", stored_version=1)))


@pytest.fixture
async def proxy(postgres_url: str) -> AsyncIterator[Proxy]:
    async with Proxy(postgres_url).running() as proxy:
        yield proxy
        proxy.let_go()


@pytest.fixture
def settings_of_the_dead() -> PostgresSettings:
    return PATIENT


@pytest.fixture
async def dead(proxy: Proxy, settings_of_the_dead: PostgresSettings) -> AsyncIterator[Node]:
    """A node whose lease has ended."""
    store = PostgresStore(proxy.url, settings_of_the_dead)
    await store.open()
    node = Node("dead:1", store)
    await node.join("its life", LEASE_SECONDS)
    await store.renew(EXPIRED)
    yield node
    await store.close()


@pytest.fixture
async def alive(postgres_url: str) -> AsyncIterator[Node]:
    store = PostgresStore(postgres_url, PATIENT)
    await store.open()
    node = Node("alive:1", store)
    await node.join("another life", LEASE_SECONDS)
    yield node
    await store.close()


@pytest.mark.parametrize("settings_of_the_dead", [HASTY], ids=["its batches may stand still for a moment"])
async def test_a_batch_that_stands_still_behind_its_fence_is_undone_and_the_node_taken_over(
    dead: Node, alive: Node, proxy: Proxy
) -> None:
    proxy.next_hold = Cut.BEFORE_COMMIT_ARRIVES
    commit = asyncio.create_task(dead.commit(*IN_TWO_STATEMENTS))
    await proxy.is_held.wait()
    assert await alive.take_over("dead:1", "its life"), "it waits for no longer than a batch may stand still"
    assert not await _is_there(alive)
    proxy.let_go()
    with pytest.raises((StoreUnavailable, CommitUnknown)):
        await commit
    with pytest.raises(Fenced):
        await dead.store.resolve()
    assert not await _is_there(alive)


async def test_a_batch_that_commits_before_it_is_undone_is_there_for_who_takes_over(
    dead: Node, alive: Node, proxy: Proxy, shell: Shell
) -> None:
    proxy.next_hold = Cut.BEFORE_COMMIT_ARRIVES
    commit = asyncio.create_task(dead.commit(*IN_TWO_STATEMENTS))
    await proxy.is_held.wait()
    takeover = asyncio.create_task(alive.take_over("dead:1", "its life"))
    await shell.execute(until("EXISTS (SELECT FROM pg_locks WHERE NOT granted)"))
    proxy.let_go()
    await commit
    assert await takeover
    assert await _is_there(alive)
    with pytest.raises(Fenced):
        await dead.commit(rows.write("w", rows.run("w", "r", stored_version=2)))


async def test_a_batch_of_one_statement_that_has_not_arrived_holds_nobody_up_and_comes_too_late(
    dead: Node, alive: Node, proxy: Proxy
) -> None:
    proxy.next_hold = Cut.BEFORE_COMMIT_ARRIVES
    commit = asyncio.create_task(dead.commit(WRITE))
    await proxy.is_held.wait()
    assert await alive.take_over("dead:1", "its life")
    proxy.let_go()
    with pytest.raises(Fenced):
        await commit
    assert not await _is_there(alive)


async def test_the_view_is_read_though_all_readers_are_held_up(postgres_url: str, shell: Shell) -> None:
    store = PostgresStore(postgres_url, PostgresSettings(read_connections=1))
    await store.open()
    await store.join("a:1", "life", "1.0", LEASE_SECONDS)
    async with shell.transaction():
        await shell.execute("LOCK TABLE run IN ACCESS EXCLUSIVE MODE")
        read = asyncio.create_task(store.load_run(rows.key("w"), "r"))
        await shell.execute(until("EXISTS (SELECT FROM pg_locks WHERE NOT granted)"))
        assert [member.node for member in (await store.read_view()).members] == ["a:1"]
    await read
    await store.close()


async def _is_there(node: Node) -> bool:
    return await node.store.load_run(rows.key("w"), "r") is not None
