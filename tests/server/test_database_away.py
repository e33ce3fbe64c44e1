"""A server whose PostgreSQL crashes and comes back: nobody is told anything false, and nothing has to be restarted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2
from temporalio.api.common.v1 import WorkflowType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import (
    CountWorkflowExecutionsRequest,
    CountWorkflowExecutionsResponse,
    StartWorkflowExecutionRequest,
    StartWorkflowExecutionResponse,
)

from perdure.server.app import running
from perdure.server.settings import ServerSettings
from tests.postgres_server import PostgresServer
from tests.server.store.postgres.proxy import Cut, Proxy

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE = "temporal.api.workflowservice.v1.WorkflowService"
WATCH = "/grpc.health.v1.Health/Watch"
STARTS = 200


class Client(NamedTuple):
    """A client of a server."""

    channel: grpc.aio.Channel

    async def start(self, workflow_id: str) -> str:
        """Start a workflow, the same request each time, and return its run id."""
        request = StartWorkflowExecutionRequest(
            namespace="default",
            workflow_id=workflow_id,
            workflow_type=WorkflowType(name="Order"),
            task_queue=TaskQueue(name="orders"),
            request_id=workflow_id,
        )
        reply = await self._call("StartWorkflowExecution", request.SerializeToString())
        return StartWorkflowExecutionResponse.FromString(reply).run_id

    async def start_until_answered(self, workflow_id: str) -> str:
        """Start a workflow as an SDK does, which tries again where the server is unavailable."""
        while True:
            try:
                return await self.start(workflow_id)
            except grpc.aio.AioRpcError as error:
                assert error.code() is grpc.StatusCode.UNAVAILABLE, error.details()
                await asyncio.sleep(0)

    async def workflows_there_are(self) -> int:
        """Count the workflows there are."""
        request = CountWorkflowExecutionsRequest(namespace="default")
        reply = await self._call("CountWorkflowExecutions", request.SerializeToString())
        return CountWorkflowExecutionsResponse.FromString(reply).count

    async def until_health_is(self, status: int) -> None:
        """Return once the health service tells a status."""
        watching: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = self.channel.unary_stream(WATCH)
        watch = watching(health_pb2.HealthCheckRequest().SerializeToString())
        async for told in watch:
            if health_pb2.HealthCheckResponse.FromString(told).status == status:
                break
        watch.cancel()

    async def _call(self, method: str, request: bytes) -> bytes:
        callable_: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = self.channel.unary_unary(f"/{SERVICE}/{method}")
        return await callable_(request, timeout=20)


@asynccontextmanager
async def _server_on(url: str) -> AsyncIterator[Client]:
    settings = ServerSettings(db=url, port=0, store_check_seconds=0.01, shutdown_grace_seconds=0.1)
    async with running(settings) as server, grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield Client(channel)


@pytest.mark.process
async def test_a_server_outlives_a_crash_of_its_database(postgres_server: PostgresServer, postgres_url: str) -> None:
    async with _server_on(postgres_url) as client:
        before = await client.start("before")
        await client.until_health_is(SERVING)
        postgres_server.stop()
        await client.until_health_is(NOT_SERVING)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await client.start("during")
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        postgres_server.start()
        await client.until_health_is(SERVING)
        assert await client.start("during")
        assert await client.start("before") == before
        assert await client.workflows_there_are() == 2


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
        assert await client.workflows_there_are() == STARTS


@pytest.mark.parametrize("cut", [Cut.BEFORE_COMMIT_ARRIVES, Cut.BEFORE_ITS_ANSWER])
async def test_a_start_whose_commit_was_not_answered_happens_once(postgres_url: str, cut: Cut) -> None:
    async with Proxy(postgres_url).running() as proxy, _server_on(proxy.url) as client:
        proxy.next_commit = cut
        run_id = await client.start_until_answered("order")
        assert await client.start("order") == run_id
        assert await client.workflows_there_are() == 1
