"""Calls that outlive the server: repeated, with the same request, until a server answers."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from types import TracebackType
from typing import Self, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message

_RECONNECT_AT_ONCE = (
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
)
_REFUSALS = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNIMPLEMENTED,
}
"""What no repetition changes. Everything else is what a client sees of a server that is killed, or of its absence."""

_SERVICE = "/temporal.api.workflowservice.v1.WorkflowService"
_ATTEMPT_SECONDS = 5.0
_PAUSE_SECONDS = 0.03
_PATIENCE_SECONDS = 30.0

ReplyT = TypeVar("ReplyT", bound=Message)


class Refused(Exception):
    """The server said no.

    Args:
        error: What it said.
        first_attempt: Whether no earlier attempt can have been carried out without an answer.
    """

    def __init__(self, error: grpc.aio.AioRpcError, *, first_attempt: bool) -> None:
        super().__init__(f"{error.code().name}: {error.details()}")
        self.code = error.code()
        self.first_attempt = first_attempt


class NoAnswer(Exception):
    """One attempt ended without an answer: the server was killed, or is not there, or the poll's time ran out."""


class NoServer(Exception):
    """No server answered for far longer than a restart takes."""


class Calls:
    """The connection of all clients and workers of the load.

    Args:
        address: Host and port of the server.
    """

    def __init__(self, address: str) -> None:
        self._channel = grpc.aio.insecure_channel(address, options=_RECONNECT_AT_ONCE)
        self.unanswered: Counter[str] = Counter()
        """How many attempts ended without an answer, by status code."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._channel.close()

    async def once(
        self, request: Message, reply: type[ReplyT], *, timeout_seconds: float, first_attempt: bool = True
    ) -> ReplyT:
        """Call the RPC that the request is named for, once. Raises Refused or NoAnswer."""
        name = type(request).__name__.removesuffix("Request")
        method = self._channel.unary_unary(
            f"{_SERVICE}/{name}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=reply.FromString,
        )
        try:
            return await method(request, timeout=timeout_seconds)
        except grpc.aio.AioRpcError as error:
            if error.code() in _REFUSALS:
                raise Refused(error, first_attempt=first_attempt) from error
            self.unanswered[error.code().name] += 1
            raise NoAnswer(f"{name}: {error.code().name}: {error.details()}") from error

    async def until_answered(self, request: Message, reply: type[ReplyT]) -> ReplyT:
        """Call until a server answers. Raises Refused, or NoServer after half a minute."""
        first_attempt = True
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                return await self.once(request, reply, timeout_seconds=_ATTEMPT_SECONDS, first_attempt=first_attempt)
            except NoAnswer as last:
                if time.monotonic() > deadline:
                    raise NoServer(str(last)) from last
                first_attempt = False
                await asyncio.sleep(_PAUSE_SECONDS)
