"""The service `grpc.reflection.v1alpha.ServerReflection`: which services there are, and their types, for tools.

The package that answers is loaded with the first question: it brings all of gRPC along, which takes a tenth of a start.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, cast

from perdure.server.frontends.grpc.byte_streams import ByteStream

if TYPE_CHECKING:
    import grpc

SERVICE: Final = "grpc.reflection.v1alpha.ServerReflection"
METHOD: Final = "ServerReflectionInfo"

_NO_CONTEXT: Final = cast("grpc.ServicerContext", None)
"""The answers depend on nothing but the question."""


class Reflection:
    """Answers questions about services.

    Args:
        services: Their full names.
    """

    def __init__(self, services: Iterable[str]) -> None:
        self._services = list(services)

    async def serve(self, stream: ByteStream) -> None:
        """Answer one question after the other."""
        from grpc_reflection.v1alpha import reflection, reflection_pb2

        servicer = reflection.ReflectionServicer(self._services)
        while (data := await stream.read()) is not None:
            request = reflection_pb2.ServerReflectionRequest.FromString(data)
            for reply in servicer.ServerReflectionInfo(iter((request,)), _NO_CONTEXT):
                await stream.write(reply.SerializeToString())
