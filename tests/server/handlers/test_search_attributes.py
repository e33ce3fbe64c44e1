"""Add, list and remove custom search attributes."""

from __future__ import annotations

import pytest
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import (
    AddSearchAttributesRequest,
    ListSearchAttributesRequest,
    RemoveSearchAttributesRequest,
)

from perdure.server.core.errors import InvalidArgument, NotFound
from perdure.server.core.limits import Limits
from perdure.server.handlers.call import DirectCall
from perdure.server.handlers.search_attributes import (
    add_search_attributes,
    list_search_attributes,
    remove_search_attributes,
)
from tests.server.handlers.serving import Served, serve

CALL = DirectCall()
KEYWORD = IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD
INT = IndexedValueType.INDEXED_VALUE_TYPE_INT


async def custom(served: Served) -> dict[str, int]:
    told = await list_search_attributes(served.server, ListSearchAttributesRequest(namespace="default"), CALL)
    return dict(told.custom_attributes)


async def test_an_attribute_is_listed_as_soon_as_it_is_added() -> None:
    served = await serve()
    request = AddSearchAttributesRequest(namespace="default", search_attributes={"K": KEYWORD})
    await add_search_attributes(served.server, request, CALL)
    assert await custom(served) == {"CustomInt": INT, "K": KEYWORD}
    assert served.rows.rows["default-id"].search_attributes == {"CustomInt": INT, "K": KEYWORD}


async def test_one_that_exists_keeps_its_type() -> None:
    served = await serve()
    request = AddSearchAttributesRequest(namespace="default", search_attributes={"CustomInt": KEYWORD})
    await add_search_attributes(served.server, request, CALL)
    assert await custom(served) == {"CustomInt": INT}


async def test_every_namespace_has_the_built_in_ones() -> None:
    served = await serve()
    told = await list_search_attributes(served.server, ListSearchAttributesRequest(namespace="other"), CALL)
    assert dict(told.custom_attributes) == {}
    assert told.system_attributes["WorkflowId"] == KEYWORD
    assert told.system_attributes["TemporalChangeVersion"] == IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD_LIST


async def test_a_removed_one_is_gone_and_an_unknown_one_is_no_error() -> None:
    served = await serve()
    request = RemoveSearchAttributesRequest(namespace="default", search_attributes=["CustomInt", "Nope"])
    await remove_search_attributes(served.server, request, CALL)
    assert await custom(served) == {}


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({}, "SearchAttributes are not set on request."),
        ({"WorkflowId": KEYWORD}, "Search attribute WorkflowId is reserved by system."),
        ({"TemporalMine": KEYWORD}, "Search attribute TemporalMine is reserved by system."),
        ({"K": 99}, "Unknown search attribute type: 99."),
        ({"K": 0}, "Unknown search attribute type: 0."),
        ({"": KEYWORD}, "Search attribute name is not set on request."),
        ({"K\0": KEYWORD}, "Search attribute name contains a NUL character."),
    ],
)
async def test_a_faulty_addition_is_refused(attributes: dict[str, IndexedValueType.ValueType], message: str) -> None:
    served = await serve()
    request = AddSearchAttributesRequest(namespace="default", search_attributes=attributes)
    with pytest.raises(InvalidArgument) as refused:
        await add_search_attributes(served.server, request, CALL)
    assert refused.value.message == message
    assert served.rows.saves == 0


async def test_a_namespace_has_a_limit_of_them() -> None:
    served = await serve(limits=Limits(search_attributes_count=2))
    request = AddSearchAttributesRequest(namespace="default", search_attributes={"A": KEYWORD, "B": KEYWORD})
    with pytest.raises(InvalidArgument, match="cannot have more than 2"):
        await add_search_attributes(served.server, request, CALL)
    assert await custom(served) == {"CustomInt": INT}


async def test_built_in_ones_cannot_be_removed() -> None:
    served = await serve()
    request = RemoveSearchAttributesRequest(namespace="default", search_attributes=["WorkflowId"])
    with pytest.raises(InvalidArgument, match="Unable to remove non-custom search attributes: WorkflowId"):
        await remove_search_attributes(served.server, request, CALL)


async def test_a_namespace_must_be_named_and_known() -> None:
    served = await serve()
    with pytest.raises(InvalidArgument, match=r"Namespace is not set on request\."):
        await list_search_attributes(served.server, ListSearchAttributesRequest(), CALL)
    with pytest.raises(NotFound, match="Namespace nope is not found"):
        await list_search_attributes(served.server, ListSearchAttributesRequest(namespace="nope"), CALL)
