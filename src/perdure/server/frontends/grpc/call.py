"""A gRPC call as handlers see it. Looks into the call only when asked, because most handlers ask nothing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    import grpc.aio


class GrpcCall:
    """One unary call."""

    __slots__ = ("_context",)

    def __init__(self, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        self._context = context

    @property
    def deadline(self) -> float | None:
        """Until when the caller waits, on the event loop's clock, in seconds; None where it set no deadline."""
        # The published types leave out that there may be no deadline, and no metadata.
        remaining = cast("float | None", self._context.time_remaining())
        return None if remaining is None else asyncio.get_running_loop().time() + remaining

    @property
    def client_name(self) -> str:
        """The caller's `client-name`; empty where it names none."""
        return self._metadata("client-name")

    @property
    def client_version(self) -> str:
        """The caller's `client-version`; empty where it names none."""
        return self._metadata("client-version")

    def _metadata(self, wanted: str) -> str:
        for key, value in self._context.invocation_metadata() or ():
            if key == wanted:
                return value.decode(errors="replace") if isinstance(value, bytes) else value
        return ""
