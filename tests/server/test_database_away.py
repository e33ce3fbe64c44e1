"""A server whose PostgreSQL crashes and comes back: nobody is told anything false, and nothing has to be restarted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2

from perdure.server.app import running
from perdure.server.settings import ServerSettings
from tests.postgres_server import PostgresServer
from tests.server.client import Client, client_of
from tests.server.store.postgres.proxy import Cut, Proxy

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
WATCH = "/grpc.health.v1.Health/Watch"
STARTS = 200


async def _until_health_is(client: Client, status: int) -> None:
    """Return once the health service tells a status."""
    watching: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = client.channel.unary_stream(WATCH)
    watch = watching(health_pb2.HealthCheckRequest().SerializeToString())
    async for told in watch:
        if health_pb2.HealthCheckResponse.FromString(told).status == status:
            break
    watch.cancel()


@asynccontextmanager
async def _server_on(url: str) -> AsyncIterator[Client]:
    settings = ServerSettings(db=url, port=0, store_check_seconds=0.01, shutdown_grace_seconds=0.1)
    async with running(settings) as server, client_of(server.port) as client:
        yield client


@pytest.mark.process
async def test_a_server_outlives_a_crash_of_its_database(postgres_server: PostgresServer, postgres_url: str) -> None:
    async with _server_on(postgres_url) as client:
        before = await client.start("before")
        await _until_health_is(client, SERVING)
        postgres_server.stop()
        await _until_health_is(client, NOT_SERVING)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await client.start("during")
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        postgres_server.start()
        await _until_health_is(client, SERVING)
        assert await client.start("during")
        assert await client.start("before") == before
        assert await client.count() == 2


@pytest.mark.process
async def test_what_is_in_flight_when_the_database_crashes_happens_once_or_not_at_all(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    async with _server_on(postgres_url) as client:
        calls = [asyncio.create_task(client.start(f"order-{number}")) for number in range(STARTS)]
        await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.to_thread(postgres_server.stop)
        await asyncio.to_thread(postgres_server.start)
        answers = await asyncio.gather(*calls, return_exceptions=True)
        for number, answer in enumerate(answers):
            run_id = await client.start_until_answered(f"order-{number}")
            if isinstance(answer, str):
                assert run_id == answer, "what was acknowledged is there"
            else:
                assert isinstance(answer, grpc.aio.AioRpcError)
                assert answer.code() is grpc.StatusCode.UNAVAILABLE
        assert await client.count() == STARTS


@pytest.mark.parametrize("cut", [Cut.BEFORE_COMMIT_ARRIVES, Cut.BEFORE_ITS_ANSWER])
async def test_a_start_whose_commit_was_not_answered_happens_once(postgres_url: str, cut: Cut) -> None:
    async with Proxy(postgres_url).running() as proxy, _server_on(proxy.url) as client:
        proxy.next_commit = cut
        run_id = await client.start_until_answered("order")
        assert await client.start("order") == run_id
        assert await client.count() == 1
