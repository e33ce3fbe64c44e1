"""The list filter as SQL, the same text for every database but for its placeholders.

What the filter means is said by `filter.matches`, and this translation agrees with it. What a caller wrote enters the
text as parameters only, so every question mark in it is a placeholder. Text must compare by code point.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import assert_never

from perdure.server.store.visibility.filter import (
    And,
    Attribute,
    Comparison,
    Everything,
    Filter,
    Not,
    Operator,
    Or,
    Value,
)

_COLUMN_OF: Mapping[Attribute, str] = {
    Attribute.WORKFLOW_ID: "workflow_id",
    Attribute.RUN_ID: "run_id",
    Attribute.WORKFLOW_TYPE: "workflow_type",
    Attribute.TASK_QUEUE: "task_queue",
    Attribute.EXECUTION_STATUS: "status",
    Attribute.START_TIME: "started_at",
    Attribute.EXECUTION_TIME: "execution_at",
    Attribute.CLOSE_TIME: "closed_at",
    Attribute.EXECUTION_DURATION: "(closed_at - execution_at)",
    Attribute.HISTORY_LENGTH: "(next_event_id - 1)",
    Attribute.HISTORY_SIZE_BYTES: "history_size_bytes",
    Attribute.STATE_TRANSITION_COUNT: "transition_count",
}


def translate(filter: Filter) -> tuple[str, tuple[Value, ...]]:
    """Return the condition, fit to stand between ANDs, and its parameters in order."""
    match filter:
        case Everything():
            return "TRUE", ()
        case Comparison():
            return _translate_comparison(filter)
        case And():
            return _join(" AND ", filter.filters, "TRUE")
        case Or():
            return _join(" OR ", filter.filters, "FALSE")
        case Not():
            condition, parameters = translate(filter.filter)
            return f"NOT ({condition})", parameters
        case _:
            assert_never(filter)


def _join(word: str, filters: tuple[Filter, ...], empty: str) -> tuple[str, tuple[Value, ...]]:
    parts = [translate(part) for part in filters]
    condition = word.join(condition for condition, _ in parts) or empty
    return f"({condition})", tuple(value for _, values in parts for value in values)


def _translate_comparison(comparison: Comparison) -> tuple[str, tuple[Value, ...]]:
    column, values = _COLUMN_OF[comparison.attribute], comparison.values
    match comparison.operator:
        case Operator.IS_NULL:
            return f"{column} IS NULL", ()
        case Operator.IN:
            return f"{column} IN ({', '.join('?' * len(values))})", values
        case Operator.BETWEEN:
            return f"({column} BETWEEN ? AND ?)", values
        case Operator.STARTS_WITH:
            return _starts_with(column, str(values[0]))
        case operator:
            return f"{column} {operator.value} ?", values


def _starts_with(column: str, prefix: str) -> tuple[str, tuple[Value, ...]]:
    """Say it as a range, which an index serves and LIKE's case folding and wildcards do not touch."""
    end = _least_text_after(prefix)
    if end is None:
        return f"({column} >= ?)", (prefix,)
    return f"({column} >= ? AND {column} < ?)", (prefix, end)


def _least_text_after(prefix: str) -> str | None:
    """Return the least text above all that begin with the prefix; None where there is none."""
    last_code_point, before_surrogates, after_surrogates = "\U0010ffff", "\ud7ff", "\ue000"
    kept = prefix.rstrip(last_code_point)
    if not kept:
        return None
    last = kept[-1]
    return kept[:-1] + (after_surrogates if last == before_surrogates else chr(ord(last) + 1))
