"""The list filter as a tree: which runs of a namespace a listing or a count speaks of.

A small closed set of nodes. The parser makes it from a query, handlers make it directly, a store translates it to SQL,
and `matches` is its meaning on one run: every store must agree with it. As in SQL there is a third truth value: a
comparison with an attribute that has no value (the close time of an open run) is neither true nor false, its negation
neither, and only a filter that is true matches.

This module must never see a query's text, SQL or a database.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import TYPE_CHECKING, TypeAlias, assert_never

import msgspec

if TYPE_CHECKING:
    from perdure.server.core.records import RunRecord

Value: TypeAlias = str | int


class ValueType(Enum):
    """How the values of an attribute are written in a query and compared."""

    KEYWORD = "Keyword"
    """Text, compared by code point."""
    STATUS = "ExecutionStatus"
    """A `WorkflowExecutionStatus` as an integer; it has no order."""
    DATETIME = "Datetime"
    """Nanoseconds since the epoch."""
    DURATION = "Duration"
    """Nanoseconds."""
    INT = "Int"


class Attribute(Enum):
    """The built-in search attributes, by the names queries use."""

    WORKFLOW_ID = "WorkflowId"
    RUN_ID = "RunId"
    WORKFLOW_TYPE = "WorkflowType"
    TASK_QUEUE = "TaskQueue"
    EXECUTION_STATUS = "ExecutionStatus"
    START_TIME = "StartTime"
    EXECUTION_TIME = "ExecutionTime"
    CLOSE_TIME = "CloseTime"
    EXECUTION_DURATION = "ExecutionDuration"
    """Close time less execution time; an open run has none."""
    HISTORY_LENGTH = "HistoryLength"
    HISTORY_SIZE_BYTES = "HistorySizeBytes"
    STATE_TRANSITION_COUNT = "StateTransitionCount"


VALUE_TYPES: Mapping[Attribute, ValueType] = {
    Attribute.WORKFLOW_ID: ValueType.KEYWORD,
    Attribute.RUN_ID: ValueType.KEYWORD,
    Attribute.WORKFLOW_TYPE: ValueType.KEYWORD,
    Attribute.TASK_QUEUE: ValueType.KEYWORD,
    Attribute.EXECUTION_STATUS: ValueType.STATUS,
    Attribute.START_TIME: ValueType.DATETIME,
    Attribute.EXECUTION_TIME: ValueType.DATETIME,
    Attribute.CLOSE_TIME: ValueType.DATETIME,
    Attribute.EXECUTION_DURATION: ValueType.DURATION,
    Attribute.HISTORY_LENGTH: ValueType.INT,
    Attribute.HISTORY_SIZE_BYTES: ValueType.INT,
    Attribute.STATE_TRANSITION_COUNT: ValueType.INT,
}


class Operator(Enum):
    """How an attribute is compared; the comment says how many values go with it. Negations are a `Not` around it."""

    EQUAL = "="  # one
    NOT_EQUAL = "!="  # one
    GREATER = ">"  # one
    GREATER_OR_EQUAL = ">="  # one
    LESS = "<"  # one
    LESS_OR_EQUAL = "<="  # one
    IN = "IN"  # one or more
    BETWEEN = "BETWEEN"  # two, both inclusive
    STARTS_WITH = "STARTS_WITH"  # one
    IS_NULL = "IS NULL"  # none


class Everything(msgspec.Struct, frozen=True):
    """Matches every run."""


class Comparison(msgspec.Struct, frozen=True):
    """Compares one attribute; the values are of the attribute's type and as many as the operator takes."""

    attribute: Attribute
    operator: Operator
    values: tuple[Value, ...] = ()


class And(msgspec.Struct, frozen=True):
    """Matches where all of its filters do."""

    filters: tuple[Filter, ...]


class Or(msgspec.Struct, frozen=True):
    """Matches where one of its filters does."""

    filters: tuple[Filter, ...]


class Not(msgspec.Struct, frozen=True):
    """Matches where its filter is false (not where it is neither true nor false)."""

    filter: Filter


Filter: TypeAlias = Everything | Comparison | And | Or | Not

EVERYTHING = Everything()


def matches(filter: Filter, run: RunRecord) -> bool:
    """Say whether a run is one of those the filter speaks of."""
    return _truth(filter, run) is True


def _truth(filter: Filter, run: RunRecord) -> bool | None:
    match filter:
        case Everything():
            return True
        case Comparison():
            return _compare(filter, _ATTRIBUTE_OF_RUN[filter.attribute](run))
        case And():
            truths = [_truth(part, run) for part in filter.filters]
            return False if False in truths else None if None in truths else True
        case Or():
            truths = [_truth(part, run) for part in filter.filters]
            return True if True in truths else None if None in truths else False
        case Not():
            truth = _truth(filter.filter, run)
            return None if truth is None else not truth
        case _:
            assert_never(filter)


def _compare(comparison: Comparison, actual: Value | None) -> bool | None:
    operator = comparison.operator
    if operator is Operator.IS_NULL:
        return actual is None
    if actual is None:
        return None
    if isinstance(actual, str):
        return _COMPARE_TEXT[operator](actual, [str(value) for value in comparison.values])
    return _COMPARE_INT[operator](actual, [int(value) for value in comparison.values])


_COMPARE_TEXT: Mapping[Operator, Callable[[str, list[str]], bool]] = {
    Operator.EQUAL: lambda actual, values: actual == values[0],
    Operator.NOT_EQUAL: lambda actual, values: actual != values[0],
    Operator.GREATER: lambda actual, values: actual > values[0],
    Operator.GREATER_OR_EQUAL: lambda actual, values: actual >= values[0],
    Operator.LESS: lambda actual, values: actual < values[0],
    Operator.LESS_OR_EQUAL: lambda actual, values: actual <= values[0],
    Operator.IN: lambda actual, values: actual in values,
    Operator.BETWEEN: lambda actual, values: values[0] <= actual <= values[1],
    Operator.STARTS_WITH: lambda actual, values: actual.startswith(values[0]),
}

_COMPARE_INT: Mapping[Operator, Callable[[int, list[int]], bool]] = {
    Operator.EQUAL: lambda actual, values: actual == values[0],
    Operator.NOT_EQUAL: lambda actual, values: actual != values[0],
    Operator.GREATER: lambda actual, values: actual > values[0],
    Operator.GREATER_OR_EQUAL: lambda actual, values: actual >= values[0],
    Operator.LESS: lambda actual, values: actual < values[0],
    Operator.LESS_OR_EQUAL: lambda actual, values: actual <= values[0],
    Operator.IN: lambda actual, values: actual in values,
    Operator.BETWEEN: lambda actual, values: values[0] <= actual <= values[1],
}

_ATTRIBUTE_OF_RUN: Mapping[Attribute, Callable[[RunRecord], Value | None]] = {
    Attribute.WORKFLOW_ID: lambda run: run.workflow_id,
    Attribute.RUN_ID: lambda run: run.run_id,
    Attribute.WORKFLOW_TYPE: lambda run: run.workflow_type,
    Attribute.TASK_QUEUE: lambda run: run.task_queue,
    Attribute.EXECUTION_STATUS: lambda run: run.status,
    Attribute.START_TIME: lambda run: run.started_at,
    Attribute.EXECUTION_TIME: lambda run: run.execution_at,
    Attribute.CLOSE_TIME: lambda run: run.closed_at,
    Attribute.EXECUTION_DURATION: lambda run: None if run.closed_at is None else run.closed_at - run.execution_at,
    Attribute.HISTORY_LENGTH: lambda run: run.next_event_id - 1,
    Attribute.HISTORY_SIZE_BYTES: lambda run: run.history_size_bytes,
    Attribute.STATE_TRANSITION_COUNT: lambda run: run.transition_count,
}
