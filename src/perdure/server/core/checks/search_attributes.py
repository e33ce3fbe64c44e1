"""Search attributes: which may be set, and which values their types take.

A value is a JSON payload of the attribute's type, or a list with one such value. An empty list and null take the
attribute away. Text with a NUL is refused, since not every store can hold it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import Final, cast

import msgspec
from google.protobuf.text_format import MessageToString
from temporalio.api.common.v1 import Payload, SearchAttributes
from temporalio.api.enums.v1 import IndexedValueType

from perdure.server.core.checks.payload_map import without_removals
from perdure.server.core.errors import InvalidArgument
from perdure.server.core.limits import Limits

_BOOL: Final = IndexedValueType.INDEXED_VALUE_TYPE_BOOL
_DATETIME: Final = IndexedValueType.INDEXED_VALUE_TYPE_DATETIME
_DOUBLE: Final = IndexedValueType.INDEXED_VALUE_TYPE_DOUBLE
_INT: Final = IndexedValueType.INDEXED_VALUE_TYPE_INT
_KEYWORD: Final = IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD
_KEYWORD_LIST: Final = IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD_LIST
_TEXT: Final = IndexedValueType.INDEXED_VALUE_TYPE_TEXT

SYSTEM_TYPES: Final[Mapping[str, int]] = {
    "WorkflowId": _KEYWORD,
    "RunId": _KEYWORD,
    "WorkflowType": _KEYWORD,
    "StartTime": _DATETIME,
    "ExecutionTime": _DATETIME,
    "CloseTime": _DATETIME,
    "ExecutionStatus": _KEYWORD,
    "TaskQueue": _KEYWORD,
    "HistoryLength": _INT,
    "ExecutionDuration": _INT,
    "StateTransitionCount": _INT,
    "HistorySizeBytes": _INT,
    "ParentWorkflowId": _KEYWORD,
    "ParentRunId": _KEYWORD,
    "RootWorkflowId": _KEYWORD,
    "RootRunId": _KEYWORD,
}
"""What the server itself knows of every run. Nobody sets these."""

_OPEN_TYPES: Final[Mapping[str, int]] = {
    "TemporalChangeVersion": _KEYWORD_LIST,
    "BinaryChecksums": _KEYWORD_LIST,
    "BuildIds": _KEYWORD_LIST,
    "BatcherNamespace": _KEYWORD,
    "BatcherUser": _KEYWORD,
    "TemporalScheduledStartTime": _DATETIME,
    "TemporalScheduledById": _KEYWORD,
    "TemporalSchedulePaused": _BOOL,
    "TemporalNamespaceDivision": _KEYWORD,
    "TemporalPauseInfo": _KEYWORD_LIST,
    "TemporalReportedProblems": _KEYWORD_LIST,
}

_SERVER_SET_TYPES: Final[Mapping[str, int]] = {
    "TemporalWorkerDeploymentVersion": _KEYWORD,
    "TemporalWorkflowVersioningBehavior": _KEYWORD,
    "TemporalWorkerDeployment": _KEYWORD,
    "TemporalUsedWorkerDeploymentVersions": _KEYWORD_LIST,
    "TemporalExternalPayloadCount": _INT,
    "TemporalExternalPayloadSizeBytes": _INT,
}

PREDEFINED_TYPES: Final[Mapping[str, int]] = {**_OPEN_TYPES, **_SERVER_SET_TYPES}
"""What every namespace has without registering it, stored like custom attributes. Not all of it may be set."""

_UNSETTABLE: Final = SYSTEM_TYPES.keys() | _SERVER_SET_TYPES.keys()
_INT64: Final = range(-(2**63), 2**63)
_DOUBLE_END: Final = 2**1024
_RFC_3339: Final = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2})(\.[0-9]+)?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
)

Json = bool | int | float | str | None | list["Json"] | dict[str, "Json"]


def check_search_attributes(
    search_attributes: SearchAttributes, custom: Mapping[str, int], limits: Limits, *, namespace: str
) -> None:
    """Refuse search attributes of a request that are not defined, of another type, or too large.

    Args:
        search_attributes: What the request sets.
        custom: The namespace's custom search attributes: name to `IndexedValueType`.
        limits: The limits of the namespace.
        namespace: Its name, for the message.

    Raises:
        InvalidArgument: With the attribute that is wrong.
    """
    check_names_defined(search_attributes, custom, namespace=namespace)
    check_values(search_attributes, custom, limits)
    check_search_attributes_size(search_attributes, limits)


def normalize_search_attributes(
    search_attributes: SearchAttributes, custom: Mapping[str, int], limits: Limits, *, namespace: str
) -> SearchAttributes:
    """Check the search attributes of a request and return those a run starts with: typed, and without removals."""
    check_search_attributes(search_attributes, custom, limits, namespace=namespace)
    typed = typed_search_attributes(search_attributes, custom)
    return SearchAttributes(indexed_fields=without_removals(typed.indexed_fields))


def check_names_defined(search_attributes: SearchAttributes, custom: Mapping[str, int], *, namespace: str) -> None:
    """Refuse names that are neither built in nor registered. Raises InvalidArgument."""
    for name in search_attributes.indexed_fields:
        if name not in custom and name not in PREDEFINED_TYPES and name not in SYSTEM_TYPES:
            raise InvalidArgument(f"Namespace {namespace} has no mapping defined for search attribute {name}")


def check_values(search_attributes: SearchAttributes, custom: Mapping[str, int], limits: Limits) -> None:
    """Refuse too many attributes, built-in ones and values of another type. Raises InvalidArgument."""
    fields = search_attributes.indexed_fields
    if len(fields) > limits.search_attributes_count:
        raise InvalidArgument(
            f"number of search attributes {len(fields)} exceeds limit {limits.search_attributes_count}"
        )
    for name, payload in fields.items():
        if name in _UNSETTABLE:
            raise InvalidArgument(f"{name} attribute can't be set in SearchAttributes")
        value_type = type_of(name, custom)
        if value_type is None:
            raise InvalidArgument(f"search attribute {name} is not defined")
        if not _is_value(payload, value_type):
            raise InvalidArgument(
                f"invalid value for search attribute {name} of type {_type_name(value_type)}: {_shown(payload)}"
            )


def check_search_attributes_size(search_attributes: SearchAttributes, limits: Limits) -> None:
    """Refuse a value that is too large, or too much in all. Raises InvalidArgument."""
    for name, payload in search_attributes.indexed_fields.items():
        if len(payload.data) > limits.search_attribute_value_size:
            raise InvalidArgument(
                f"search attribute {name} value size {len(payload.data)} "
                f"exceeds size limit {limits.search_attribute_value_size}"
            )
    size = search_attributes.ByteSize()
    if size > limits.search_attributes_size:
        raise InvalidArgument(
            f"total size of search attributes {size} exceeds size limit {limits.search_attributes_size}"
        )


def typed_search_attributes(search_attributes: SearchAttributes, custom: Mapping[str, int]) -> SearchAttributes:
    """Return a copy in which every payload names its type in its metadata, as SDKs read it. A type it has stays."""
    typed = SearchAttributes()
    typed.CopyFrom(search_attributes)
    for name, payload in typed.indexed_fields.items():
        value_type = type_of(name, custom)
        if value_type is not None and "type" not in payload.metadata:
            payload.metadata["type"] = _type_name(value_type).encode()
    return typed


def type_of(name: str, custom: Mapping[str, int]) -> int | None:
    """Return the `IndexedValueType` of a custom or predefined search attribute, None if there is none of the name."""
    return custom.get(name, PREDEFINED_TYPES.get(name))


def _type_name(value_type: int) -> str:
    name = IndexedValueType.Name(cast("IndexedValueType.ValueType", value_type))
    return "".join(word.capitalize() for word in name.removeprefix("INDEXED_VALUE_TYPE_").split("_"))


# --- values -----------------------------------------------------------------------------------------------------------


def _is_value(payload: Payload, value_type: int) -> bool:
    encoding = payload.metadata.get("encoding", b"")
    if encoding == b"binary/null":
        return True
    if encoding != b"json/plain":
        return False
    try:
        value = _decoded(payload)
    except ValueError:
        return False
    if value is None:
        return True
    if not isinstance(value, list):
        return value_type != _KEYWORD_LIST and _is_single(value, value_type)
    element_type = _KEYWORD if value_type == _KEYWORD_LIST else value_type
    if value_type != _KEYWORD_LIST and len(value) > 1:
        return False
    return all(element is None or _is_single(element, element_type) for element in value)


def _decoded(payload: Payload) -> Json:
    """Return the JSON value of a payload. Raises ValueError if there is none, or one nested beyond all reason."""
    try:
        value: Json = msgspec.json.decode(payload.data)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    return value


def _is_single(value: Json, value_type: int) -> bool:
    match value_type:
        case IndexedValueType.INDEXED_VALUE_TYPE_BOOL:
            return isinstance(value, bool)
        case IndexedValueType.INDEXED_VALUE_TYPE_INT:
            return type(value) is int and value in _INT64
        case IndexedValueType.INDEXED_VALUE_TYPE_DOUBLE:
            return isinstance(value, float) or (type(value) is int and abs(value) < _DOUBLE_END)
        case IndexedValueType.INDEXED_VALUE_TYPE_DATETIME:
            return isinstance(value, str) and _is_time(value)
        case IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD | IndexedValueType.INDEXED_VALUE_TYPE_TEXT:
            return isinstance(value, str) and "\0" not in value
        case _:
            return False


def _is_time(text: str) -> bool:
    parts = _RFC_3339.fullmatch(text)
    if parts is None:
        return False
    try:
        datetime.fromisoformat(parts[1])
    except ValueError:
        return False
    return True


def _shown(payload: Payload) -> str:
    """Return a refused value as text for people."""
    if payload.metadata.get("encoding") == b"json/plain":
        with suppress(ValueError):
            return _shown_value(_decoded(payload))
    return f"value from <{MessageToString(payload, as_one_line=True)}>"


def _shown_value(value: Json) -> str:
    match value:
        case None:
            return "<nil>"
        case bool():
            return "true" if value else "false"
        case float():
            return str(int(value)) if value.is_integer() and abs(value) < 1e6 else str(value)
        case list():
            return "[" + " ".join(map(_shown_value, value)) + "]"
        case dict():
            return "map[" + " ".join(f"{name}:{_shown_value(value[name])}" for name in sorted(value)) + "]"
        case _:
            return str(value)
