"""Raw streams of bytes over gRPC: the transport of the links between nodes, both ends of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, TypeAlias, cast

import grpc
import grpc.aio

from perdure.server.engine.cluster.link import ByteStream

LINK_PATH: Final = "/perdure.cluster.v1.Links/Connect"
"""Where a node takes in the streams of others."""

StreamHandler: TypeAlias = Callable[[ByteStream], Awaitable[None]]

_KEEPALIVE_MS: Final = 10_000
_KEEPALIVE_TIMEOUT_MS: Final = 5_000


class ServedStream:
    """A stream that was opened by the other side."""

    def __init__(self, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        self._context = context

    async def read(self) -> bytes | None:
        """See `ByteStream.read`."""
        # The published types leave out what stands for the end.
        data = cast("bytes | None", await self._context.read())
        return data if data else None

    async def write(self, data: bytes) -> None:
        """See `ByteStream.write`."""
        await self._context.write(data)


class _OpenedStream:
    """A stream that this side has opened."""

    def __init__(self, call: grpc.aio.StreamStreamCall[bytes, bytes]) -> None:
        self._call = call

    async def read(self) -> bytes | None:
        try:
            data = await self._call.read()
        except grpc.aio.AioRpcError as error:
            raise OSError(error.details()) from error
        return data if isinstance(data, bytes) else None

    async def write(self, data: bytes) -> None:
        try:
            await self._call.write(data)
        except grpc.aio.AioRpcError as error:
            raise OSError(error.details()) from error


class GrpcDialer:
    """Opens streams to other nodes."""

    @asynccontextmanager
    async def dial(self, address: str) -> AsyncIterator[ByteStream]:
        """See `Dialer.dial`."""
        options = [
            ("grpc.max_receive_message_length", -1),
            ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
            ("grpc.keepalive_timeout_ms", _KEEPALIVE_TIMEOUT_MS),
            ("grpc.enable_http_proxy", 0),
            # Each dialling is an attempt of its own: nothing may wait for the back-off of an earlier one.
            ("grpc.use_local_subchannel_pool", 1),
        ]
        async with grpc.aio.insecure_channel(address, options=options) as channel:
            call: grpc.aio.StreamStreamCall[bytes, bytes] = channel.stream_stream(LINK_PATH)()
            try:
                yield _OpenedStream(call)
            finally:
                call.cancel()
