"""OperatorService: which custom search attributes a namespace has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import (
    AddSearchAttributesRequest,
    AddSearchAttributesResponse,
    ListSearchAttributesRequest,
    ListSearchAttributesResponse,
    RemoveSearchAttributesRequest,
    RemoveSearchAttributesResponse,
)

from perdure.server.core.checks.search_attributes import PREDEFINED_TYPES, SYSTEM_TYPES
from perdure.server.core.errors import InvalidArgument
from perdure.server.core.records import NamespaceRecord
from perdure.server.handlers.call import Call
from perdure.server.handlers.fields import check_text
from perdure.server.handlers.server import Server

_RESERVED: Final = frozenset({"NamespaceId", "MemoEncoding", "Memo", "VisibilityTaskKey"})
_RESERVED_PREFIX: Final = "Temporal"


async def add_search_attributes(
    server: Server, request: AddSearchAttributesRequest, call: Call
) -> AddSearchAttributesResponse:
    """Define custom search attributes, usable as soon as this returns. One that is there stays as it is."""
    if not request.search_attributes:
        raise InvalidArgument("SearchAttributes are not set on request.")
    for name, value_type in request.search_attributes.items():
        _check_new(server, name, value_type)
    namespace = _namespace(server, request.namespace)

    def add(record: NamespaceRecord) -> None:
        for name, value_type in request.search_attributes.items():
            record.search_attributes.setdefault(name, value_type)
        most = server.limits.search_attributes_count
        if len(record.search_attributes) > most:
            raise InvalidArgument(
                f"Unable to create search attributes: cannot have more than {most} search attributes."
            )

    await server.namespaces.change(namespace.name, add)
    return AddSearchAttributesResponse()


async def remove_search_attributes(
    server: Server, request: RemoveSearchAttributesRequest, call: Call
) -> RemoveSearchAttributesResponse:
    """Forget custom search attributes. One that is not there is no error."""
    if not request.search_attributes:
        raise InvalidArgument("SearchAttributes are not set on request.")
    namespace = _namespace(server, request.namespace)

    def remove(record: NamespaceRecord) -> None:
        for name in request.search_attributes:
            if record.search_attributes.pop(name, None) is None and _is_reserved(name):
                raise InvalidArgument(f"Unable to remove non-custom search attributes: {name}.")

    await server.namespaces.change(namespace.name, remove)
    return RemoveSearchAttributesResponse()


async def list_search_attributes(
    server: Server, request: ListSearchAttributesRequest, call: Call
) -> ListSearchAttributesResponse:
    """Return a namespace's search attributes, its own and those that every namespace has."""
    namespace = _namespace(server, request.namespace)
    return ListSearchAttributesResponse(
        custom_attributes=_typed(namespace.search_attributes),
        system_attributes=_typed({**SYSTEM_TYPES, **PREDEFINED_TYPES}),
    )


def _typed(attributes: Mapping[str, int]) -> dict[str, IndexedValueType.ValueType]:
    return {name: IndexedValueType.ValueType(value_type) for name, value_type in attributes.items()}


def _is_reserved(name: str) -> bool:
    built_in = name in SYSTEM_TYPES or name in PREDEFINED_TYPES
    return built_in or name in _RESERVED or name.startswith(_RESERVED_PREFIX)


def _namespace(server: Server, name: str) -> NamespaceRecord:
    if not name:
        raise InvalidArgument("Namespace is not set on request.")
    return server.namespaces.resolve(name)


def _check_new(server: Server, name: str, value_type: int) -> None:
    if _is_reserved(name):
        raise InvalidArgument(f"Search attribute {name} is reserved by system.")
    if not name:
        raise InvalidArgument("Search attribute name is not set on request.")
    check_text("Search attribute name", name, server.limits)
    known = IndexedValueType.values()
    if value_type not in known or value_type == IndexedValueType.INDEXED_VALUE_TYPE_UNSPECIFIED:
        raise InvalidArgument(f"Unknown search attribute type: {value_type}.")
