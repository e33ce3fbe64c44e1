"""A time that was listed finds its run again, though runs keep nanoseconds and listings microseconds."""

from __future__ import annotations

import pytest

from perdure.server.store.visibility.filter import Attribute, Comparison, Operator, matches
from perdure.server.store.visibility.precision import to_the_microsecond, truncated
from tests.server.store import rows

STARTED_AT = 1_600_000_000_123_456_789


def _matches(operator: Operator, *values: int) -> bool:
    run = rows.run("run", "workflow", started_at=STARTED_AT)
    return matches(to_the_microsecond(Comparison(Attribute.START_TIME, operator, values)), run)


@pytest.mark.parametrize("at", [STARTED_AT, truncated(STARTED_AT)])
def test_the_listed_time_is_the_time(at: int) -> None:
    assert _matches(Operator.EQUAL, at)
    assert _matches(Operator.IN, 5, at)
    assert _matches(Operator.BETWEEN, at, at)
    assert _matches(Operator.GREATER_OR_EQUAL, at)
    assert _matches(Operator.LESS_OR_EQUAL, at)
    assert not _matches(Operator.NOT_EQUAL, at)
    assert not _matches(Operator.GREATER, at)
    assert not _matches(Operator.LESS, at)


@pytest.mark.parametrize(("at", "is_after"), [(STARTED_AT - 1_000, True), (STARTED_AT + 1_000, False)])
def test_the_next_microsecond_is_another_time(at: int, is_after: bool) -> None:
    assert _matches(Operator.GREATER, at) is is_after
    assert _matches(Operator.LESS, at) is not is_after
    assert not _matches(Operator.EQUAL, at)
    assert _matches(Operator.NOT_EQUAL, at)


@pytest.mark.parametrize("at", [-(2**63), 2**63 - 1])
def test_the_ends_of_time_stay_within_64_bits(at: int) -> None:
    for operator in (Operator.EQUAL, Operator.LESS, Operator.GREATER, Operator.LESS_OR_EQUAL):
        filter = to_the_microsecond(Comparison(Attribute.START_TIME, operator, (at,)))
        assert isinstance(filter, Comparison)
        assert all(isinstance(value, int) and -(2**63) <= value < 2**63 for value in filter.values)


def test_other_attributes_are_compared_as_they_are() -> None:
    comparison = Comparison(Attribute.HISTORY_LENGTH, Operator.EQUAL, (5,))
    assert to_the_microsecond(comparison) is comparison
