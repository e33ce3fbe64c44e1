"""The service of our own: `perdure.cluster.v1.ClusterService`, which tells operators of nodes, leases and shards.

Temporal tells such things in a service that its public API does not hold. Ours needs no generated code: its messages
are well-known ones, so any gRPC client can call it by reflection.
"""

from __future__ import annotations

from typing import Final

from google.protobuf import descriptor_pool, empty_pb2, struct_pb2
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.struct_pb2 import Struct

from perdure.server.handlers.call import Call
from perdure.server.handlers.server import Server

_PACKAGE: Final = "perdure.cluster.v1"


def _described() -> ServiceDescriptor:
    file = FileDescriptorProto(
        name="perdure/cluster/v1/service.proto",
        package=_PACKAGE,
        syntax="proto3",
        dependency=[empty_pb2.DESCRIPTOR.name, struct_pb2.DESCRIPTOR.name],
    )
    service = file.service.add(name="ClusterService")
    service.method.add(
        name="DescribeCluster", input_type=".google.protobuf.Empty", output_type=".google.protobuf.Struct"
    )
    pool = descriptor_pool.Default()
    pool.Add(file)
    return pool.FindServiceByName(f"{_PACKAGE}.ClusterService")


SERVICE: Final = _described()


async def describe_cluster(server: Server, request: empty_pb2.Empty, call: Call) -> Struct:
    """Return the members of the cluster as the asked node knows them: address, release, lease, shards, reachability."""
    status = server.engine.cluster_status()
    response = Struct()
    response["cluster_id"] = server.cluster_id
    response["node"] = status.node
    response["version"] = status.version
    nodes = response.get_or_create_list("nodes")
    for node in status.nodes:
        told = nodes.add_struct()
        told["node"] = node.node
        told["release"] = node.release
        told["started_at"] = node.started_at / 1e9
        told["lease_seconds_left"] = node.lease_seconds_left
        told["is_alive"] = node.is_alive
        told["is_leaving"] = node.is_leaving
        told["is_linked"] = node.is_linked
        told["shards"] = node.shards
    return response
