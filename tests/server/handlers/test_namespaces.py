"""Namespaces: the registry in memory and the RPCs over it."""

from __future__ import annotations

import pytest
from google.protobuf.duration_pb2 import Duration
from temporalio.api.enums.v1 import ArchivalState, NamespaceState
from temporalio.api.errordetails.v1 import (
    NamespaceAlreadyExistsFailure,
    NamespaceInvalidStateFailure,
    NamespaceNotFoundFailure,
)
from temporalio.api.namespace.v1 import NamespaceConfig, NamespaceFilter, UpdateNamespaceInfo
from temporalio.api.replication.v1 import ClusterReplicationConfig, NamespaceReplicationConfig
from temporalio.api.workflowservice.v1 import (
    DeprecateNamespaceRequest,
    DescribeNamespaceRequest,
    ListNamespacesRequest,
    RegisterNamespaceRequest,
    UpdateNamespaceRequest,
)

from perdure.server.core.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, Unimplemented
from perdure.server.core.records import NamespaceRecord
from perdure.server.engine.namespaces import Namespaces
from perdure.server.handlers.call import DirectCall
from perdure.server.handlers.namespaces import (
    deprecate_namespace,
    describe_namespace,
    list_namespaces,
    register_namespace,
    update_namespace,
)
from tests.server.handlers.serving import NOW, NamespaceRows, StoppedClock, namespace_row, serve

CALL = DirectCall()
DAY = Duration(seconds=86_400)
DEPRECATED = NamespaceState.NAMESPACE_STATE_DEPRECATED
DELETED = NamespaceState.NAMESPACE_STATE_DELETED
REGISTERED = NamespaceState.NAMESPACE_STATE_REGISTERED


# --- the registry -----------------------------------------------------------------------------------------------------


async def test_default_and_the_wanted_ones_exist_after_the_first_load() -> None:
    rows = NamespaceRows()
    namespaces = Namespaces(rows, StoppedClock())
    await namespaces.load(["orders", "default"])
    assert [record.name for record in namespaces.all()] == ["default", "orders"]
    assert namespaces.resolve("orders").created_at == NOW
    again = Namespaces(rows, StoppedClock())
    await again.load(["orders"])
    assert again.resolve("default").namespace_id == namespaces.resolve("default").namespace_id
    assert rows.saves == 2


async def test_an_unknown_namespace_says_which() -> None:
    served = await serve()
    with pytest.raises(NotFound) as refused:
        served.namespaces.resolve("nope")
    assert refused.value.message == "Namespace nope is not found."
    assert refused.value.detail == NamespaceNotFoundFailure(namespace="nope")


async def test_a_name_no_namespace_can_have_is_an_invalid_argument() -> None:
    served = await serve()
    with pytest.raises(InvalidArgument, match=r"Namespace length exceeds limit\."):
        served.namespaces.resolve("n" * 1001)
    with pytest.raises(InvalidArgument, match=r"Namespace is empty\."):
        served.namespaces.resolve("")


async def test_a_deleted_namespace_serves_nothing() -> None:
    served = await serve(namespace_row("gone", state=DELETED))
    with pytest.raises(FailedPrecondition) as refused:
        served.namespaces.resolve("gone")
    assert refused.value.message == "Namespace has invalid state: Deleted. Must be Registered or Deprecated."
    assert refused.value.detail == NamespaceInvalidStateFailure(
        namespace="gone", state=DELETED, allowed_states=[REGISTERED, DEPRECATED]
    )


async def test_an_edit_that_raises_changes_nothing() -> None:
    served = await serve()

    def edit(record: NamespaceRecord) -> None:
        record.data["a"] = "b"
        raise InvalidArgument("no")

    with pytest.raises(InvalidArgument):
        await served.namespaces.change("default", edit)
    assert served.namespaces.resolve("default").data == {}
    assert served.rows.saves == 0


async def test_a_change_that_is_none_is_not_stored() -> None:
    served = await serve()
    await served.namespaces.change("default", lambda record: None)
    assert served.rows.saves == 0


async def test_a_change_is_seen_only_once_it_is_stored() -> None:
    served = await serve()
    seen: list[str] = []

    async def save_namespace(namespace: NamespaceRecord, former: NamespaceRecord | None = None) -> None:
        seen.append(served.namespaces.resolve("default").description)

    served.rows.save_namespace = save_namespace  # type: ignore[method-assign]  # the store of this one test

    def edit(record: NamespaceRecord) -> None:
        record.description = "new"

    await served.namespaces.change("default", edit)
    assert seen == [""]
    assert served.namespaces.resolve("default").description == "new"


# --- the RPCs ---------------------------------------------------------------------------------------------------------


async def test_a_registered_namespace_is_there_at_once() -> None:
    served = await serve()
    request = RegisterNamespaceRequest(
        namespace="new",
        workflow_execution_retention_period=DAY,
        description="d",
        owner_email="o",
        data={"k": "v"},
    )
    await register_namespace(served.server, request, CALL)
    told = await describe_namespace(served.server, DescribeNamespaceRequest(namespace="new"), CALL)
    info = told.namespace_info
    assert (info.name, info.state, info.description, info.owner_email) == ("new", REGISTERED, "d", "o")
    assert dict(info.data) == {"k": "v"}
    assert told.config.workflow_execution_retention_ttl == DAY
    by_id = await describe_namespace(served.server, DescribeNamespaceRequest(id=info.id), CALL)
    assert by_id == told
    with pytest.raises(InvalidArgument, match="Both ID and Name specified"):
        await describe_namespace(served.server, DescribeNamespaceRequest(id=info.id, namespace=info.name), CALL)
    assert info.id in served.rows.rows


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (RegisterNamespaceRequest(), "Namespace not set on request."),
        (RegisterNamespaceRequest(namespace="n" * 1001), "Namespace length exceeds limit."),
        (RegisterNamespaceRequest(namespace="n\0"), "Namespace contains a NUL character."),
        (RegisterNamespaceRequest(namespace="n"), "A valid retention period is not set on request."),
        (
            RegisterNamespaceRequest(namespace="n", workflow_execution_retention_period=Duration(seconds=3599)),
            "A valid retention period is not set on request.",
        ),
        (
            RegisterNamespaceRequest(namespace="n", workflow_execution_retention_period=Duration(seconds=-1)),
            "A valid retention period is not set on request.",
        ),
        (
            RegisterNamespaceRequest(namespace="n", workflow_execution_retention_period=DAY, is_global_namespace=True),
            "Cannot register global namespace when not enabled",
        ),
        (
            RegisterNamespaceRequest(namespace="n", workflow_execution_retention_period=DAY, data={"a": "\0"}),
            "The namespace's description contains a NUL character.",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_faulty_registration_is_refused(request_: RegisterNamespaceRequest, message: str) -> None:
    served = await serve()
    with pytest.raises(InvalidArgument) as refused:
        await register_namespace(served.server, request_, CALL)
    assert refused.value.message == message
    assert served.rows.saves == 0


async def test_a_taken_name_is_refused() -> None:
    served = await serve()
    request = RegisterNamespaceRequest(namespace="default", workflow_execution_retention_period=DAY)
    with pytest.raises(AlreadyExists, match='Namespace "default" already exists') as refused:
        await register_namespace(served.server, request, CALL)
    assert refused.value.detail == NamespaceAlreadyExistsFailure()


async def test_a_description_reports_what_is_true() -> None:
    served = await serve()
    told = await describe_namespace(served.server, DescribeNamespaceRequest(namespace="default"), CALL)
    true = {field.name for field, value in told.namespace_info.capabilities.ListFields() if value}
    assert true == {"eager_workflow_start", "worker_poll_complete_on_shutdown"}
    assert told.namespace_info.limits.blob_size_limit_error == served.server.limits.blob_size_error
    assert told.namespace_info.limits.memo_size_limit_error == served.server.limits.memo_size_error
    assert dict(told.config.custom_search_attribute_aliases) == {"CustomInt": "CustomInt"}
    assert told.replication_config.active_cluster_name == "active"


async def test_an_unknown_one_cannot_be_described_updated_or_deprecated() -> None:
    served = await serve()
    with pytest.raises(NotFound, match="Namespace nope is not found"):
        await describe_namespace(served.server, DescribeNamespaceRequest(namespace="nope"), CALL)
    with pytest.raises(NotFound, match="Namespace id is not found"):
        await describe_namespace(served.server, DescribeNamespaceRequest(id="id"), CALL)
    with pytest.raises(InvalidArgument, match="Namespace not set on request"):
        await describe_namespace(served.server, DescribeNamespaceRequest(), CALL)
    with pytest.raises(NotFound, match="Namespace nope is not found"):
        await update_namespace(served.server, UpdateNamespaceRequest(namespace="nope"), CALL)
    with pytest.raises(NotFound, match="Namespace nope is not found"):
        await deprecate_namespace(served.server, DeprecateNamespaceRequest(namespace="nope"), CALL)


async def test_a_list_pages_in_name_order_without_the_deleted() -> None:
    served = await serve(namespace_row("gone", state=DELETED), namespace_row("a"))
    names: list[str] = []
    token = b""
    for _ in range(3):
        page = await list_namespaces(served.server, ListNamespacesRequest(page_size=1, next_page_token=token), CALL)
        names += [each.namespace_info.name for each in page.namespaces]
        token = page.next_page_token
    assert (names, token) == (["a", "default", "other"], b"")
    everything = ListNamespacesRequest(namespace_filter=NamespaceFilter(include_deleted=True))
    page = await list_namespaces(served.server, everything, CALL)
    assert len(page.namespaces) == 4


async def test_an_update_changes_what_it_sets() -> None:
    served = await serve(namespace_row("n", description="old", owner_email="o", data={"a": "1", "b": "2"}))
    request = UpdateNamespaceRequest(
        namespace="n",
        update_info=UpdateNamespaceInfo(description="new", data={"b": "3"}),
        config=NamespaceConfig(workflow_execution_retention_ttl=Duration(seconds=7200)),
    )
    told = await update_namespace(served.server, request, CALL)
    info = told.namespace_info
    assert (info.description, info.owner_email, dict(info.data)) == ("new", "o", {"a": "1", "b": "3"})
    assert told.config.workflow_execution_retention_ttl == Duration(seconds=7200)
    assert served.rows.rows["n-id"].retention_seconds == 7200


async def test_a_state_goes_one_way_only() -> None:
    served = await serve()
    await deprecate_namespace(served.server, DeprecateNamespaceRequest(namespace="other"), CALL)
    assert served.rows.rows["other-id"].state == DEPRECATED
    back = UpdateNamespaceRequest(namespace="other", update_info=UpdateNamespaceInfo(state=REGISTERED))
    with pytest.raises(InvalidArgument, match="Invalid namespace state update"):
        await update_namespace(served.server, back, CALL)


@pytest.mark.parametrize(
    "request_",
    [
        UpdateNamespaceRequest(replication_config=NamespaceReplicationConfig(active_cluster_name="elsewhere")),
        UpdateNamespaceRequest(
            replication_config=NamespaceReplicationConfig(clusters=[ClusterReplicationConfig(cluster_name="second")])
        ),
        UpdateNamespaceRequest(config=NamespaceConfig(history_archival_state=ArchivalState.ARCHIVAL_STATE_ENABLED)),
        UpdateNamespaceRequest(delete_bad_binary="sum"),
    ],
    ids=["active cluster", "clusters", "archival", "bad binaries"],
)
async def test_what_is_not_built_is_refused_rather_than_ignored(request_: UpdateNamespaceRequest) -> None:
    served = await serve()
    request_.namespace = "default"
    with pytest.raises(Unimplemented):
        await update_namespace(served.server, request_, CALL)
