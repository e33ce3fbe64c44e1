"""The service `grpc.health.v1.Health`: whether calls can be answered, asked once or watched."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

from google.protobuf.message import Message
from grpc_health.v1 import health_pb2

from perdure.server.frontends.grpc.byte_streams import ByteStream
from perdure.server.frontends.grpc.codes import StatusCode
from perdure.server.frontends.grpc.status import CallFailed

SERVICE: Final = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
OVERALL: Final = ""
"""What the health of the whole server goes by."""

_SERVING: Final = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING: Final = health_pb2.HealthCheckResponse.NOT_SERVING
_UNKNOWN: Final = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


class Health:
    """Knows how each service is, and tells those who ask.

    Args:
        services: The services there are.
    """

    def __init__(self, services: Iterable[str]) -> None:
        self._statuses: dict[str, int] = dict.fromkeys((OVERALL, *services), _SERVING)
        self._is_over = False
        self._changed = asyncio.Event()

    def report(self, *, is_ready: bool) -> None:
        """Say from now on that all services can be used, or that none can; after `end` that stands."""
        if not self._is_over:
            self._statuses = dict.fromkeys(self._statuses, _SERVING if is_ready else _NOT_SERVING)
            self._tell()

    def end(self) -> None:
        """Say for the last time that no service can be used, and end the watches."""
        self.report(is_ready=False)
        self._is_over = True

    def check(self, request: health_pb2.HealthCheckRequest) -> health_pb2.HealthCheckResponse:
        """Answer Check.

        Raises:
            CallFailed: There is no such service.
        """
        status = self._statuses.get(request.service)
        if status is None:
            raise CallFailed(StatusCode.NOT_FOUND, f"there is no service {request.service}")
        return health_pb2.HealthCheckResponse(status=status)

    def list(self) -> Message:
        """Answer List."""
        statuses = {name: health_pb2.HealthCheckResponse(status=status) for name, status in self._statuses.items()}
        reply: Message = health_pb2.HealthListResponse(statuses=statuses)  # type: ignore[attr-defined]  # List is newer than the published types
        return reply

    async def watch(self, stream: ByteStream) -> None:
        """Serve Watch: tell the status now, and whenever it is another one."""
        data = await stream.read()
        if data is None:
            raise CallFailed(StatusCode.INVALID_ARGUMENT, "the request is missing")
        service = health_pb2.HealthCheckRequest.FromString(data).service
        told: int | None = None
        while True:
            changed, is_last = self._changed, self._is_over
            status = self._statuses.get(service, _UNKNOWN)
            if status != told:
                await stream.write(health_pb2.HealthCheckResponse(status=status).SerializeToString())
                told = status
            if is_last:
                return
            await changed.wait()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
