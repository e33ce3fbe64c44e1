"""`temporal task-queue describe` and `temporal operator ...`."""

from __future__ import annotations

import pytest
from temporalio import workflow
from temporalio.api.namespace.v1 import NamespaceFilter
from temporalio.api.workflowservice.v1 import ListNamespacesRequest
from temporalio.client import Client

from tests.interop.cli.conftest import Temporal
from tests.interop.python.harness import eventually, fresh_id, worker

pytestmark = pytest.mark.process


@workflow.defn
class Nothing:
    """Ends at once."""

    @workflow.run
    async def run(self) -> None:
        return None


async def test_a_task_queue_is_described_with_its_pollers(temporal: Temporal, client: Client) -> None:
    async with worker(client, workflows=[Nothing], identity="a-worker") as running:

        async def with_pollers() -> str | None:
            output = await temporal.run("task-queue", "describe", "--task-queue", running.task_queue)
            return output if "a-worker" in output else None

        assert "workflow" in await eventually(with_pollers)


async def test_a_task_queue_is_described_with_its_backlog(temporal: Temporal, client: Client) -> None:
    queue = fresh_id("queue")
    handles = [await client.start_workflow(Nothing.run, id=fresh_id("w"), task_queue=queue) for _ in range(3)]

    async def backlog() -> int | None:
        described = await temporal.json("task-queue", "describe", "--task-queue", queue)
        assert isinstance(described, dict)
        counts = {each["taskQueueType"]: each["approximateBacklogCount"] for each in described["stats"]}
        assert counts["activity"] == 0
        return counts["workflow"] or None

    assert await eventually(backlog) == 3
    for handle in handles:
        await handle.terminate()


async def test_namespaces_are_created_described_updated_and_listed(temporal: Temporal) -> None:
    name = fresh_id("namespace")
    await temporal.run("operator", "namespace", "create", "--namespace", name, "--retention", "3d")
    await temporal.run("operator", "namespace", "update", "--namespace", name, "--description", "for a test")
    described = await temporal.json("operator", "namespace", "describe", "--namespace", name)
    assert isinstance(described, dict)
    info = described["namespaceInfo"]
    assert (info["name"], info["description"]) == (name, "for a test")
    assert info["state"] == "NAMESPACE_STATE_REGISTERED"
    assert described["config"]["workflowExecutionRetentionTtl"] == "259200s"
    listed = await temporal.run("operator", "namespace", "list")
    assert name in listed
    assert "default" in listed
    assert "already exists" in await temporal.refused("operator", "namespace", "create", "--namespace", name)


async def test_a_namespace_is_deleted_with_its_workflows(temporal: Temporal, client: Client) -> None:
    name = fresh_id("namespace")
    await temporal.run("operator", "namespace", "create", "--namespace", name, "--retention", "3d")
    started = ("--namespace", name, "--task-queue", "q", "--type", "T", "--workflow-id", "w")
    await temporal.run("workflow", "start", *started)
    deleted = await temporal.json("operator", "namespace", "delete", "--namespace", name, "--yes")
    assert isinstance(deleted, dict)
    assert deleted["deletedNamespace"].startswith(f"{name}-deleted-")
    assert "not found" in await temporal.refused("workflow", "start", *started)
    assert name not in (await temporal.run("operator", "namespace", "list")).split()

    async def gone() -> bool | None:
        request = ListNamespacesRequest(namespace_filter=NamespaceFilter(include_deleted=True))
        listed = await client.workflow_service.list_namespaces(request)
        return None if any(each.namespace_info.name.startswith(name) for each in listed.namespaces) else True

    assert await eventually(gone)


async def test_search_attributes_are_created_listed_and_removed(temporal: Temporal) -> None:
    name = fresh_id("Attribute").replace("-", "")
    await temporal.run("operator", "search-attribute", "create", "--name", name, "--type", "Keyword")
    assert await type_of(temporal, name) == "Keyword"
    assert await type_of(temporal, "WorkflowId") == "Keyword"
    await temporal.run("operator", "search-attribute", "remove", "--name", name, "--yes")
    assert await type_of(temporal, name) is None


async def type_of(temporal: Temporal, name: str) -> str | None:
    """Return the type of a search attribute, as the list shows it."""
    rows = [line.split() for line in (await temporal.run("operator", "search-attribute", "list")).splitlines()]
    return next((row[1] for row in rows if row and row[0] == name), None)


async def test_the_cluster_is_healthy(temporal: Temporal) -> None:
    assert (await temporal.run("operator", "cluster", "health")).strip() == "SERVING"


async def test_the_cluster_describes_itself(temporal: Temporal) -> None:
    described = await temporal.json("operator", "cluster", "describe")
    system = await temporal.json("operator", "cluster", "system")
    assert isinstance(described, dict)
    assert isinstance(system, dict)
    assert described["serverVersion"] == system["serverVersion"] != ""
