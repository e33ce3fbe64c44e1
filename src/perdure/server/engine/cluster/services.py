"""What a node does for the others of its cluster: one small service for each thing that only it can do.

Each takes bytes and gives bytes, and is registered by whoever does the work. This module must know none of them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from perdure.server.core.errors import DeadlineExceeded, Unimplemented
from perdure.server.engine.client_software import ClientSoftware
from perdure.server.engine.cluster.frames import Call, Cast

_logger = logging.getLogger(__name__)


class Asked(msgspec.Struct, frozen=True):
    """A call of another node."""

    peer: str
    body: bytes
    deadline: float | None
    """Until when its caller waits, as `loop.time()`."""
    client: ClientSoftware


Service = Callable[[Asked], Awaitable[bytes]]
Hear = Callable[[str, str, bytes], None]
"""Takes in news: who says so, the topic, the body."""

RPC: Final = "rpc"
VISIT: Final = "visit"
DELIVER: Final = "deliver"
TAKE_BACK: Final = "take back"
DESCRIBE_QUEUE: Final = "describe queue"
SHUT_DOWN_WORKER: Final = "shut down worker"
READ_NAMESPACES: Final = "read namespaces"


class NodeServices:
    """The services of one node, by name."""

    def __init__(self) -> None:
        self._services: dict[str, Service] = {}
        self._listeners: dict[str, Hear] = {}

    def offer(self, name: str, service: Service) -> None:
        """Answer calls of that name with this service."""
        self._services[name] = service

    def listen(self, topics: tuple[str, ...], hear: Hear) -> None:
        """Have these news heard."""
        for topic in topics:
            self._listeners[topic] = hear

    async def answer(self, peer: str, call: Call) -> bytes:
        """See `Services.answer` of `link.py`. A call whose time is up is ended here."""
        service = self._services.get(call.service)
        if service is None:
            raise Unimplemented(f"this node has no service {call.service!r}: it may run an older release")
        deadline = None if call.seconds is None else asyncio.get_running_loop().time() + call.seconds
        client = ClientSoftware(call.client_name, call.client_version, call.client_features)
        asked = Asked(peer, call.body, deadline, client)
        if deadline is None:
            return await service(asked)
        try:
            async with asyncio.timeout_at(deadline):
                return await service(asked)
        except TimeoutError as error:
            raise DeadlineExceeded("the call took longer than its caller waits") from error

    def news(self, peer: str, cast: Cast) -> None:
        """See `Services.news` of `link.py`. News of a newer release that nobody here understands are passed over."""
        hear = self._listeners.get(cast.topic)
        if hear is not None:
            hear(peer, cast.topic, cast.body)
