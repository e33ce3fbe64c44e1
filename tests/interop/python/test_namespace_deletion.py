"""A namespace that is deleted with runs in it, by a server that is killed in the middle of that."""

from __future__ import annotations

import pytest
from google.protobuf.duration_pb2 import Duration
from temporalio import workflow
from temporalio.api.operatorservice.v1 import DeleteNamespaceRequest
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest, RegisterNamespaceRequest
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from tests.interop.python.harness import Server, eventually, fresh_id, worker

pytestmark = pytest.mark.process

RUNS = 60


@workflow.defn
class Waits:
    """Waits for ever, or for nothing."""

    @workflow.run
    async def run(self, for_ever: bool) -> None:
        await workflow.wait_condition(lambda: not for_ever)


async def test_it_goes_with_its_open_and_closed_runs_and_its_name_is_free(durable_server: Server) -> None:
    client = await durable_server.connect()
    register = RegisterNamespaceRequest(namespace="shop", workflow_execution_retention_period=Duration(seconds=86_400))
    await client.workflow_service.register_namespace(register)
    shop = await Client.connect(durable_server.address, namespace="shop")
    async with worker(shop, workflows=[Waits]) as running:
        for number in range(RUNS):
            for_ever = bool(number % 2)
            await shop.start_workflow(Waits.run, for_ever, id=fresh_id("waits"), task_queue=running.task_queue)
    described = await client.workflow_service.describe_namespace(DescribeNamespaceRequest(namespace="shop"))
    namespace_id = described.namespace_info.id
    reply = await client.operator_service.delete_namespace(DeleteNamespaceRequest(namespace="shop"))
    assert reply.deleted_namespace == f"shop-deleted-{namespace_id[:5]}"
    durable_server.kill()
    durable_server.start()
    client = await durable_server.connect()
    await client.workflow_service.register_namespace(register)

    async def gone() -> bool | None:
        try:
            await client.workflow_service.describe_namespace(DescribeNamespaceRequest(id=namespace_id))
        except RPCError as error:
            assert error.status is RPCStatusCode.NOT_FOUND
            return True
        return None

    assert await eventually(gone)
    shop = await Client.connect(durable_server.address, namespace="shop")
    assert (await shop.count_workflows()).count == 0
