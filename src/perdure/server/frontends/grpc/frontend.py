"""The gRPC server: takes calls off the wire, hands them to the handlers and puts replies and errors on it.

Requests arrive and replies leave as bytes, so that a reply put together from stored events is not parsed or serialised
again. It is HTTP/2 of our own (docs/decisions/0007): a call costs one task, and what this file adds to it must stay
next to nothing. It must know no rule of the engine.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Sequence
from typing import TYPE_CHECKING, Final

from google.protobuf.message import Message
from grpc_health.v1 import health_pb2

from perdure.server.engine.background import Background
from perdure.server.frontends.grpc import health, reflection
from perdure.server.frontends.grpc.exchange import STOPPING
from perdure.server.frontends.grpc.health import Health
from perdure.server.frontends.grpc.http2.limits import Http2Limits
from perdure.server.frontends.grpc.listener import listen
from perdure.server.frontends.grpc.protocol import GrpcProtocol
from perdure.server.frontends.grpc.reflection import Reflection
from perdure.server.frontends.grpc.service import Route, Service, StreamRoute, UnaryRoute
from perdure.server.frontends.links import AcceptLink, Doorman, LinkProtocol

if TYPE_CHECKING:
    from perdure.server.frontends.grpc.call import GrpcCall
    from perdure.server.handlers.dispatch import Dispatcher
    from perdure.server.handlers.registry import Method

DEFAULT_ADDRESS: Final = "127.0.0.1:7233"
CONCURRENT_CALLS_MAX: Final = 50_000
"""Calls in progress at once, parked polls included; more are refused as RESOURCE_EXHAUSTED."""
MESSAGE_SIZE: Final = 4 * 1024 * 1024
"""Most bytes of a request."""
CONNECTIONS_MAX: Final = 10_000
"""Connections at once; more are closed as soon as they are made."""
DOORMEN_MAX: Final = 1_000
"""Connections at once that have not said yet what they are; the eldest goes when one more comes."""

_CLOSE_SECONDS: Final = 1.0
"""How long connections may take to close once nothing is in progress on them."""


class GrpcFrontend:
    """Serves a list of methods over gRPC, with health and reflection beside them.

    Args:
        methods: What to serve; as a rule `registry.methods()`.
        address: Host and port; port 0 takes a free one.
        concurrent_calls_max: Calls in progress at once.
        connections_max: Connections at once.
        doormen_max: Connections at once that have not said yet what they are.
        message_size: Most bytes of a request.
        limits: The limits of each connection.
    """

    def __init__(
        self,
        methods: Sequence[Method],
        *,
        address: str = DEFAULT_ADDRESS,
        concurrent_calls_max: int = CONCURRENT_CALLS_MAX,
        connections_max: int = CONNECTIONS_MAX,
        doormen_max: int = DOORMEN_MAX,
        message_size: int = MESSAGE_SIZE,
        limits: Http2Limits | None = None,
    ) -> None:
        self._address = address
        self._connections_max = connections_max
        self._doormen_max = doormen_max
        self._methods = methods
        services = sorted({method.service for method in methods})
        self._health = Health(services)
        self._limits = limits or Http2Limits()
        self._service = Service(
            _standard_routes(self._health, services),
            calls_max=concurrent_calls_max,
            message_size_max=message_size,
            limits=self._limits,
        )
        self._accept_link: AcceptLink | None = None
        self._doormen: dict[Doorman, None] = {}
        """The eldest first."""
        self._links = Background()
        self._sockets: list[socket.socket] = []
        self._listeners: list[asyncio.Server] = []
        self._is_stopping = False
        self._connections: set[GrpcProtocol] = set()
        self._last_is_lost: asyncio.Future[None] | None = None

    async def bind(self) -> int:
        """Take the address and return the port. Who connects waits until `start`.

        Raises:
            OSError: The address cannot be bound.
        """
        self._sockets = await listen(self._address)
        port: int = self._sockets[0].getsockname()[1]
        return port

    async def start(self, dispatcher: Dispatcher, accept_link: AcceptLink | None = None) -> None:
        """Begin to serve at the address that was bound.

        Args:
            dispatcher: What answers calls.
            accept_link: What serves the streams of other nodes; None where there are none.
        """
        assert self._sockets, "bind comes first"
        for method in self._methods:
            self._service.routes[method.path] = _handled(dispatcher, method)
        self._accept_link = accept_link
        loop = asyncio.get_running_loop()
        sockets, self._sockets = self._sockets, []
        self._listeners = [await loop.create_server(self._connection, sock=each) for each in sockets]

    async def report(self, *, is_ready: bool) -> None:
        """Have the health service tell whether calls can be answered; those that come are answered all the same."""
        self._health.report(is_ready=is_ready)

    async def stop(self, grace_seconds: float) -> None:
        """Take no more calls, report NOT_SERVING, and let those in progress finish for that long."""
        self._is_stopping = True
        for bound in self._sockets:
            bound.close()
        for listener in self._listeners:
            listener.close()
        self._sockets, self._listeners = [], []
        self._health.end()
        for doorman in tuple(self._doormen):
            doorman.abort()
        for connection in tuple(self._connections):
            connection.go_away()
        await self._wait_until_closed(grace_seconds)
        for connection in tuple(self._connections):
            connection.give_up(STOPPING)
        await self._service.calls.wait_until_none()
        await self._wait_until_closed(_CLOSE_SECONDS)
        for connection in tuple(self._connections):
            connection.abort()
        await self._wait_until_closed(_CLOSE_SECONDS)
        await self._links.stop()

    def _connection(self) -> asyncio.Protocol:
        if self._accept_link is None or self._is_stopping:
            return self._grpc_connection()
        # However many clients there are: it may be another node.
        if len(self._doormen) >= self._doormen_max:
            eldest = next(iter(self._doormen))
            self._doorman_gone(eldest)
            eldest.abort()
        doorman = Doorman(self._grpc_connection, self._serve_link, self._limits.handshake_seconds, self._doorman_gone)
        self._doormen[doorman] = None
        return doorman

    def _doorman_gone(self, doorman: Doorman) -> None:
        self._doormen.pop(doorman, None)

    def _serve_link(self, link: LinkProtocol) -> None:
        assert self._accept_link is not None, "a doorman is there only where links are"
        self._links.start(_until_closed(self._accept_link, link), "stream of another node")

    def _grpc_connection(self) -> GrpcProtocol:
        unwelcome = ""
        if self._is_stopping:
            unwelcome = "the server stops"
        elif len(self._connections) >= self._connections_max:
            unwelcome = "too many connections"
        connection = GrpcProtocol(self._service, self._lost, unwelcome=unwelcome)
        self._connections.add(connection)
        return connection

    def _lost(self, connection: GrpcProtocol) -> None:
        self._connections.discard(connection)
        if self._last_is_lost is not None and not self._connections and not self._last_is_lost.done():
            self._last_is_lost.set_result(None)

    async def _wait_until_closed(self, seconds: float) -> None:
        if self._connections:
            self._last_is_lost = asyncio.get_running_loop().create_future()
            await asyncio.wait((self._last_is_lost,), timeout=seconds)


async def _until_closed(accept: AcceptLink, link: LinkProtocol) -> None:
    try:
        await accept(link)
    finally:
        link.close()


def _handled(dispatcher: Dispatcher, method: Method) -> UnaryRoute:
    """Return the route of a method."""

    def answer(data: bytes, call: GrpcCall) -> Awaitable[bytes]:
        return dispatcher.serve(method, data, call)

    return UnaryRoute(method.name, answer)


def _standard_routes(server_health: Health, services: Sequence[str]) -> dict[str, Route]:
    """Return what every gRPC tool asks for."""

    async def check(data: bytes, call: GrpcCall) -> Message:
        return server_health.check(health_pb2.HealthCheckRequest.FromString(data))

    async def list_all(data: bytes, call: GrpcCall) -> Message:
        return server_health.list()

    told = Reflection([*services, health.SERVICE, reflection.SERVICE])
    return {
        f"/{health.SERVICE}/Check": UnaryRoute("Check", check),
        f"/{health.SERVICE}/List": UnaryRoute("List", list_all),
        f"/{health.SERVICE}/Watch": StreamRoute(server_health.watch),
        f"/{reflection.SERVICE}/{reflection.METHOD}": StreamRoute(told.serve),
    }
