"""The list filter language: what its queries mean, and what it says to those it does not have."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure.server.core.errors import InvalidArgument
from perdure.server.store.visibility.filter import (
    EVERYTHING,
    And,
    Attribute,
    Comparison,
    Filter,
    Not,
    Operator,
    Or,
    Value,
)
from perdure.server.store.visibility.parse import (
    MAX_COMPARISONS,
    MAX_NESTING,
    MAX_QUERY_CHARACTERS,
    ListQuery,
    parse_list_query,
)


def _is(attribute: Attribute, operator: Operator, *values: Value) -> Comparison:
    return Comparison(attribute, operator, values)


ID_IS_A = _is(Attribute.WORKFLOW_ID, Operator.EQUAL, "a")
TYPE_IS_T = _is(Attribute.WORKFLOW_TYPE, Operator.EQUAL, "T")
RUNNING = _is(Attribute.EXECUTION_STATUS, Operator.EQUAL, 1)
IS_OPEN = _is(Attribute.CLOSE_TIME, Operator.IS_NULL)
JANUARY = 1_577_836_800_000_000_000
"""2020-01-01T00:00:00Z."""


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", EVERYTHING),
        ("  \n ", EVERYTHING),
        ("WorkflowId = 'a'", ID_IS_A),
        ('WorkflowId = "a"', ID_IS_A),
        ("`WorkflowId` = 'a'", ID_IS_A),
        ("TemporalWorkflowId = 'a'", ID_IS_A),
        ("((WorkflowId = 'a'))", ID_IS_A),
        ("WorkflowId='it''s'", _is(Attribute.WORKFLOW_ID, Operator.EQUAL, "it's")),
        ('WorkflowId="it\'s"', _is(Attribute.WORKFLOW_ID, Operator.EQUAL, "it's")),
        (
            "WorkflowId = '日本; DROP TABLE run --'",
            _is(Attribute.WORKFLOW_ID, Operator.EQUAL, "日本; DROP TABLE run --"),
        ),
        ("WorkflowId != 'a'", _is(Attribute.WORKFLOW_ID, Operator.NOT_EQUAL, "a")),
        ("WorkflowId <> 'a'", _is(Attribute.WORKFLOW_ID, Operator.NOT_EQUAL, "a")),
        ("WorkflowId STARTS_WITH 'ord'", _is(Attribute.WORKFLOW_ID, Operator.STARTS_WITH, "ord")),
        ("workflowid_missing = 'a' OR WorkflowId = 'a'", None),
        ("WorkflowId NOT starts_with 'ord'", Not(_is(Attribute.WORKFLOW_ID, Operator.STARTS_WITH, "ord"))),
        ("RunId IN ('a', \"b\")", _is(Attribute.RUN_ID, Operator.IN, "a", "b")),
        ("RunId NOT IN ('a')", Not(_is(Attribute.RUN_ID, Operator.IN, "a"))),
        ("TaskQueue BETWEEN 'a' AND 'b'", _is(Attribute.TASK_QUEUE, Operator.BETWEEN, "a", "b")),
        ("ExecutionStatus = 'Running'", RUNNING),
        ("ExecutionStatus = 1", RUNNING),
        ("ExecutionStatus = 'WORKFLOW_EXECUTION_STATUS_RUNNING'", RUNNING),
        (
            "ExecutionStatus IN ('Completed', 'Failed', 'Canceled', 'Terminated', 'ContinuedAsNew', 'TimedOut')",
            _is(Attribute.EXECUTION_STATUS, Operator.IN, 2, 3, 4, 5, 6, 7),
        ),
        ("StartTime > '2020-01-01T00:00:00Z'", _is(Attribute.START_TIME, Operator.GREATER, JANUARY + 999)),
        ("StartTime >= '2020-01-01T02:00:00+02:00'", _is(Attribute.START_TIME, Operator.GREATER_OR_EQUAL, JANUARY)),
        ("StartTime < '2020-01-01T00:00:00.000000001Z'", _is(Attribute.START_TIME, Operator.LESS, JANUARY)),
        (
            "StartTime <= '2020-01-01T00:00:00.5Z'",
            _is(Attribute.START_TIME, Operator.LESS_OR_EQUAL, JANUARY + 500_000_999),
        ),
        (f"StartTime = {JANUARY}", _is(Attribute.START_TIME, Operator.BETWEEN, JANUARY, JANUARY + 999)),
        ("ExecutionTime > '0001-01-01T00:00:00Z'", _is(Attribute.EXECUTION_TIME, Operator.GREATER, -(2**63) + 999)),
        ("ExecutionTime < '9999-12-31T23:59:59Z'", _is(Attribute.EXECUTION_TIME, Operator.LESS, 2**63 - 808)),
        ("CloseTime IS NULL", IS_OPEN),
        ("CloseTime is not null", Not(IS_OPEN)),
        (
            "CloseTime NOT BETWEEN 5 AND '2020-01-01T00:00:00Z'",
            Not(_is(Attribute.CLOSE_TIME, Operator.BETWEEN, 0, JANUARY + 999)),
        ),
        ("HistoryLength > 100", _is(Attribute.HISTORY_LENGTH, Operator.GREATER, 100)),
        ("HistoryLength > -1", _is(Attribute.HISTORY_LENGTH, Operator.GREATER, -1)),
        ("HistorySizeBytes > 1", _is(Attribute.HISTORY_SIZE_BYTES, Operator.GREATER, 1)),
        ("StateTransitionCount = 7", _is(Attribute.STATE_TRANSITION_COUNT, Operator.EQUAL, 7)),
        ("ExecutionDuration > 1000", _is(Attribute.EXECUTION_DURATION, Operator.GREATER, 1_000)),
        ("ExecutionDuration > '1000'", _is(Attribute.EXECUTION_DURATION, Operator.GREATER, 1_000)),
        ("ExecutionDuration > '1h30m'", _is(Attribute.EXECUTION_DURATION, Operator.GREATER, 5_400_000_000_000)),
        ("ExecutionDuration > '-1.5s'", _is(Attribute.EXECUTION_DURATION, Operator.GREATER, -1_500_000_000)),
        ("ExecutionDuration > '01:00:01'", _is(Attribute.EXECUTION_DURATION, Operator.GREATER, 3_601_000_000_000)),
        ("ExecutionDuration > '2d'", _is(Attribute.EXECUTION_DURATION, Operator.GREATER, 172_800_000_000_000)),
        ("WorkflowId = 'a' AND WorkflowType = 'T'", And((ID_IS_A, TYPE_IS_T))),
        ("WorkflowId = 'a' and WorkflowType = 'T' and CloseTime is null", And((ID_IS_A, TYPE_IS_T, IS_OPEN))),
        ("WorkflowId = 'a' OR WorkflowType = 'T' AND CloseTime IS NULL", Or((ID_IS_A, And((TYPE_IS_T, IS_OPEN))))),
        ("(WorkflowId = 'a' OR WorkflowType = 'T') AND CloseTime IS NULL", And((Or((ID_IS_A, TYPE_IS_T)), IS_OPEN))),
        ("NOT WorkflowId = 'a'", Not(ID_IS_A)),
        ("NOT (WorkflowId = 'a' OR CloseTime IS NULL)", Not(Or((ID_IS_A, IS_OPEN)))),
    ],
)
def test_a_query_means(query: str, expected: Filter | None) -> None:
    if expected is None:
        with pytest.raises(InvalidArgument):
            parse_list_query(query)
        return
    assert parse_list_query(query) == ListQuery(expected, group_by_status=False)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("GROUP BY ExecutionStatus", EVERYTHING),
        ("group  by `ExecutionStatus`", EVERYTHING),
        ("WorkflowId = 'a' GROUP BY ExecutionStatus", ID_IS_A),
    ],
)
def test_a_count_may_be_grouped_by_status(query: str, expected: Filter) -> None:
    assert parse_list_query(query) == ListQuery(expected, group_by_status=True)


MALFORMED = "invalid query: malformed SQL query: "
UNSUPPORTED = "invalid query: operation is not supported: "
INVALID = "invalid query: invalid expression: "


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("WorkflowId =", MALFORMED),
        ("WorkflowId = 'a", MALFORMED),
        ("WorkflowId = 'a' OR", MALFORMED),
        ("WorkflowId IN ()", MALFORMED),
        ("StartTime BETWEEN 1", MALFORMED),
        ("WorkflowId = 'a') OR (WorkflowId = 'b'", MALFORMED),
        ("WorkflowId = 'a'; DROP TABLE run", MALFORMED),
        ("WorkflowId = 'a' UNION SELECT * FROM run", MALFORMED),
        ("WorkflowId = 'a' ORDER BY StartTime", UNSUPPORTED + "'ORDER BY' clause"),
        ("ORDER BY StartTime DESC", UNSUPPORTED + "'ORDER BY' clause"),
        ("WorkflowId = 'a' LIMIT 5", UNSUPPORTED + "'LIMIT' clause"),
        ("GROUP BY WorkflowType", UNSUPPORTED + "'GROUP BY' clause is only supported for ExecutionStatus"),
        ("GROUP BY ExecutionStatus, WorkflowType", UNSUPPORTED + "'GROUP BY' clause supports only a single field"),
        ("WorkflowId LIKE 'a%'", UNSUPPORTED),
        ("WorkflowId IN (SELECT 1)", MALFORMED),
        ("WorkflowId = a", UNSUPPORTED + "column name on the right side of comparison expression (did you forget to"),
        ("StartTime STARTS_WITH '2020'", UNSUPPORTED + "operator 'STARTS_WITH' not supported for Datetime type search"),
        ("ExecutionStatus > 'Running'", UNSUPPORTED + "operator '>' not supported for ExecutionStatus type search"),
        ("StartTime BETWEEN SYMMETRIC 2 AND 1", UNSUPPORTED + "'BETWEEN SYMMETRIC'"),
        ("Customer = 'a'", INVALID + "column name 'Customer' is not a valid search attribute"),
        ("workflowid = 'a'", INVALID + "column name 'workflowid' is not a valid search attribute"),
        ("run.WorkflowId = 'a'", INVALID + "column name 'run.WorkflowId' is not a valid search attribute"),
        ("WorkflowId", INVALID + "incomplete expression"),
        ("1 = 1", INVALID + "must be a column name"),
        ("lower(WorkflowId) = 'a'", INVALID + "must be a column name"),
        ("CloseTime IS TRUE", INVALID + "'IS' operator can only be used with 'NULL' or 'NOT NULL'"),
        ("ExecutionStatus = 'running'", INVALID + "invalid ExecutionStatus value 'running'"),
        ("ExecutionStatus = 99", INVALID + "invalid ExecutionStatus value 99"),
        ("StartTime > 'yesterday'", INVALID + "unable to parse datetime 'yesterday'"),
        ("StartTime > '2020-01-01'", INVALID + "unable to parse datetime '2020-01-01'"),
        ("StartTime > '2020-13-01T00:00:00Z'", INVALID + "unable to parse datetime"),
        ("ExecutionDuration > 'long'", INVALID + "invalid duration value for search attribute ExecutionDuration: long"),
        ("HistoryLength > 'x'", INVALID + "invalid value type for search attribute HistoryLength of type Int"),
        ("HistoryLength > 1.5", INVALID + "invalid value type for search attribute HistoryLength of type Int"),
        ("HistoryLength > 9223372036854775808", INVALID + "unable to parse value"),
        ("WorkflowId = 5", INVALID + "invalid value type for search attribute WorkflowId of type Keyword"),
        ("WorkflowId = 'a\0b'", INVALID + "unable to parse value"),
        ("WorkflowId = TRUE", INVALID + "unexpected value type"),
        ("WorkflowId = ?", INVALID + "unexpected value type"),
    ],
)
def test_a_query_is_refused_with_its_reason(query: str, message: str) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        parse_list_query(query)
    assert refusal.value.message.startswith(message)


def test_a_query_may_be_large_up_to_its_limits() -> None:
    most = parse_list_query(" OR ".join(["WorkflowId = 'a'"] * MAX_COMPARISONS))
    assert isinstance(most.filter, Or)
    assert len(most.filter.filters) == MAX_COMPARISONS
    parse_list_query("NOT " * (MAX_NESTING - 1) + "WorkflowId = 'a'")
    parse_list_query(f"WorkflowId = '{'a' * (MAX_QUERY_CHARACTERS - 15)}'")


@pytest.mark.parametrize(
    "query",
    [
        " OR ".join(["WorkflowId = 'a'"] * (MAX_COMPARISONS + 1)),
        f"StartTime IN ({', '.join(['1'] * (MAX_COMPARISONS + 1))})",
        "NOT " * (MAX_NESTING + 1) + "WorkflowId = 'a'",
        "(" * 5_000 + "WorkflowId = 'a'" + ")" * 5_000,
        f"WorkflowId = '{'a' * MAX_QUERY_CHARACTERS}'",
    ],
    ids=["comparisons", "times in a list", "nesting", "parentheses", "characters"],
)
def test_a_query_beyond_its_limits_is_refused(query: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid query"):
        parse_list_query(query)


WORDS = st.sampled_from(
    [
        "WorkflowId",
        "StartTime",
        "CloseTime",
        "ExecutionStatus",
        "=",
        "!=",
        "<",
        "IN",
        "NOT",
        "(",
        ")",
        ",",
        "'a'",
        "'Running'",
        "5",
        "AND",
        "OR",
        "BETWEEN",
        "IS",
        "NULL",
        "STARTS_WITH",
        "GROUP",
        "BY",
        "ORDER",
        "`",
        '"',
        "'",
        ";",
        "--",
        "/*",
        "SELECT",
        "CASE",
        "WHEN",
        "FROM",
        ":a",
        "?",
        ".",
        "*",
        "\\",
        "[",
        "]",
        "{",
        "}",
    ]
)


@settings(max_examples=150, deadline=None)
@given(st.one_of(st.text(max_size=40), st.lists(WORDS, max_size=12).map(" ".join)))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        assert isinstance(parse_list_query(text), ListQuery)
    except InvalidArgument as refusal:
        assert refusal.message.startswith("invalid query: ")


def test_the_parser_is_not_imported_before_the_first_query() -> None:
    script = (
        "import sys, perdure.server.store.visibility.parse as parse\n"
        "assert 'sqlglot' not in sys.modules\n"
        "parse.parse_list_query('')\n"
        "assert 'sqlglot' not in sys.modules\n"
        "parse.parse_list_query(\"WorkflowId = 'a'\")\n"
        "assert 'sqlglot' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
