"""DeleteNamespace: what it refuses, what it answers, and what every other call says of a deleted namespace."""

from __future__ import annotations

import pytest
from google.protobuf.duration_pb2 import Duration
from temporalio.api.enums.v1 import NamespaceState
from temporalio.api.errordetails.v1 import NamespaceInvalidStateFailure, NamespaceNotFoundFailure
from temporalio.api.operatorservice.v1 import DeleteNamespaceRequest
from temporalio.api.workflowservice.v1 import (
    CountWorkflowExecutionsRequest,
    DescribeNamespaceRequest,
    ListNamespacesRequest,
    RegisterNamespaceRequest,
    UpdateNamespaceRequest,
)

from perdure.server.core.errors import FailedPrecondition, InvalidArgument, NotFound
from perdure.server.handlers.call import DirectCall
from perdure.server.handlers.delete_namespace import delete_namespace
from perdure.server.handlers.namespaces import (
    describe_namespace,
    list_namespaces,
    register_namespace,
    update_namespace,
)
from perdure.server.handlers.start_workflow import start_workflow_execution
from perdure.server.handlers.visibility import count_workflow_executions
from tests.server.handlers.serving import namespace_row, serve, start_request

CALL = DirectCall()
DELETED = NamespaceState.NAMESPACE_STATE_DELETED
DEPRECATED = NamespaceState.NAMESPACE_STATE_DEPRECATED
ID = "0190d0f0-aaaa-7000-8000-000000000001"


@pytest.mark.parametrize("state", [NamespaceState.NAMESPACE_STATE_REGISTERED, DEPRECATED, DELETED])
@pytest.mark.parametrize("request_", [DeleteNamespaceRequest(namespace="n"), DeleteNamespaceRequest(namespace_id=ID)])
async def test_it_is_closed_and_renamed_by_name_or_id_in_any_state(
    request_: DeleteNamespaceRequest, state: int
) -> None:
    served = await serve(namespace_row("n", namespace_id=ID, state=state))
    reply = await delete_namespace(served.server, request_, CALL)
    assert reply.deleted_namespace == "n-deleted-0190d"
    stored = served.rows.rows[ID]
    assert (stored.name, stored.state, stored.delete_delay_seconds) == ("n-deleted-0190d", DELETED, 0)


async def test_a_longer_part_of_the_id_is_taken_where_the_name_is() -> None:
    served = await serve(namespace_row("n", namespace_id=ID), namespace_row("n-deleted-0190d"))
    reply = await delete_namespace(served.server, DeleteNamespaceRequest(namespace="n"), CALL)
    assert reply.deleted_namespace == "n-deleted-0190d0"


async def test_asked_for_again_under_its_new_name_it_takes_the_new_delay() -> None:
    served = await serve(namespace_row("n", namespace_id=ID))
    hours = DeleteNamespaceRequest(namespace="n", namespace_delete_delay=Duration(seconds=7_200))
    name = (await delete_namespace(served.server, hours, CALL)).deleted_namespace
    assert served.rows.rows[ID].delete_delay_seconds == 7_200
    again = await delete_namespace(served.server, DeleteNamespaceRequest(namespace=name), CALL)
    assert again.deleted_namespace == name
    assert served.rows.rows[ID].delete_delay_seconds == 0


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (DeleteNamespaceRequest(), "Namespace not set on request."),
        (
            DeleteNamespaceRequest(namespace="default", namespace_id="default-id"),
            "Only one of namespace name or Id should be set on request.",
        ),
        (DeleteNamespaceRequest(namespace="x" * 1_001), "Namespace length exceeds limit."),
    ],
)
async def test_a_bad_request_is_refused(request_: DeleteNamespaceRequest, message: str) -> None:
    served = await serve()
    with pytest.raises(InvalidArgument) as refused:
        await delete_namespace(served.server, request_, CALL)
    assert refused.value.message == message


@pytest.mark.parametrize(
    "request_", [DeleteNamespaceRequest(namespace="no"), DeleteNamespaceRequest(namespace_id="no")]
)
async def test_an_unknown_one_is_not_found(request_: DeleteNamespaceRequest) -> None:
    served = await serve()
    with pytest.raises(NotFound) as refused:
        await delete_namespace(served.server, request_, CALL)
    assert refused.value.message == "Namespace no is not found."
    assert refused.value.detail == NamespaceNotFoundFailure(namespace="no")


@pytest.mark.parametrize(
    "request_",
    [
        DeleteNamespaceRequest(namespace="temporal-system"),
        DeleteNamespaceRequest(namespace_id="32049b68-7872-4094-8e63-d0dd59896a83"),
    ],
)
async def test_the_one_of_the_system_is_not_deleted(request_: DeleteNamespaceRequest) -> None:
    served = await serve()
    with pytest.raises(FailedPrecondition, match=r"^unable to delete system namespace$"):
        await delete_namespace(served.server, request_, CALL)


async def test_other_calls_do_not_know_the_old_name_and_refuse_the_new_one() -> None:
    served = await serve(namespace_row("n", namespace_id=ID))
    server = served.server
    name = (await delete_namespace(server, DeleteNamespaceRequest(namespace="n"), CALL)).deleted_namespace
    with pytest.raises(NotFound, match=r"^Namespace n is not found\.$"):
        await start_workflow_execution(server, start_request(namespace="n"), CALL)
    for refused in (
        start_workflow_execution(server, start_request(namespace=name), CALL),
        count_workflow_executions(server, CountWorkflowExecutionsRequest(namespace=name), CALL),
        update_namespace(server, UpdateNamespaceRequest(namespace=name), CALL),
    ):
        with pytest.raises(FailedPrecondition, match=r"^Namespace has invalid state: Deleted\. ") as error:
            await refused
        assert isinstance(error.value.detail, NamespaceInvalidStateFailure)
        assert (error.value.detail.namespace, error.value.detail.state) == (name, DELETED)


async def test_it_is_described_and_listed_only_to_whom_asks_for_it() -> None:
    served = await serve(namespace_row("n", namespace_id=ID))
    name = (await delete_namespace(served.server, DeleteNamespaceRequest(namespace="n"), CALL)).deleted_namespace
    described = await describe_namespace(served.server, DescribeNamespaceRequest(id=ID), CALL)
    assert (described.namespace_info.name, described.namespace_info.state) == (name, DELETED)
    listed = await list_namespaces(served.server, ListNamespacesRequest(), CALL)
    assert [each.namespace_info.name for each in listed.namespaces] == ["default", "other"]


async def test_its_name_may_be_registered_anew_at_once() -> None:
    served = await serve(namespace_row("n", namespace_id=ID))
    await delete_namespace(served.server, DeleteNamespaceRequest(namespace="n"), CALL)
    request = RegisterNamespaceRequest(namespace="n", workflow_execution_retention_period=Duration(seconds=86_400))
    await register_namespace(served.server, request, CALL)
    assert served.namespaces.by_name("n").namespace_id != ID
