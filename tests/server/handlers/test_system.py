"""What the server says it is."""

from __future__ import annotations

from temporalio.api.workflowservice.v1 import GetClusterInfoRequest, GetSystemInfoRequest

from perdure.server.handlers.call import DirectCall
from perdure.server.handlers.registry import HANDLERS, WORKFLOW_SERVICE
from perdure.server.handlers.system import COMPATIBLE_VERSION, get_cluster_info, get_system_info
from tests.server.handlers.serving import CLUSTER_ID, serve

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
