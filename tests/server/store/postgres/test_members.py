"""Nodes in one PostgreSQL: what waits for whose transaction, for how long, and what waits for nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from perdure.server.core.shards import SHARDS
from perdure.server.store.interface import CommitUnknown, Fenced, ShardMove, StoreUnavailable
from perdure.server.store.postgres import PostgresStore, batches, members
from perdure.server.store.postgres.connections import writing_session
from perdure.server.store.postgres.statements import FENCE
from perdure.server.store.rounds import Fence
from perdure.server.store.settings import PostgresSettings
from tests.server.store import rows
from tests.server.store.conftest import ClusterPlace
from tests.server.store.postgres.proxy import Cut, Proxy
from tests.server.store.postgres.shell import Shell, end_other_sessions, until
from tests.server.store.writing import Node

ALL = set(range(SHARDS))
IDLE_SECONDS = 0.3
SOMEBODY_WAITS = until("EXISTS (SELECT FROM pg_locks WHERE NOT granted)")
WRITE = rows.write("w", rows.run("w", "r"))


@pytest.fixture
async def nodes(postgres_url: str) -> AsyncIterator[ClusterPlace]:
    place = ClusterPlace(lambda: PostgresStore(postgres_url, PostgresSettings(lock_timeout_seconds=30)))
    yield place
    await place.close()


@pytest.fixture
async def batch_of_the_dead(nodes: ClusterPlace, postgres_url: str) -> AsyncIterator[Shell]:
    """The session of the node `a:1`, whose lease has ended, in the middle of its first batch."""
    await nodes.node("a:1", lease_seconds=0)
    settings = writing_session(PostgresSettings(idle_transaction_timeout_seconds=IDLE_SECONDS))
    connection = await asyncpg.connect(postgres_url, server_settings=settings)
    await connection.execute("BEGIN")
    assert await connection.execute(FENCE, "a:1", 1, 1) == "UPDATE 1"
    yield connection
    connection.terminate()


async def _is_there(node: Node) -> bool:
    return await node.store.load_run(rows.key("w"), "r") is not None


# --- taking over --------------------------------------------------------------------------------------------------


async def test_a_takeover_waits_for_a_batch_that_has_passed_the_fence(
    nodes: ClusterPlace, batch_of_the_dead: Shell, shell: Shell
) -> None:
    await batch_of_the_dead.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
    second, third = await nodes.node("b:1"), await nodes.node("c:1")
    takeover = asyncio.create_task(second.take_over("a:1", "a:1"))
    await shell.execute(SOMEBODY_WAITS)
    await members.move(batch_of_the_dead, "a:1", [ShardMove(7, "c:1")])
    await batch_of_the_dead.execute("COMMIT")
    assert await takeover
    assert await third.shards() == {7}, "what the dead node gave away before is not taken"
    assert await second.shards() == ALL - {7}
    with pytest.raises(Fenced):
        await batches.write_in_transaction(batch_of_the_dead, Fence("a:1", 1, 2), [], [])


async def test_a_takeover_waits_for_a_stopped_node_no_longer_than_the_database_does(
    nodes: ClusterPlace, batch_of_the_dead: Shell
) -> None:
    second = await nodes.node("b:1")
    before = asyncio.get_running_loop().time()
    assert await second.take_over("a:1", "a:1")
    assert asyncio.get_running_loop().time() - before < 10 * IDLE_SECONDS
    with pytest.raises(asyncpg.InterfaceError):
        await batch_of_the_dead.execute("COMMIT")
    assert await second.shards() == ALL


async def test_a_takeover_that_waits_too_long_changes_nothing(
    postgres_url: str, nodes: ClusterPlace, batch_of_the_dead: Shell
) -> None:
    await batch_of_the_dead.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
    store = PostgresStore(postgres_url, PostgresSettings(lock_timeout_seconds=0.1))
    await store.open()
    impatient = Node("b:1", store)
    await impatient.join("b:1", 60)
    before = await store.read_view()
    with pytest.raises(StoreUnavailable, match="lock timeout"):
        await impatient.take_over("a:1", "a:1")
    await batch_of_the_dead.execute("COMMIT")
    assert await store.read_view() == before
    assert await impatient.take_over("a:1", "a:1")
    await store.close()


async def test_the_batches_of_who_takes_over_do_not_wait_with_the_takeover(
    nodes: ClusterPlace, batch_of_the_dead: Shell, shell: Shell
) -> None:
    await batch_of_the_dead.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
    second = await nodes.node("b:1")
    takeover = asyncio.create_task(second.take_over("a:1", "a:1"))
    await shell.execute(SOMEBODY_WAITS)
    await second.commit(WRITE)
    await second.store.renew(60)
    assert not takeover.done()
    await batch_of_the_dead.execute("COMMIT")
    assert await takeover


async def test_a_node_that_renews_while_it_is_taken_over_waits_and_is_told(nodes: ClusterPlace, shell: Shell) -> None:
    late, second = await nodes.node("a:1", lease_seconds=0), await nodes.node("b:1")
    async with shell.transaction():
        await shell.execute(members.LOCK_FENCE, "a:1")
        takeover = asyncio.create_task(second.take_over("a:1", "a:1"))
        await shell.execute(SOMEBODY_WAITS)
        renewal = asyncio.create_task(late.store.renew(60))
        await shell.execute(until("(SELECT count(*) FROM pg_locks WHERE NOT granted) = 2"))
    assert await takeover
    with pytest.raises(Fenced):
        await renewal


async def test_a_node_that_renewed_in_time_is_not_taken_over(nodes: ClusterPlace, shell: Shell) -> None:
    node, second = await nodes.node("a:1", lease_seconds=0), await nodes.node("b:1")
    async with shell.transaction():
        await shell.fetch(members.RENEW, "a:1", "a:1", 60 * rows.SECOND)
        takeover = asyncio.create_task(second.take_over("a:1", "a:1"))
        await shell.execute(SOMEBODY_WAITS)
    assert not await takeover
    await node.commit(WRITE)


async def test_who_joins_while_its_shards_are_taken_is_not_fenced(nodes: ClusterPlace, shell: Shell) -> None:
    gone, second = await nodes.node("a:1"), await nodes.node("b:1")
    await gone.store.leave()
    async with shell.transaction():
        await shell.execute(members.LOCK_FENCE, "a:1")
        takeover = asyncio.create_task(second.take_over("a:1", None))
        await shell.execute(SOMEBODY_WAITS)
        joining = asyncio.create_task(gone.join("life 2", 60))
        await shell.execute(until("(SELECT count(*) FROM pg_locks WHERE NOT granted) = 2"))
    # Whichever comes first: who is a member afterwards can commit, and each shard is somebody's.
    assert await takeover
    await joining
    await gone.commit(WRITE)
    assert (await gone.shards(), await second.shards()) == (set(), ALL)


# --- renewing -----------------------------------------------------------------------------------------------------


async def test_renewing_does_not_wait_for_a_batch_in_flight(nodes: ClusterPlace, shell: Shell) -> None:
    node, other = await nodes.node("a:1"), await nodes.node("b:1")
    async with shell.transaction():
        # Our own batch, which gives a shard away.
        await batches.write_in_transaction(shell, Fence("a:1", 1, 1), [], [ShardMove(3, "b:1")])
        # And one that waits for it, as it would for any other lock.
        behind = asyncio.create_task(node.commit(WRITE))
        async with asyncio.timeout(10):
            await node.store.renew(60)
            await other.store.renew(60)
        assert not behind.done()
    with pytest.raises(Fenced):
        await behind


async def test_a_renewal_gives_up_within_a_third_of_the_lease(nodes: ClusterPlace, shell: Shell) -> None:
    node = await nodes.node("a:1", lease_seconds=60)
    await node.join("life 2", 3.0)
    await node.store.renew(3.0)
    async with shell.transaction():
        await shell.execute("SELECT * FROM member FOR UPDATE")
        before = asyncio.get_running_loop().time()
        with pytest.raises(StoreUnavailable):
            await node.store.renew(3.0)
        assert asyncio.get_running_loop().time() - before < 1.0
    await node.store.renew(3.0)


async def test_a_lease_that_was_waited_for_ends_no_later_for_it(nodes: ClusterPlace, shell: Shell) -> None:
    node = await nodes.node("a:1")
    async with shell.transaction():
        await shell.execute("SELECT * FROM member FOR UPDATE")
        renewal = asyncio.create_task(node.store.renew(60))
        await shell.execute(SOMEBODY_WAITS)
        waited_since = await shell.fetchval("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint * 1000")
    await renewal
    [member] = (await node.store.read_view()).members
    assert member.lease_until <= waited_since + 60 * rows.SECOND


async def test_a_renewal_finds_the_database_again(nodes: ClusterPlace, shell: Shell) -> None:
    node = await nodes.node("a:1")
    await node.store.renew(60)
    await end_other_sessions(shell)
    try:
        await node.store.renew(60)
    except StoreUnavailable:
        await node.store.renew(60)


# --- giving away --------------------------------------------------------------------------------------------------


async def test_who_is_being_given_shards_is_not_taken_over_meanwhile(nodes: ClusterPlace, shell: Shell) -> None:
    await nodes.node("a:1")
    await nodes.node("b:1", lease_seconds=0)
    third = await nodes.node("c:1")
    async with shell.transaction():
        await batches.write_in_transaction(shell, Fence("a:1", 1, 1), [], [ShardMove(3, "b:1")])
        takeover = asyncio.create_task(third.take_over("b:1", "b:1", 3))
        await shell.execute(SOMEBODY_WAITS)
    assert await takeover
    assert await third.shards() == {3}


# --- answers that do not come -------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [Cut.BEFORE_COMMIT_ARRIVES, Cut.BEFORE_ITS_ANSWER])
async def test_joining_without_an_answer_is_done_again(postgres_url: str, cut: Cut) -> None:
    async with Proxy(postgres_url).running() as proxy:
        store = PostgresStore(proxy.url)
        await store.open()
        node = Node("a:1", store)
        proxy.next_commit = cut
        with pytest.raises(StoreUnavailable):
            await node.join("life 1", 60)
        await node.join("life 1", 60)
        await node.commit(WRITE)
        assert await node.shards() == ALL
        await store.close()


async def test_a_takeover_without_an_answer_is_seen_in_the_view(nodes: ClusterPlace, postgres_url: str) -> None:
    await nodes.node("a:1", lease_seconds=0)
    async with Proxy(postgres_url).running() as proxy:
        store = PostgresStore(proxy.url)
        await store.open()
        node = Node("b:1", store)
        await node.join("b:1", 60)
        proxy.next_commit = Cut.BEFORE_ITS_ANSWER
        with pytest.raises(CommitUnknown):
            await node.take_over("a:1", "a:1")
        assert await node.shards() == ALL
        assert not await node.take_over("a:1", "a:1")
        await store.close()
