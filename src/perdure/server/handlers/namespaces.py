"""Register, describe, list, update and deprecate namespaces."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from google.protobuf.duration_pb2 import Duration
from temporalio.api.enums.v1 import ArchivalState, NamespaceState
from temporalio.api.namespace.v1 import NamespaceConfig, NamespaceInfo, UpdateNamespaceInfo
from temporalio.api.replication.v1 import ClusterReplicationConfig, NamespaceReplicationConfig
from temporalio.api.workflowservice.v1 import (
    DeprecateNamespaceRequest,
    DeprecateNamespaceResponse,
    DescribeNamespaceRequest,
    DescribeNamespaceResponse,
    ListNamespacesRequest,
    ListNamespacesResponse,
    RegisterNamespaceRequest,
    RegisterNamespaceResponse,
    UpdateNamespaceRequest,
    UpdateNamespaceResponse,
)

from perdure.server.core.durations import cap_duration, duration_fault, nanos_of
from perdure.server.core.errors import InvalidArgument, Unimplemented
from perdure.server.core.records import NamespaceRecord
from perdure.server.handlers.call import Call
from perdure.server.handlers.fields import check_text
from perdure.server.handlers.server import Server
from perdure.server.handlers.system import CLUSTER_NAME, namespace_capabilities

_RETENTION_MIN_SECONDS: Final = 3600
_PAGE_SIZE: Final = 100
_PAGE_SIZE_MAX: Final = 1000
_SECOND: Final = 1_000_000_000

_UNSPECIFIED: Final = NamespaceState.NAMESPACE_STATE_UNSPECIFIED
_REGISTERED: Final = NamespaceState.NAMESPACE_STATE_REGISTERED
_DEPRECATED: Final = NamespaceState.NAMESPACE_STATE_DEPRECATED
_DELETED: Final = NamespaceState.NAMESPACE_STATE_DELETED
_STATE_CHANGES: Final = {(_REGISTERED, _DEPRECATED), (_REGISTERED, _DELETED), (_DEPRECATED, _DELETED)}


async def register_namespace(
    server: Server, request: RegisterNamespaceRequest, call: Call
) -> RegisterNamespaceResponse:
    """Make a namespace, usable as soon as this returns."""
    _check_name(server, request.namespace)
    if request.is_global_namespace:
        raise InvalidArgument("Cannot register global namespace when not enabled")
    _check_clusters(request.active_cluster_name, request.clusters)
    _check_archival(request.history_archival_state, request.visibility_archival_state)
    retention_seconds = _retention_seconds(request.workflow_execution_retention_period)
    _check_texts(request.description, request.owner_email, *request.data.keys(), *request.data.values())
    await server.namespaces.register(
        request.namespace,
        retention_seconds=retention_seconds,
        description=request.description,
        owner_email=request.owner_email,
        data=dict(request.data),
    )
    return RegisterNamespaceResponse()


async def describe_namespace(
    server: Server, request: DescribeNamespaceRequest, call: Call
) -> DescribeNamespaceResponse:
    """Return a namespace's configuration and what the server can do in it, by name or by id."""
    if request.id and request.namespace:
        raise InvalidArgument("GetNamespace operation failed.  Both ID and Name specified in request.")
    if request.id:
        return _described(server, server.namespaces.by_id(request.id))
    _check_name(server, request.namespace)
    return _described(server, server.namespaces.by_name(request.namespace))


async def list_namespaces(server: Server, request: ListNamespacesRequest, call: Call) -> ListNamespacesResponse:
    """Return namespaces in name order, a page at a time; the page token is the last name of the page before."""
    size = min(request.page_size, _PAGE_SIZE_MAX) if request.page_size > 0 else _PAGE_SIZE
    after = request.next_page_token.decode(errors="replace")
    deleted_too = request.namespace_filter.include_deleted
    records = [
        record
        for record in server.namespaces.all()
        if record.name > after and (deleted_too or record.state != _DELETED)
    ]
    page = records[:size]
    return ListNamespacesResponse(
        namespaces=[_described(server, record) for record in page],
        next_page_token=page[-1].name.encode() if len(records) > size else b"",
    )


async def update_namespace(server: Server, request: UpdateNamespaceRequest, call: Call) -> UpdateNamespaceResponse:
    """Change a namespace's configuration; what the request leaves unset stays."""
    _check_name(server, request.namespace)
    if request.promote_namespace:
        raise InvalidArgument(
            "global namespace is not enabled on this cluster, cannot update global namespace or promote local "
            f"namespace: {request.namespace}"
        )
    _check_clusters(request.replication_config.active_cluster_name, request.replication_config.clusters)
    _check_archival(request.config.history_archival_state, request.config.visibility_archival_state)
    if request.config.bad_binaries.binaries or request.delete_bad_binary:
        raise Unimplemented("Bad binaries are not implemented by this server.")

    def edit(record: NamespaceRecord) -> None:
        if request.HasField("update_info"):
            _edit_info(record, request.update_info)
        if request.HasField("config") and request.config.HasField("workflow_execution_retention_ttl"):
            record.retention_seconds = _retention_seconds(request.config.workflow_execution_retention_ttl)

    server.namespaces.resolve(request.namespace)
    record = await server.namespaces.change(request.namespace, edit)
    described = _described(server, record)
    return UpdateNamespaceResponse(
        namespace_info=described.namespace_info,
        config=described.config,
        replication_config=described.replication_config,
    )


async def deprecate_namespace(
    server: Server, request: DeprecateNamespaceRequest, call: Call
) -> DeprecateNamespaceResponse:
    """Let no more workflows start in a namespace; those that run go on."""
    _check_name(server, request.namespace)

    def edit(record: NamespaceRecord) -> None:
        record.state = _DEPRECATED

    server.namespaces.resolve(request.namespace)
    await server.namespaces.change(request.namespace, edit)
    return DeprecateNamespaceResponse()


def _check_name(server: Server, name: str) -> None:
    if not name:
        raise InvalidArgument("Namespace not set on request.")
    check_text("Namespace", name, server.limits)


def _check_clusters(active_cluster: str, clusters: Iterable[ClusterReplicationConfig]) -> None:
    names = {cluster.cluster_name for cluster in clusters} | ({active_cluster} - {""})
    if names - {CLUSTER_NAME}:
        raise Unimplemented(f"Replication is not implemented by this server: its only cluster is {CLUSTER_NAME!r}.")


def _check_archival(*states: ArchivalState.ValueType) -> None:
    if ArchivalState.ARCHIVAL_STATE_ENABLED in states:
        raise Unimplemented("Archival is not implemented by this server.")


def _check_texts(*texts: str) -> None:
    if any("\0" in text for text in texts):
        raise InvalidArgument("The namespace's description contains a NUL character.")


def _retention_seconds(retention: Duration) -> int:
    if duration_fault(retention):
        raise InvalidArgument("A valid retention period is not set on request.")
    cap_duration(retention)
    seconds = nanos_of(retention) // _SECOND
    if seconds < _RETENTION_MIN_SECONDS:
        raise InvalidArgument("A valid retention period is not set on request.")
    return seconds


def _edit_info(record: NamespaceRecord, info: UpdateNamespaceInfo) -> None:
    _check_texts(info.description, info.owner_email, *info.data.keys(), *info.data.values())
    record.description = info.description or record.description
    record.owner_email = info.owner_email or record.owner_email
    record.data.update(info.data)
    if info.state not in (_UNSPECIFIED, record.state):
        if (record.state, info.state) not in _STATE_CHANGES:
            raise InvalidArgument("Invalid namespace state update.")
        record.state = info.state


def _described(server: Server, record: NamespaceRecord) -> DescribeNamespaceResponse:
    info = NamespaceInfo(
        name=record.name,
        state=NamespaceState.ValueType(record.state),
        description=record.description,
        owner_email=record.owner_email,
        data=record.data,
        id=record.namespace_id,
        capabilities=namespace_capabilities(),
        limits=NamespaceInfo.Limits(
            blob_size_limit_error=server.limits.blob_size_error, memo_size_limit_error=server.limits.memo_size_error
        ),
    )
    config = NamespaceConfig(
        history_archival_state=ArchivalState.ARCHIVAL_STATE_DISABLED,
        visibility_archival_state=ArchivalState.ARCHIVAL_STATE_DISABLED,
        custom_search_attribute_aliases={name: name for name in record.search_attributes},
    )
    config.workflow_execution_retention_ttl.seconds = record.retention_seconds
    replication = NamespaceReplicationConfig(
        active_cluster_name=CLUSTER_NAME, clusters=[ClusterReplicationConfig(cluster_name=CLUSTER_NAME)]
    )
    return DescribeNamespaceResponse(namespace_info=info, config=config, replication_config=replication)
