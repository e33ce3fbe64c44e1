"""What the server says it is."""

from __future__ import annotations

from google.protobuf.empty_pb2 import Empty
from google.protobuf.json_format import MessageToDict
from temporalio.api.operatorservice.v1 import ListClustersRequest
from temporalio.api.workflowservice.v1 import GetClusterInfoRequest, GetSystemInfoRequest

from perdure.server.engine.cluster.status import ClusterStatus, NodeStatus
from perdure.server.handlers.call import DirectCall
from perdure.server.handlers.cluster_service import describe_cluster
from perdure.server.handlers.registry import HANDLERS, WORKFLOW_SERVICE
from perdure.server.handlers.system import COMPATIBLE_VERSION, get_cluster_info, get_system_info, list_clusters
from tests.server.handlers.serving import CLUSTER_ID, NOW, serve

CALL = DirectCall()


async def test_only_true_capabilities_are_reported() -> None:
    served = await serve()
    told = await get_system_info(served.server, GetSystemInfoRequest(), CALL)
    assert {field.name for field, value in told.capabilities.ListFields() if value} == {
        "signal_and_query_header",
        "internal_error_differentiation",
        "activity_failure_include_heartbeat",
        "encoded_failure_attributes",
        "build_id_based_versioning",
        "upsert_memo",
        "eager_workflow_start",
        "sdk_metadata",
        "count_group_by_execution_status",
    }


async def test_a_capability_and_its_rpc_come_together() -> None:
    served = await serve()
    told = (await get_system_info(served.server, GetSystemInfoRequest(), CALL)).capabilities
    built = HANDLERS[WORKFLOW_SERVICE]
    assert told.supports_schedules == ("CreateSchedule" in built)
    assert told.nexus == ("RespondNexusTaskCompleted" in built)
    assert told.count_group_by_execution_status == ("CountWorkflowExecutions" in built)


async def test_the_version_is_one_clients_can_compare() -> None:
    served = await serve()
    system = await get_system_info(served.server, GetSystemInfoRequest(), CALL)
    cluster = await get_cluster_info(served.server, GetClusterInfoRequest(), CALL)
    assert system.server_version == cluster.server_version == COMPATIBLE_VERSION
    assert [part.isdigit() for part in COMPATIBLE_VERSION.split(".")] == [True, True, True]


async def test_the_cluster_is_named_by_its_database() -> None:
    served = await serve()
    told = await get_cluster_info(served.server, GetClusterInfoRequest(), CALL)
    assert (told.cluster_id, told.persistence_store, told.visibility_store) == (CLUSTER_ID, "sqlite", "sqlite")


async def test_the_one_cluster_is_listed_with_the_address_of_who_was_asked() -> None:
    served = await serve()
    [cluster] = (await list_clusters(served.server, ListClustersRequest(), CALL)).clusters
    assert (cluster.address, cluster.history_shard_count) == ("host:7233", 1024)
    assert cluster.cluster_id == served.server.cluster_id


async def test_operators_are_told_of_nodes_leases_and_shards() -> None:
    served = await serve()
    served.engine.status = ClusterStatus(
        "host:7233",
        7,
        [
            NodeStatus("host:7233", "1.0", NOW, 4.5, True, False, True, 1000),
            NodeStatus("gone:7233", "", 0, 0.0, False, False, False, 24),
        ],
    )
    told = MessageToDict(await describe_cluster(served.server, Empty(), CALL))
    assert (told["node"], told["version"]) == ("host:7233", 7)
    assert [(node["node"], node["shards"], node["is_alive"]) for node in told["nodes"]] == [
        ("host:7233", 1000, True),
        ("gone:7233", 24, False),
    ]
