"""The gRPC front end over real connections on loopback, with handlers made for each test."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import cast

import grpc
import grpc.aio
import pytest
from google.protobuf.message import Message
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]  # published without type hints
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from temporalio.api.errordetails.v1 import NamespaceNotFoundFailure
from temporalio.api.workflowservice.v1 import GetSystemInfoRequest, GetSystemInfoResponse

from perdure.server.core.errors import NotFound
from perdure.server.core.limits import Limits
from perdure.server.engine.client_software import ClientSoftware
from perdure.server.engine.namespaces import Namespaces
from perdure.server.frontends.grpc.frontend import GrpcFrontend
from perdure.server.handlers.call import Call
from perdure.server.handlers.dispatch import Dispatcher
from perdure.server.handlers.registry import CLUSTER_SERVICE, OPERATOR_SERVICE, WORKFLOW_SERVICE, Method, Reply, methods
from perdure.server.handlers.server import Engine, Server
from perdure.server.store.interface import StoreUnavailable

PATH = f"/{WORKFLOW_SERVICE}/GetSystemInfo"
MIB = 1024 * 1024
OneHandler = Callable[[Server, Message, Call], Awaitable[Reply]]


class Running:
    """A front end that serves, and a client of it."""

    def __init__(self, frontend: GrpcFrontend, channel: grpc.aio.Channel, port: int) -> None:
        self.frontend = frontend
        self.channel = channel
        self.port = port

    def call(
        self,
        request: bytes = b"",
        *,
        path: str = PATH,
        timeout: float | None = 5,
        metadata: Sequence[tuple[str, str]] = (),
        compression: grpc.Compression | None = None,
    ) -> grpc.aio.UnaryUnaryCall[bytes, bytes]:
        method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = self.channel.unary_unary(path)
        return method(request, timeout=timeout, metadata=tuple(metadata), compression=compression)

    async def health(self, service: str) -> health_pb2.HealthCheckResponse:
        request = health_pb2.HealthCheckRequest(service=service).SerializeToString()
        reply = await self.call(request, path="/grpc.health.v1.Health/Check")
        return health_pb2.HealthCheckResponse.FromString(reply)


def server_with(limits: Limits | None = None) -> Server:
    # These handlers ask neither the engine nor the namespaces.
    return Server(cast(Engine, None), cast(Namespaces, None), "cluster", limits=limits or Limits())


@asynccontextmanager
async def running(
    served: OneHandler | Sequence[Method],
    limits: Limits | None = None,
) -> AsyncIterator[Running]:
    if callable(served):
        served = [Method(WORKFLOW_SERVICE, "GetSystemInfo", GetSystemInfoRequest, served, True)]
    frontend = GrpcFrontend(served, address="127.0.0.1:0", message_size=(limits or Limits()).message_size)
    port = await frontend.bind()
    await frontend.start(Dispatcher(server_with(limits), served))
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield Running(frontend, channel, port)
    finally:
        await frontend.stop(0)


async def version_1(server: Server, request: Message, call: Call) -> Reply:
    return GetSystemInfoResponse(server_version="1")


async def failure_of(call: grpc.aio.UnaryUnaryCall[bytes, bytes]) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await call
    return failed.value


# --- replies ----------------------------------------------------------------------------------------------------------


async def test_a_message_is_serialised() -> None:
    async with running(version_1) as client:
        assert GetSystemInfoResponse.FromString(await client.call()).server_version == "1"


async def test_bytes_pass_through_as_they_are() -> None:
    unordered = b"\xf2\x3f\x01x" + GetSystemInfoResponse(server_version="1").SerializeToString()

    async def handler(server: Server, request: Message, call: Call) -> Reply:
        return unordered

    async with running(handler) as client:
        assert await client.call() == unordered


async def test_a_handler_gets_the_server_and_the_request() -> None:
    seen: list[object] = []

    async def handler(server: Server, request: Message, call: Call) -> Reply:
        seen.extend((server.cluster_id, request))
        return b""

    async with running(handler) as client:
        await client.call(GetSystemInfoRequest().SerializeToString())
    assert seen == ["cluster", GetSystemInfoRequest()]


async def test_a_gzipped_request_is_read() -> None:
    sizes: list[int] = []

    async def handler(server: Server, request: Message, call: Call) -> Reply:
        sizes.append(request.ByteSize())
        return b"x" * 1000

    # Field 1 is unknown to this message: its 10,000 bytes come through as they are.
    request = b"\x0a\x90\x4e" + b"x" * 10_000
    async with running(handler) as client:
        reply = await client.call(request, compression=grpc.Compression.Gzip)
    assert (sizes, len(reply)) == ([10_003], 1000)


# --- the call ---------------------------------------------------------------------------------------------------------


async def test_a_handler_sees_deadline_and_client() -> None:
    seen: list[tuple[float | None, ClientSoftware]] = []

    async def handler(server: Server, request: Message, call: Call) -> Reply:
        remaining = None if call.deadline is None else call.deadline - asyncio.get_running_loop().time()
        seen.append((remaining, call.client))
        return b""

    async with running(handler) as client:
        await client.call(timeout=30, metadata=[("client-name", "temporal-go"), ("client-version", "1.2.3")])
        await client.call(timeout=None)
    (remaining, client_software), without = seen
    assert remaining is not None
    assert 25 < remaining <= 30.1
    assert client_software == ClientSoftware("temporal-go", "1.2.3")
    assert without == (None, ClientSoftware())


async def test_a_handler_is_cancelled_when_its_client_goes_away() -> None:
    entered, cancelled = asyncio.Event(), asyncio.Event()

    async def handler(server: Server, request: Message, call: Call) -> Reply:
        entered.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        raise AssertionError("not reached")

    async with running(handler) as client:
        call = client.call()
        await entered.wait()
        call.cancel()
        await asyncio.wait_for(cancelled.wait(), 5)


# --- errors -----------------------------------------------------------------------------------------------------------


async def test_an_error_arrives_with_code_message_and_detail() -> None:
    async def handler(server: Server, request: Message, call: Call) -> Reply:
        raise NotFound("Namespace ü is not found.", detail=NamespaceNotFoundFailure(namespace="ü"))

    async with running(handler) as client:
        error = await failure_of(client.call())
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert error.details() == "Namespace ü is not found."
    trailer = dict(error.trailing_metadata() or ())["grpc-status-details-bin"]
    detail = NamespaceNotFoundFailure()
    assert Status.FromString(trailer).details[0].Unpack(detail)
    assert detail.namespace == "ü"


async def test_the_unexpected_is_internal_and_only_logged_in_full(caplog: pytest.LogCaptureFixture) -> None:
    async def handler(server: Server, request: Message, call: Call) -> Reply:
        raise KeyError("secret")

    with caplog.at_level(logging.ERROR):
        async with running(handler) as client:
            error = await failure_of(client.call())
    assert error.code() is grpc.StatusCode.INTERNAL
    assert error.details() == "internal error in GetSystemInfo, see the server's log"
    (record,) = caplog.records
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], KeyError)


async def test_a_store_that_is_away_is_unavailable(caplog: pytest.LogCaptureFixture) -> None:
    async def handler(server: Server, request: Message, call: Call) -> Reply:
        raise StoreUnavailable("busy")

    async with running(handler) as client:
        error = await failure_of(client.call())
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert caplog.records == []


@pytest.mark.parametrize("data", [b"\xff\xff\xff", b"\x0a\x03\xed\xa0\x80"], ids=["garbage", "lone surrogate"])
async def test_what_is_no_request_is_an_invalid_argument(data: bytes) -> None:
    describe = next(method for method in methods() if method.name == "DescribeNamespace")
    async with running([describe]) as client:
        error = await failure_of(client.call(data, path=f"/{WORKFLOW_SERVICE}/DescribeNamespace"))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "DescribeNamespace cannot be read" in (error.details() or "")


async def test_a_message_over_the_limit_is_refused() -> None:
    async with running(version_1, Limits(message_size=MIB)) as client:
        assert await client.call(b"\x0a\xb4\x97\x3f" + b"x" * 1_035_188)
        error = await failure_of(client.call(b"x" * (MIB + 1)))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_an_rpc_without_a_handler_is_unimplemented_and_says_which() -> None:
    async with running(methods()) as client:
        error = await failure_of(client.call(path=f"/{WORKFLOW_SERVICE}/CreateSchedule"))
        unknown = await failure_of(client.call(path="/temporal.api.testservice.v1.TestService/Sleep"))
    assert error.code() is unknown.code() is grpc.StatusCode.UNIMPLEMENTED
    assert error.details() == "CreateSchedule is not implemented by this server."


async def test_every_method_of_the_registry_is_served() -> None:
    served = [Method(each.service, each.name, each.request_class, version_1, True) for each in methods()]
    async with running(served) as client:
        replies = [await client.call(path=f"/{each.service}/{each.name}") for each in served]
    assert set(replies) == {GetSystemInfoResponse(server_version="1").SerializeToString()}


# --- health, reflection, start and stop -------------------------------------------------------------------------------


@pytest.mark.parametrize("service", ["", WORKFLOW_SERVICE, OPERATOR_SERVICE])
async def test_health_is_serving(service: str) -> None:
    async with running(methods()) as client:
        told = await client.health(service)
    assert told.status == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize("service", ["", WORKFLOW_SERVICE, OPERATOR_SERVICE])
async def test_health_tells_what_was_last_reported_and_calls_are_answered_all_the_same(service: str) -> None:
    async with running(methods()) as client:
        await client.frontend.report(is_ready=False)
        told = await client.health(service)
        assert await client.call()
        await client.frontend.report(is_ready=True)
        told_later = await client.health(service)
    assert told.status == health_pb2.HealthCheckResponse.NOT_SERVING
    assert told_later.status == health_pb2.HealthCheckResponse.SERVING


async def test_health_of_an_unknown_service_is_not_found() -> None:
    async with running(methods()) as client:
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await client.health("nope")
    assert failed.value.code() is grpc.StatusCode.NOT_FOUND


async def test_reflection_lists_the_services_and_knows_their_types() -> None:
    async with running(methods()) as client:
        requests = [
            reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString(),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol=WORKFLOW_SERVICE).SerializeToString(),
        ]
        stream: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = client.channel.stream_stream(
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
        )
        replies = [reflection_pb2.ServerReflectionResponse.FromString(reply) async for reply in stream(iter(requests))]
    services, file = replies
    assert {service.name for service in services.list_services_response.service} == {
        WORKFLOW_SERVICE,
        OPERATOR_SERVICE,
        CLUSTER_SERVICE,
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }
    assert file.file_descriptor_response.file_descriptor_proto


async def test_health_is_watched_until_the_server_stops() -> None:
    async with running(methods()) as client:
        watch: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = client.channel.unary_stream(
            "/grpc.health.v1.Health/Watch"
        )
        replies = watch(health_pb2.HealthCheckRequest().SerializeToString()).__aiter__()
        told = [health_pb2.HealthCheckResponse.FromString(await anext(replies)).status]
        await client.frontend.report(is_ready=False)
        told.append(health_pb2.HealthCheckResponse.FromString(await anext(replies)).status)
        await client.frontend.stop(10)
        rest = [reply async for reply in replies]
    assert told == [health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING]
    assert rest == []


async def test_all_services_health_is_listed() -> None:
    async with running(methods()) as client:
        listed = await client.call(path="/grpc.health.v1.Health/List")
    assert WORKFLOW_SERVICE.encode() in listed


# --- start and stop ---------------------------------------------------------------------------------------------------


async def test_who_connects_before_the_start_waits_for_it() -> None:
    frontend = GrpcFrontend([], address="127.0.0.1:0")
    reader, writer = await asyncio.open_connection("127.0.0.1", await frontend.bind())
    await frontend.start(Dispatcher(server_with(), []))
    assert await reader.readexactly(9)
    writer.close()
    await frontend.stop(0)


async def test_connections_beyond_the_limit_are_closed() -> None:
    frontend = GrpcFrontend([], address="127.0.0.1:0", connections_max=1)
    port = await frontend.bind()
    await frontend.start(Dispatcher(server_with(), []))
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await reader.readexactly(9)
        second_reader, second_writer = await asyncio.open_connection("127.0.0.1", port)
        assert b"too many connections" in await second_reader.read()
        writer.close()
        second_writer.close()
    finally:
        await frontend.stop(0)


async def test_a_stop_gives_up_what_does_not_finish_in_time() -> None:
    entered, cancelled = asyncio.Event(), asyncio.Event()

    async def handler(server: Server, request: Message, call: Call) -> Reply:
        entered.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        raise AssertionError("not reached")

    async with running(handler) as client:
        call = client.call()
        await entered.wait()
        await client.frontend.stop(0.05)
        assert cancelled.is_set()
        error = await failure_of(call)
    assert error.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_port_that_is_taken_is_an_error() -> None:
    async with running(version_1) as client:
        second = GrpcFrontend([], address=f"127.0.0.1:{client.port}")
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{client.port}"):
            await second.bind()
        await second.stop(0)


async def test_a_stop_lets_calls_in_progress_finish() -> None:
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def handler(server: Server, request: Message, call: Call) -> Reply:
        entered.set()
        await go_on.wait()
        return b"done"

    async with running(handler) as client:
        call = client.call()
        await entered.wait()
        stopping = asyncio.create_task(client.frontend.stop(10))
        await asyncio.sleep(0)
        go_on.set()
        assert await call == b"done"
        await stopping


async def test_calls_beyond_the_limit_are_refused() -> None:
    entered = asyncio.Event()

    async def handler(server: Server, request: Message, call: Call) -> Reply:
        entered.set()
        await asyncio.Event().wait()
        return b""

    method = Method(WORKFLOW_SERVICE, "GetSystemInfo", GetSystemInfoRequest, handler, True)
    frontend = GrpcFrontend([method], address="127.0.0.1:0", concurrent_calls_max=1)
    port = await frontend.bind()
    await frontend.start(Dispatcher(server_with(), [method]))
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            client = Running(frontend, channel, port)
            parked = client.call()
            await entered.wait()
            error = await failure_of(client.call())
            parked.cancel()
    finally:
        await frontend.stop(0)
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
