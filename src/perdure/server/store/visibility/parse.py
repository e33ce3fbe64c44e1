"""The list filter language: a query's text to a filter.

The language is that of Temporal's `query` fields: the WHERE clause of a SELECT, without the word, and GROUP BY
ExecutionStatus for counts. A SQL parser makes the tree; only the nodes named here are taken from it, and anything else
is refused, so nothing of a query's text ever reaches a database as SQL. Messages follow Temporal's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Final

import msgspec

from perdure.server.core.errors import InvalidArgument
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
    Value,
    ValueType,
)
from perdure.server.store.visibility.precision import to_the_microsecond
from perdure.server.store.visibility.values import parse_number, parse_text

# sqlglot takes a tenth of a second to import, and a server must answer within half a second of its start: it is
# imported by the functions that use it, with the first query.
if TYPE_CHECKING:
    from sqlglot import exp
    from sqlglot.dialects.dialect import Dialect

MAX_QUERY_CHARACTERS: Final = 50_000
MAX_COMPARISONS: Final = 500
MAX_NESTING: Final = 20
"""Levels of NOT, AND within OR and the like. What these three let pass fits any supported database."""


class ListQuery(msgspec.Struct, frozen=True):
    """What a query asks for."""

    filter: Filter
    group_by_status: bool


def parse_list_query(query: str) -> ListQuery:
    """Parse a list filter. An empty query matches everything.

    Raises:
        InvalidArgument: The query is malformed, too large, or says what the language does not have.
    """
    text = query.strip()
    if not text:
        return ListQuery(EVERYTHING, group_by_status=False)
    if len(text) > MAX_QUERY_CHARACTERS:
        raise _refusal(f"it has {len(text)} characters, {MAX_QUERY_CHARACTERS} are allowed")
    try:
        return _read_select(_parse_select(text))
    except RecursionError:
        raise _refusal("it is nested too deeply") from None


def _refusal(reason: str) -> InvalidArgument:
    return InvalidArgument(f"invalid query: {reason}")


def _malformed(reason: str) -> InvalidArgument:
    return _refusal(f"malformed SQL query: {reason}")


def _unsupported(what: str) -> InvalidArgument:
    return _refusal(f"operation is not supported: {what}")


def _invalid(reason: str) -> InvalidArgument:
    return _refusal(f"invalid expression: {reason}")


@cache
def _dialect() -> Dialect:
    from sqlglot.dialects.dialect import Dialect
    from sqlglot.tokens import Tokenizer as BaseTokenizer

    class ListFilterDialect(Dialect):
        """Names in back quotes, text in single or double quotes, and STARTS_WITH as an operator."""

        class Tokenizer(BaseTokenizer):
            QUOTES = ["'", '"']
            IDENTIFIERS = ["`"]
            STRING_ESCAPES = ["'", '"', "\\"]
            # The parser knows GLOB as an operator between a name and a text; this language has STARTS_WITH there.
            KEYWORDS = {
                **{word: token for word, token in BaseTokenizer.KEYWORDS.items() if word != "GLOB"},
                "STARTS_WITH": BaseTokenizer.KEYWORDS["GLOB"],
            }

    return ListFilterDialect()


def _parse_select(text: str) -> exp.Select:
    from sqlglot import exp
    from sqlglot.errors import ParseError, TokenError

    clause = text if re.match(r"(order|group)\s+by\b", text, re.IGNORECASE) else f"WHERE {text}"
    try:
        statements = _dialect().parse(f"SELECT * FROM run {clause}")  # noqa: S608 - parsed, never executed
    except ParseError as error:
        near = next((found.get("highlight") for found in error.errors), "")
        raise _malformed(f"syntax error near {near!r}") from error
    except TokenError as error:
        raise _malformed("a quote is not closed") from error
    if len(statements) != 1 or not isinstance(statements[0], exp.Select):
        raise _malformed("it is not a single condition")
    return statements[0]


def _read_select(select: exp.Select) -> ListQuery:
    clauses = {name for name, value in select.args.items() if value} - {"expressions", "from", "from_", "where"}
    if "order" in clauses:
        raise _unsupported("'ORDER BY' clause")
    if clauses - {"group"}:
        raise _unsupported(f"'{sorted(clauses - {'group'})[0].rstrip('_').upper()}' clause")
    where = select.args.get("where")
    found = _Reader().read(where.this, 0) if where else EVERYTHING
    return ListQuery(found, group_by_status="group" in clauses and _groups_by_status(select.args["group"]))


def _groups_by_status(group: exp.Group) -> bool:
    if len(group.expressions) != 1 or any(value for name, value in group.args.items() if name != "expressions"):
        raise _unsupported("'GROUP BY' clause supports only a single field")
    if _attribute(group.expressions[0]) is not Attribute.EXECUTION_STATUS:
        raise _unsupported("'GROUP BY' clause is only supported for ExecutionStatus")
    return True


class _Reader:
    """Takes the filter out of the parser's tree and counts what it holds."""

    def __init__(self) -> None:
        self._comparisons = 0

    def read(self, node: exp.Expression, depth: int) -> Filter:
        """Return the filter of a condition that stands at a depth of nesting."""
        from sqlglot import exp

        if depth > MAX_NESTING:
            raise _refusal(f"it is nested deeper than {MAX_NESTING} levels")
        match node:
            case exp.Paren():
                return self.read(node.this, depth)
            case exp.Not():
                return Not(self.read(node.this, depth + 1))
            case exp.And():
                return And(tuple(self.read(part, depth + 1) for part in _parts(node, exp.And)))
            case exp.Or():
                return Or(tuple(self.read(part, depth + 1) for part in _parts(node, exp.Or)))
        found = _read_comparison(node)
        # A list of times is a comparison for each of them.
        self._comparisons += len(found.filters) if isinstance(found, Or) else 1
        if self._comparisons > MAX_COMPARISONS:
            raise _refusal(f"it has more than {MAX_COMPARISONS} comparisons")
        return found


def _parts(node: exp.Expression, kind: type[exp.Expression]) -> list[exp.Expression]:
    """Return what a chain of one connective joins; the parser hangs each link on the left of the next."""
    parts: list[exp.Expression] = []
    while isinstance(node, kind):
        parts.append(node.args["expression"])
        node = node.this
    return [node, *reversed(parts)]


@cache
def _binary_operators() -> Mapping[type[exp.Expression], Operator]:
    from sqlglot import exp

    return {
        exp.EQ: Operator.EQUAL,
        exp.NEQ: Operator.NOT_EQUAL,
        exp.GT: Operator.GREATER,
        exp.GTE: Operator.GREATER_OR_EQUAL,
        exp.LT: Operator.LESS,
        exp.LTE: Operator.LESS_OR_EQUAL,
        exp.Glob: Operator.STARTS_WITH,
    }


def _read_comparison(node: exp.Expression) -> Filter:
    from sqlglot import exp

    if isinstance(node, exp.Column):
        raise _invalid("incomplete expression")
    operands: Sequence[exp.Expression]
    match node:
        case exp.In() if not node.expressions:
            raise _malformed("IN needs a list of values")
        case exp.In():
            operator, operands = Operator.IN, node.expressions
        case exp.Between() if node.args.get("symmetric") is not None:
            raise _unsupported("'BETWEEN SYMMETRIC'")
        case exp.Between():
            operator, operands = Operator.BETWEEN, [node.args["low"], node.args["high"]]
        case exp.Is(expression=exp.Null()):
            operator, operands = Operator.IS_NULL, []
        case exp.Is():
            raise _invalid("'IS' operator can only be used with 'NULL' or 'NOT NULL'")
        case _ if type(node) in _binary_operators():
            operator, operands = _binary_operators()[type(node)], [node.args["expression"]]
        case _:
            raise _unsupported(f"expression of type {type(node).__name__}")
    attribute = _attribute(node.this)
    _check_operator(attribute, operator)
    values = tuple(_value(attribute, operand) for operand in operands)
    return to_the_microsecond(Comparison(attribute, operator, values))


def _attribute(node: exp.Expression) -> Attribute:
    from sqlglot import exp

    if not isinstance(node, exp.Column):
        raise _invalid(f"must be a column name but was {type(node).__name__}")
    name = ".".join(part.name for part in node.parts)
    for spelling in (name, name.removeprefix("Temporal")):
        if spelling in _ATTRIBUTES:
            return _ATTRIBUTES[spelling]
    raise _invalid(f"column name '{name}' is not a valid search attribute")


_ATTRIBUTES: Mapping[str, Attribute] = {attribute.value: attribute for attribute in Attribute}

_ANY_TYPE = frozenset({Operator.EQUAL, Operator.NOT_EQUAL, Operator.IN, Operator.IS_NULL})
_ORDERED = _ANY_TYPE | {
    Operator.GREATER,
    Operator.GREATER_OR_EQUAL,
    Operator.LESS,
    Operator.LESS_OR_EQUAL,
    Operator.BETWEEN,
}
_OPERATORS: Mapping[ValueType, frozenset[Operator]] = {
    ValueType.KEYWORD: _ORDERED | {Operator.STARTS_WITH},
    ValueType.STATUS: _ANY_TYPE,
    ValueType.DATETIME: _ORDERED,
    ValueType.DURATION: _ORDERED,
    ValueType.INT: _ORDERED,
}


def _check_operator(attribute: Attribute, operator: Operator) -> None:
    value_type = VALUE_TYPES[attribute]
    if operator not in _OPERATORS[value_type]:
        raise _unsupported(
            f"operator '{operator.value}' not supported for {value_type.value} type search attribute"
            f" '{attribute.value}'"
        )


def _value(attribute: Attribute, node: exp.Expression) -> Value:
    from sqlglot import exp

    try:
        match node:
            case exp.Literal() if node.is_string:
                return parse_text(attribute, node.name)
            case exp.Literal():
                return parse_number(attribute, node.name)
            case exp.Neg(this=exp.Literal() as number) if not number.is_string:
                return parse_number(attribute, f"-{number.name}")
    except ValueError as error:
        raise _invalid(str(error)) from error
    if isinstance(node, exp.Column):
        raise _unsupported(
            f"column name on the right side of comparison expression (did you forget to quote '{node.name}'?)"
        )
    raise _invalid(f"unexpected value type {type(node).__name__}")
