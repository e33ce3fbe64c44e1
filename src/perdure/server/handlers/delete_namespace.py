"""OperatorService: deleting a namespace with everything in it."""

from __future__ import annotations

from typing import Final

from temporalio.api.operatorservice.v1 import DeleteNamespaceRequest, DeleteNamespaceResponse

from perdure.server.core.durations import nanos_of
from perdure.server.core.errors import FailedPrecondition, InvalidArgument
from perdure.server.core.records import NamespaceRecord
from perdure.server.handlers.call import Call
from perdure.server.handlers.fields import check_text
from perdure.server.handlers.server import Server

_SYSTEM_NAME: Final = "temporal-system"
_SYSTEM_ID: Final = "32049b68-7872-4094-8e63-d0dd59896a83"
"""The namespace of Temporal's own workflows. There is none here, and tools may name it all the same."""
_SECOND: Final = 1_000_000_000


async def delete_namespace(server: Server, request: DeleteNamespaceRequest, call: Call) -> DeleteNamespaceResponse:
    """Close a namespace for good and free its name. Its runs are deleted in the background, then the namespace."""
    record = _named(server, request)
    delay_seconds = max(0, nanos_of(request.namespace_delete_delay)) // _SECOND
    deleted = await server.namespaces.begin_deletion(record.name, delay_seconds)
    return DeleteNamespaceResponse(deleted_namespace=deleted.name)


def _named(server: Server, request: DeleteNamespaceRequest) -> NamespaceRecord:
    """Return the namespace that is to go, in whatever state: asked for again, it goes on going."""
    name, namespace_id = request.namespace, request.namespace_id
    if not name and not namespace_id:
        raise InvalidArgument("Namespace not set on request.")
    if name and namespace_id:
        raise InvalidArgument("Only one of namespace name or Id should be set on request.")
    if name == _SYSTEM_NAME or namespace_id == _SYSTEM_ID:
        raise FailedPrecondition("unable to delete system namespace")
    if namespace_id:
        return server.namespaces.by_id(namespace_id)
    check_text("Namespace", name, server.limits)
    return server.namespaces.by_name(name)
