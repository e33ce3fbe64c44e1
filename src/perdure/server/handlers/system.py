"""GetSystemInfo and GetClusterInfo: what the server says it is and can do.

SDKs send different requests depending on these flags, so a flag is true only where the server does what it promises.
"""

from __future__ import annotations

from typing import Final

from temporalio.api.namespace.v1 import NamespaceInfo
from temporalio.api.operatorservice.v1 import ClusterMetadata, ListClustersRequest, ListClustersResponse
from temporalio.api.workflowservice.v1 import (
    GetClusterInfoRequest,
    GetClusterInfoResponse,
    GetSystemInfoRequest,
    GetSystemInfoResponse,
)

from perdure.server.core.shards import SHARDS
from perdure.server.handlers.call import Call
from perdure.server.handlers.server import Server

COMPATIBLE_VERSION: Final = "1.31.2"
"""The release of Temporal's server whose protocol this server speaks. Clients compare it with what they need."""
CLUSTER_NAME: Final = "active"

_SHARD_COUNT: Final = SHARDS
_FAILOVER_VERSION: Final = 1
_SUPPORTED_CLIENTS: Final = {
    "temporal-cli": "<2.0.0",
    "temporal-go": "<2.0.0",
    "temporal-java": "<2.0.0",
    "temporal-php": "<2.0.0",
    "temporal-server": "<2.0.0",
    "temporal-typescript": "<2.0.0",
    "temporal-ui": "<3.0.0",
}


async def get_system_info(server: Server, request: GetSystemInfoRequest, call: Call) -> GetSystemInfoResponse:
    """Return the version and the capabilities. Names no namespace, so it answers whatever the caller's is."""
    return GetSystemInfoResponse(
        server_version=COMPATIBLE_VERSION,
        capabilities=GetSystemInfoResponse.Capabilities(
            signal_and_query_header=True,
            internal_error_differentiation=True,
            activity_failure_include_heartbeat=True,
            encoded_failure_attributes=True,
            build_id_based_versioning=True,
            upsert_memo=True,
            eager_workflow_start=True,
            sdk_metadata=True,
            count_group_by_execution_status=True,
        ),
    )


async def get_cluster_info(server: Server, request: GetClusterInfoRequest, call: Call) -> GetClusterInfoResponse:
    """Return which cluster this is and on what it stores."""
    return GetClusterInfoResponse(
        supported_clients=_SUPPORTED_CLIENTS,
        server_version=COMPATIBLE_VERSION,
        cluster_id=server.cluster_id,
        cluster_name=CLUSTER_NAME,
        history_shard_count=_SHARD_COUNT,
        persistence_store=server.store_name,
        visibility_store=server.store_name,
        initial_failover_version=_FAILOVER_VERSION,
        failover_version_increment=10,
    )


async def list_clusters(server: Server, request: ListClustersRequest, call: Call) -> ListClustersResponse:
    """Return the one cluster there is; its address is that of the node that was asked. Nodes: `DescribeCluster`."""
    metadata = ClusterMetadata(
        cluster_name=CLUSTER_NAME,
        cluster_id=server.cluster_id,
        address=server.engine.cluster_status().node,
        initial_failover_version=_FAILOVER_VERSION,
        history_shard_count=_SHARD_COUNT,
        is_connection_enabled=True,
    )
    return ListClustersResponse(clusters=[metadata])


def namespace_capabilities() -> NamespaceInfo.Capabilities:
    """Return what the server can do in every namespace."""
    return NamespaceInfo.Capabilities(eager_workflow_start=True, worker_poll_complete_on_shutdown=True)
