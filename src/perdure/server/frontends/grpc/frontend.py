"""The gRPC server: takes calls off the wire, hands them to the handlers and puts replies and errors on it.

Requests arrive and replies leave as bytes, so that a reply put together from stored events is not parsed or serialised
again. There are no interceptors and nothing is built per call but the `GrpcCall`: grpc itself takes 0.2 to 0.3 ms of
CPU for a call, and this file must add next to nothing. It must know no rule of the engine.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, cast

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from perdure.server.core.errors import InvalidArgument, ServerError, Unavailable
from perdure.server.frontends.grpc.call import GrpcCall
from perdure.server.frontends.grpc.status import DETAILS_KEY, CallStatus, status_of
from perdure.server.frontends.grpc.streams import ServedStream
from perdure.server.store.interface import StoreUnavailable

if TYPE_CHECKING:
    from perdure.server.frontends.grpc.streams import StreamHandler
    from perdure.server.handlers.dispatch import Dispatcher
    from perdure.server.handlers.registry import Method

logger = logging.getLogger(__name__)

DEFAULT_ADDRESS: Final = "127.0.0.1:7233"
CONCURRENT_CALLS_MAX: Final = 50_000
"""Calls in progress at once, parked polls included (24 KB each); more are refused as RESOURCE_EXHAUSTED."""

MESSAGE_SIZE: Final = 4 * 1024 * 1024
"""Most bytes of a request."""

_KEEPALIVE_MS: Final = 60_000
_KEEPALIVE_TIMEOUT_MS: Final = 10_000
_PING_INTERVAL_MIN_MS: Final = 10_000


class GrpcFrontend:
    """Serves a list of methods over gRPC, with health and reflection beside them.

    Args:
        methods: What to serve; as a rule `registry.methods()`.
        address: Host and port; port 0 takes a free one.
        concurrent_calls_max: Calls in progress at once.
        message_size: Most bytes of a request.
    """

    def __init__(
        self,
        methods: Sequence[Method],
        *,
        address: str = DEFAULT_ADDRESS,
        concurrent_calls_max: int = CONCURRENT_CALLS_MAX,
        message_size: int = MESSAGE_SIZE,
    ) -> None:
        self._methods = methods
        self._services = sorted({method.service for method in methods})
        self._address = address
        self._concurrent_calls_max = concurrent_calls_max
        self._message_size = message_size
        self._health = health.aio.HealthServicer()
        self._grpc: grpc.aio.Server | None = None

    async def bind(self) -> int:
        """Take the port and return it; calls are answered once `start` was called.

        Raises:
            OSError: The address cannot be bound.
        """
        self._grpc = grpc.aio.server(options=self._options(), maximum_concurrent_rpcs=self._concurrent_calls_max)
        try:
            return self._grpc.add_insecure_port(self._address)
        except RuntimeError as error:
            raise OSError(f"cannot listen on {self._address}: {error}") from error

    async def start(self, dispatcher: Dispatcher, streams: Mapping[str, StreamHandler] | None = None) -> None:
        """Begin to serve, on the port that was bound.

        Args:
            dispatcher: What answers calls.
            streams: Who serves raw streams, by path.
        """
        assert self._grpc is not None, "bind first"
        self._grpc.add_generic_rpc_handlers((_Methods(dispatcher, self._methods), _Streams(streams or {})))
        await self._add_health_and_reflection(self._grpc)
        await self._grpc.start()

    async def report(self, *, is_ready: bool) -> None:
        """Have the health service tell whether calls can be answered; those that come are answered all the same."""
        status = health_pb2.HealthCheckResponse.SERVING if is_ready else health_pb2.HealthCheckResponse.NOT_SERVING
        for service in (health.OVERALL_HEALTH, *self._services):
            await self._health.set(service, status)

    async def stop(self, grace_seconds: float) -> None:
        """Take no more calls, report NOT_SERVING, and let those in progress finish for that long."""
        if self._grpc is None:
            return
        await self._health.enter_graceful_shutdown()
        await self._grpc.stop(grace_seconds)
        self._grpc = None

    async def _add_health_and_reflection(self, server: grpc.aio.Server) -> None:
        await self.report(is_ready=True)
        generic = cast("grpc.aio.Server", _GenericOnly(server))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, generic)
        servicer = reflection.aio.ReflectionServicer([*self._services, health.SERVICE_NAME, reflection.SERVICE_NAME])
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, generic)  # type: ignore[no-untyped-call]  # published without type hints

    def _options(self) -> list[tuple[str, int]]:
        return [
            ("grpc.max_receive_message_length", self._message_size),
            ("grpc.max_send_message_length", -1),
            # Without this a second server could take the same port and half of the calls.
            ("grpc.so_reuseport", 0),
            # A poller that is gone without a word is noticed within this.
            ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
            ("grpc.keepalive_timeout_ms", _KEEPALIVE_TIMEOUT_MS),
            # SDKs ping every 30 s, also while nothing is in progress; the default would close their connections.
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_ping_interval_without_data_ms", _PING_INTERVAL_MIN_MS),
            ("grpc.http2.min_recv_ping_interval_without_data_ms", _PING_INTERVAL_MIN_MS),
            ("grpc.http2.max_ping_strikes", 0),
        ]


class _GenericOnly:
    """A server as seen by those who add services to it, that does not register their methods one by one.

    grpc.aio waits for the calls of each registered method by itself, and with every call, whatever it calls, begins all
    of these waits anew. What is found by its path, as by `_Methods`, costs nothing while nobody calls it.
    """

    def __init__(self, server: grpc.aio.Server) -> None:
        self._server = server

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        self._server.add_generic_rpc_handlers(handlers)

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, object]) -> None:
        """Leave it at the generic handlers, which hold the same methods."""


class _Methods(grpc.GenericRpcHandler):
    """Finds the handler of a call by its path."""

    def __init__(self, dispatcher: Dispatcher, methods: Sequence[Method]) -> None:
        self._by_path: Mapping[str, grpc.RpcMethodHandler[bytes, bytes]] = {
            method.path: grpc.unary_unary_rpc_method_handler(_behaviour(dispatcher, method)) for method in methods
        }

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        """Return the handler of a path, None where nothing is served there."""
        return self._by_path.get(handler_call_details.method)


class _Streams(grpc.GenericRpcHandler):
    """Finds the handler of a raw stream by its path."""

    def __init__(self, streams: Mapping[str, StreamHandler]) -> None:
        self._by_path: Mapping[str, grpc.RpcMethodHandler[bytes, bytes]] = {
            path: grpc.stream_stream_rpc_method_handler(_stream_behaviour(handler)) for path, handler in streams.items()
        }

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        """Return the handler of a path, None where nothing is served there."""
        return self._by_path.get(handler_call_details.method)


_Behaviour = Callable[[bytes, "grpc.aio.ServicerContext[bytes, bytes]"], Awaitable[bytes]]


def _stream_behaviour(handler: StreamHandler) -> Callable[..., Awaitable[None]]:
    async def serve(requests: object, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        await handler(ServedStream(context))

    return serve


def _behaviour(dispatcher: Dispatcher, method: Method) -> _Behaviour:
    async def serve(data: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        try:
            return await dispatcher.serve(method, data, GrpcCall(context))
        except Exception as error:  # noqa: BLE001 - this is the border: whatever failed becomes a status
            status = _status(error, method)
        await context.abort(status.code, status.message, _trailers(status))
        raise AssertionError("abort returned")

    return serve


def _status(error: Exception, method: Method) -> CallStatus:
    match error:
        case ServerError():
            return status_of(error)
        case DecodeError():
            return status_of(InvalidArgument(f"the request of {method.name} cannot be read: {error}"))
        case StoreUnavailable():
            return status_of(Unavailable("the store is not available, try again"))
        case _:
            logger.error("%s failed", method.name, exc_info=error)
            return CallStatus(grpc.StatusCode.INTERNAL, f"internal error in {method.name}, see the server's log", b"")


def _trailers(status: CallStatus) -> tuple[tuple[str, bytes], ...]:
    return ((DETAILS_KEY, status.details),) if status.details else ()
