"""Listings speak of times to the microsecond, so filters compare them to the microsecond.

Runs keep nanoseconds, and many clients cannot: a time that was listed, or read by a client with microseconds, has to
find its run again.
"""

from __future__ import annotations

from typing import Final, assert_never

from perdure.server.store.visibility.filter import VALUE_TYPES, Comparison, Filter, Not, Operator, Or, Value, ValueType

_MICROSECOND: Final = 1_000
_LEAST: Final = -(2**63)
_GREATEST: Final = 2**63 - 1
"""Stores hold 64 bits."""


def truncated(at: int) -> int:
    """Return a time in nanoseconds, cut to its microsecond."""
    return at - at % _MICROSECOND


def to_the_microsecond(comparison: Comparison) -> Filter:
    """Return the filter that means the comparison for whole microseconds, where it compares a time."""
    if VALUE_TYPES[comparison.attribute] is not ValueType.DATETIME:
        return comparison
    attribute, operator, values = comparison.attribute, comparison.operator, comparison.values
    match operator:
        case Operator.EQUAL:
            return Comparison(attribute, Operator.BETWEEN, (_first(values[0]), _last(values[0])))
        case Operator.NOT_EQUAL:
            return Not(Comparison(attribute, Operator.BETWEEN, (_first(values[0]), _last(values[0]))))
        case Operator.IN:
            return Or(tuple(Comparison(attribute, Operator.BETWEEN, (_first(each), _last(each))) for each in values))
        case Operator.BETWEEN:
            return Comparison(attribute, operator, (_first(values[0]), _last(values[1])))
        case Operator.GREATER | Operator.LESS_OR_EQUAL:
            return Comparison(attribute, operator, (_last(values[0]),))
        case Operator.LESS | Operator.GREATER_OR_EQUAL:
            return Comparison(attribute, operator, (_first(values[0]),))
        case Operator.STARTS_WITH | Operator.IS_NULL:
            return comparison
        case _:
            assert_never(operator)


def _first(value: Value) -> int:
    assert isinstance(value, int), "times are integers"
    return max(truncated(value), _LEAST)


def _last(value: Value) -> int:
    return min(_first(value) + _MICROSECOND - 1, _GREATEST)
