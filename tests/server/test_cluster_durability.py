"""The rules of durability where two nodes and a real PostgreSQL meet: each fault at the moment that matters.

One node reaches the database through a proxy that stands still when it is told to: the node then is what a suspended
process is to the others. Nothing depends on how fast anything is, but for the lease: long enough for a machine that is
busy with something else for a second, since half of it bounds what the database waits for.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import NamedTuple

import asyncpg
import grpc
import grpc.aio
import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.api.workflowservice.v1 import PollActivityTaskQueueResponse

from perdure.server.app import running
from perdure.server.core.records import WorkflowKey
from perdure.server.core.shards import shard_of
from perdure.server.settings import ClusterSettings, EngineSettings, ServerSettings
from tests.postgres_server import Databases
from tests.server.client import Client, client_of
from tests.server.engine.node import schedule_activity
from tests.server.store.postgres.proxy import Cut, Proxy
from tests.server.store.postgres.shell import Shell, until

LEASE_SECONDS = 3.0
CUTS = [Cut.BEFORE_COMMIT_ARRIVES, Cut.BEFORE_ITS_ANSWER]
TERMINATED = EventType.EVENT_TYPE_WORKFLOW_EXECUTION_TERMINATED

pytestmark = pytest.mark.process


class Node(NamedTuple):
    """A node as its clients and the database know it."""

    name: str
    client: Client


class Cluster(NamedTuple):
    """Two nodes, the first of them behind a proxy."""

    proxied: Node
    other: Node
    proxy: Proxy
    shell: Shell

    async def workflow_of(self, node: Node, prefix: str = "w") -> str:
        """Return a workflow id whose shard a node owns."""
        namespace_id = await self.shell.fetchval("SELECT namespace_id FROM namespace WHERE name = 'default'")
        rows = await self.shell.fetch("SELECT shard FROM shard WHERE owner = $1", node.name)
        owned = {row[0] for row in rows}
        names = (f"{prefix}{number}" for number in range(10_000))
        return next(name for name in names if shard_of(WorkflowKey(str(namespace_id), name)) in owned)

    async def until_taken_over(self) -> None:
        """Return when the other node has declared the proxied one dead."""
        await self.shell.execute(until(f"NOT EXISTS (SELECT FROM shard WHERE owner = '{self.proxied.name}')"))


@pytest.fixture
async def cluster(postgres_url: str) -> AsyncIterator[Cluster]:
    async with AsyncExitStack() as parts:
        proxy = await parts.enter_async_context(Proxy(postgres_url).running())
        parts.callback(proxy.let_go)
        proxied = await parts.enter_async_context(_node(proxy.url))
        other = await parts.enter_async_context(_node(postgres_url))
        shell = await asyncpg.connect(postgres_url)
        parts.push_async_callback(shell.close)
        await shell.execute(until("(SELECT count(DISTINCT owner) FROM shard) = 2"))
        yield Cluster(proxied, other, proxy, shell)


@asynccontextmanager
async def _node(url: str) -> AsyncIterator[Node]:
    settings = ServerSettings(
        db=url,
        port=0,
        shutdown_grace_seconds=0.1,
        engine=EngineSettings(cluster=ClusterSettings(lease_seconds=LEASE_SECONDS)),
    )
    async with running(settings) as server, client_of(server.port) as client:
        yield Node(f"127.0.0.1:{server.port}", client)


# --- a node that stands still between its fence and COMMIT ----------------------------------------------------------


async def test_a_batch_of_a_node_that_stood_still_before_commit_is_void(cluster: Cluster) -> None:
    name = await cluster.workflow_of(cluster.proxied)
    cluster.proxy.next_hold = Cut.BEFORE_COMMIT_ARRIVES
    start = asyncio.create_task(cluster.proxied.client.start(name))
    await cluster.proxy.is_held.wait()
    await cluster.until_taken_over()
    assert await cluster.other.client.count() == 0
    run_id = await cluster.other.client.start(name)
    cluster.proxy.let_go()
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await start
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE, "the caller is to try again"
    assert await cluster.proxied.client.start_until_answered(name) == run_id
    assert await cluster.other.client.count() == 1


async def test_a_commit_that_was_durable_before_its_node_stood_still_counts(cluster: Cluster) -> None:
    name = await cluster.workflow_of(cluster.proxied)
    cluster.proxy.next_hold = Cut.BEFORE_ITS_ANSWER
    start = asyncio.create_task(cluster.proxied.client.start(name))
    await cluster.proxy.is_held.wait()
    await cluster.until_taken_over()
    run_id = await cluster.other.client.start_until_answered(name)
    cluster.proxy.let_go()
    [answer] = await asyncio.gather(start, return_exceptions=True)
    if not isinstance(answer, str):
        assert isinstance(answer, grpc.aio.AioRpcError)
        assert answer.code() is grpc.StatusCode.UNAVAILABLE
    assert await cluster.proxied.client.start_until_answered(name) == run_id
    assert await cluster.other.client.count() == 1


async def test_a_node_that_woke_up_serves_again(cluster: Cluster) -> None:
    cluster.proxy.next_hold = Cut.BEFORE_COMMIT_ARRIVES
    start = asyncio.create_task(cluster.proxied.client.start(await cluster.workflow_of(cluster.proxied)))
    await cluster.proxy.is_held.wait()
    await cluster.until_taken_over()
    cluster.proxy.let_go()
    await asyncio.gather(start, return_exceptions=True)
    await cluster.shell.execute(until("(SELECT count(DISTINCT owner) FROM shard) = 2"))
    name = await cluster.workflow_of(cluster.proxied, "again")
    await cluster.other.client.start_until_answered(name)
    assert await cluster.proxied.client.signals(name) == []


# --- a commit whose acknowledgement is lost -------------------------------------------------------------------------


@pytest.mark.parametrize("cut", CUTS)
async def test_a_start_passed_on_whose_commit_was_not_answered_happens_once(cluster: Cluster, cut: Cut) -> None:
    name = await cluster.workflow_of(cluster.proxied)
    cluster.proxy.next_commit = cut
    run_id = await cluster.other.client.start_until_answered(name)
    assert await cluster.proxied.client.start_until_answered(name) == run_id
    assert await cluster.other.client.count() == 1


# --- a database that was restored to an older state -----------------------------------------------------------------


async def test_nodes_go_on_from_what_a_restored_database_holds(
    cluster: Cluster, databases: Databases, postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    kept = await cluster.workflow_of(cluster.proxied, "kept")
    gone = await cluster.workflow_of(cluster.proxied, "gone")
    run_id = await cluster.other.client.start(kept)
    await cluster.shell.close()
    async with _everybody_locked_out(databases, postgres_url) as name:
        await databases.execute(f"CREATE DATABASE {name}_backup TEMPLATE {name}")
    lost_run_id = await cluster.other.client.start_until_answered(gone)
    await cluster.proxied.client.signal_until_answered(kept, "lost")
    async with _everybody_locked_out(databases, postgres_url) as name:
        await databases.execute(f"DROP DATABASE {name}")
        await databases.execute(f"ALTER DATABASE {name}_backup RENAME TO {name}")
    await cluster.other.client.signal_until_answered(kept, "next")
    assert await cluster.proxied.client.signals(kept) == ["next"]
    assert await cluster.proxied.client.start_until_answered(kept) == run_id
    assert await cluster.other.client.start_until_answered(gone) != lost_run_id
    assert "lost acknowledged work" in caplog.text


# --- a takeover while a poll is in flight ---------------------------------------------------------------------------


@pytest.mark.parametrize("visiting", [False, True], ids=["polled at the owner", "polled at the other node"])
async def test_an_activity_whose_start_was_void_is_given_out_by_who_took_over(cluster: Cluster, visiting: bool) -> None:
    proxied, other = cluster.proxied.client, cluster.other.client
    await _schedule_an_activity(cluster, await cluster.workflow_of(cluster.proxied))
    cluster.proxy.next_hold = Cut.BEFORE_COMMIT_ARRIVES
    in_flight = asyncio.create_task((other if visiting else proxied).poll_activity(timeout=30))
    await cluster.proxy.is_held.wait()
    await cluster.until_taken_over()
    given = await (in_flight if visiting else other.poll_activity())
    cluster.proxy.let_go()
    assert (given.activity_id, given.attempt) == ("a", 1)
    await other.complete_activity(given)
    if not visiting:
        assert await _gets_nothing(in_flight), "the void start reached a worker"


@pytest.mark.parametrize("visiting", [False, True], ids=["polled at the owner", "polled at the other node"])
async def test_an_activity_whose_start_was_durable_is_given_out_to_nobody_else(
    cluster: Cluster, visiting: bool
) -> None:
    proxied, other = cluster.proxied.client, cluster.other.client
    await _schedule_an_activity(cluster, await cluster.workflow_of(cluster.proxied))
    cluster.proxy.next_hold = Cut.BEFORE_ITS_ANSWER
    in_flight = asyncio.create_task((other if visiting else proxied).poll_activity(timeout=30))
    await cluster.proxy.is_held.wait()
    await cluster.until_taken_over()
    late = asyncio.create_task(other.poll_activity(timeout=30))
    cluster.proxy.let_go()
    await cluster.shell.execute(until("(SELECT count(DISTINCT owner) FROM shard) = 2"))
    assert [await _gets_nothing(poll) for poll in (in_flight, late)].count(False) <= 1, "it was given out twice"


# --- a shard that moves between two live nodes ----------------------------------------------------------------------


async def test_what_is_signalled_while_shards_move_arrives_once(cluster: Cluster, postgres_url: str) -> None:
    names = [await cluster.workflow_of(node, prefix) for node in cluster[:2] for prefix in "abc"]
    for name in names:
        await cluster.other.client.start(name)
    moved = asyncio.Event()

    async def signal(name: str, client: Client) -> list[str]:
        sent: list[str] = []
        while not moved.is_set():
            sent.append(f"{name} {len(sent)}")
            await client.signal_until_answered(name, sent[-1])
        return sent

    clients = (cluster.proxied.client, cluster.other.client)
    calls = [asyncio.create_task(signal(name, clients[place % 2])) for place, name in enumerate(names)]
    for _ in range(2):
        async with _node(postgres_url):
            await cluster.shell.execute(until("(SELECT count(DISTINCT owner) FROM shard) = 3"))
        await cluster.shell.execute(until("(SELECT count(DISTINCT owner) FROM shard) = 2"))
    moved.set()
    for name, sent in zip(names, await asyncio.gather(*calls), strict=True):
        assert await cluster.other.client.signals(name) == sent


async def test_who_waits_for_a_result_is_told_though_the_shard_has_moved(cluster: Cluster, postgres_url: str) -> None:
    names = [await cluster.workflow_of(node, prefix) for node in cluster[:2] for prefix in "abcdef"]
    for name in names:
        await cluster.proxied.client.start(name)
    waits = [asyncio.create_task(cluster.proxied.client.closing_event(name)) for name in names]
    async with _node(postgres_url) as third:
        await cluster.shell.execute(until("(SELECT count(DISTINCT owner) FROM shard) = 3"))
        for name in names:
            await third.client.terminate(name)
        assert await asyncio.wait_for(asyncio.gather(*waits), 10) == [TERMINATED] * len(names)


@asynccontextmanager
async def _everybody_locked_out(databases: Databases, url: str) -> AsyncIterator[str]:
    """Give the name of a database that nobody is connected to for as long as the block lasts."""
    name = url.rpartition("/")[2]
    await databases.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    await databases.execute(f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{name}'")
    yield name
    await databases.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")


async def _schedule_an_activity(cluster: Cluster, name: str) -> None:
    await cluster.proxied.client.start(name)
    await cluster.proxied.client.complete(await cluster.proxied.client.poll(), schedule_activity())


async def _gets_nothing(poll: asyncio.Task[PollActivityTaskQueueResponse]) -> bool:
    """Whether a poll has got nothing for as long as it would take to get something."""
    done, _ = await asyncio.wait([poll], timeout=LEASE_SECONDS)
    poll.cancel()
    return not done or poll.exception() is not None or not poll.result().task_token
