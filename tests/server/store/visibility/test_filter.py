"""The meaning of a filter on one run: the reference that every store's listing is compared with."""

from __future__ import annotations

import pytest

from perdure.server.store.visibility.filter import (
    EVERYTHING,
    VALUE_TYPES,
    And,
    Attribute,
    Comparison,
    Filter,
    Not,
    Operator,
    Or,
    matches,
)
from tests.server.store import rows

RUN = rows.run("order-17", "r", started_at=20, status=rows.RUNNING, next_event_id=12)
TRUE = EVERYTHING
FALSE = Not(EVERYTHING)
NEITHER = Comparison(Attribute.CLOSE_TIME, Operator.GREATER, (5,))
"""The run is open, so its close time has no value."""


@pytest.mark.parametrize(
    ("operator", "values", "expected"),
    [
        (Operator.EQUAL, (20,), True),
        (Operator.EQUAL, (21,), False),
        (Operator.NOT_EQUAL, (21,), True),
        (Operator.NOT_EQUAL, (20,), False),
        (Operator.GREATER, (19,), True),
        (Operator.GREATER, (20,), False),
        (Operator.GREATER_OR_EQUAL, (20,), True),
        (Operator.GREATER_OR_EQUAL, (21,), False),
        (Operator.LESS, (21,), True),
        (Operator.LESS, (20,), False),
        (Operator.LESS_OR_EQUAL, (20,), True),
        (Operator.LESS_OR_EQUAL, (19,), False),
        (Operator.IN, (1, 20), True),
        (Operator.IN, (1, 2), False),
        (Operator.BETWEEN, (20, 20), True),
        (Operator.BETWEEN, (21, 19), False),
        (Operator.IS_NULL, (), False),
    ],
)
def test_integers_compare(operator: Operator, values: tuple[int, ...], expected: bool) -> None:
    assert matches(Comparison(Attribute.START_TIME, operator, values), RUN) is expected


@pytest.mark.parametrize(
    ("operator", "values", "expected"),
    [
        (Operator.EQUAL, ("order-17",), True),
        (Operator.EQUAL, ("ORDER-17",), False),
        (Operator.STARTS_WITH, ("order-",), True),
        (Operator.STARTS_WITH, ("rder",), False),
        (Operator.GREATER, ("order",), True),
        (Operator.IN, ("order-1", "order-17"), True),
        (Operator.BETWEEN, ("order-0", "order-2"), True),
    ],
)
def test_keywords_compare_by_code_point(operator: Operator, values: tuple[str, ...], expected: bool) -> None:
    assert matches(Comparison(Attribute.WORKFLOW_ID, operator, values), RUN) is expected


@pytest.mark.parametrize(
    ("filter", "expected"),
    [
        (NEITHER, False),
        (Not(NEITHER), False),
        (And((TRUE, NEITHER)), False),
        (Not(And((TRUE, NEITHER))), False),
        (Not(And((FALSE, NEITHER))), True),
        (Or((TRUE, NEITHER)), True),
        (Not(Or((FALSE, NEITHER))), False),
        (And(()), True),
        (Or(()), False),
        (Not(Not(TRUE)), True),
        (Comparison(Attribute.CLOSE_TIME, Operator.IS_NULL), True),
        (Not(Comparison(Attribute.CLOSE_TIME, Operator.IS_NULL)), False),
    ],
)
def test_what_has_no_value_is_neither_true_nor_false(filter: Filter, expected: bool) -> None:
    assert matches(filter, RUN) is expected


def test_the_history_length_of_an_open_run_is_its_present_one() -> None:
    assert matches(Comparison(Attribute.HISTORY_LENGTH, Operator.EQUAL, (11,)), RUN)


@pytest.mark.parametrize("attribute", Attribute)
def test_every_attribute_has_a_type_and_a_value(attribute: Attribute) -> None:
    closed = rows.run("w", "r", closed_at=rows.START)
    assert attribute in VALUE_TYPES
    assert matches(Not(Comparison(attribute, Operator.IS_NULL)), closed)
