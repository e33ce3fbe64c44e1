"""What all connections of a front end share: which path is served by what, the calls in progress, the limits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec
from google.protobuf.message import Message

from perdure.server.frontends.grpc.byte_streams import StreamHandler
from perdure.server.frontends.grpc.http2.hpack import Header
from perdure.server.frontends.grpc.http2.limits import Http2Limits
from perdure.server.frontends.grpc.requests import CallHead, read_head

if TYPE_CHECKING:
    from perdure.server.frontends.grpc.call import GrpcCall
    from perdure.server.frontends.grpc.exchange import Exchange


class UnaryRoute(msgspec.Struct, frozen=True):
    """A method that takes one message and returns one."""

    name: str
    answer: Callable[[bytes, GrpcCall], Awaitable[Message | bytes]]


class StreamRoute(msgspec.Struct, frozen=True):
    """A method that takes and returns any number of messages."""

    handler: StreamHandler


Route: TypeAlias = UnaryRoute | StreamRoute


class CallsInProgress:
    """The calls whose handler runs, also while it cleans up after its caller has gone.

    Args:
        most: How many there may be.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._calls: set[Exchange] = set()
        self._waiter: asyncio.Future[None] | None = None

    def __len__(self) -> int:
        return len(self._calls)

    @property
    def is_full(self) -> bool:
        """Whether no more may begin."""
        return len(self._calls) >= self._most

    def add(self, call: Exchange) -> None:
        """Note that a handler begins."""
        self._calls.add(call)

    def discard(self, call: Exchange) -> None:
        """Note that it has ended, or will never begin."""
        self._calls.discard(call)
        if self._waiter is not None and not self._calls and not self._waiter.done():
            self._waiter.set_result(None)

    async def wait_until_none(self) -> None:
        """Wait until all have ended. For one waiter at a time."""
        if self._calls:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter


class Service:
    """What connections serve.

    Args:
        routes: By path; those of the methods come with the start of the front end.
        calls_max: Calls in progress at once, of all connections.
        message_size_max: Largest message of a unary call.
        limits: The limits of each connection.
    """

    def __init__(self, routes: dict[str, Route], *, calls_max: int, message_size_max: int, limits: Http2Limits) -> None:
        self.routes: Final = routes
        self.calls: Final = CallsInProgress(calls_max)
        self.message_size_max: Final = message_size_max
        self.limits: Final = limits
        self.interpret: Final[Callable[[Sequence[Header], int], CallHead]] = partial(
            read_head, list_bytes_max=limits.header_list_bytes
        )
