"""What of SQL may be told to CockroachDB: what its documentation lists, each with the page that does.

A statement is taken apart by a parser, and every part of it must be known here. So a part that nobody has looked up is
refused as much as one that is known to be missing there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache

from sqlglot import exp, parse_one
from sqlglot.errors import ParseError

DOCUMENTATION = "https://www.cockroachlabs.com/docs/v23.2/"
"""Where the pages are, in the oldest release that we work with."""

STATEMENTS: Mapping[type[exp.Expr], str] = {
    exp.Select: "select-clause",
    exp.Union: "selection-queries#set-operations",
    exp.Insert: "insert",
    exp.Update: "update",
    exp.Delete: "delete",
    exp.Create: "create-table",
    exp.Alter: "alter-table",
    exp.Set: "set-vars",
    exp.Transaction: "begin-transaction",
    exp.Commit: "commit-transaction",
    exp.Rollback: "rollback-transaction",
}

_SCALAR = "scalar-expressions"
_FUNCTIONS = "functions-and-operators"

PARTS: Mapping[type[exp.Expr], str] = {
    # Names and values.
    exp.Identifier: "keywords-and-identifiers",
    exp.Column: f"{_SCALAR}#column-references",
    exp.Literal: "sql-constants",
    exp.Null: "null-handling",
    exp.Boolean: "bool",
    exp.Interval: "interval",
    exp.Var: "interval",
    exp.Parameter: "sql-grammar#d_expr",
    exp.DataType: "data-types",
    exp.Cast: f"{_SCALAR}#explicit-type-coercions",
    # Expressions.
    exp.And: f"{_SCALAR}#logical-operators",
    exp.Or: f"{_SCALAR}#logical-operators",
    exp.Not: f"{_SCALAR}#logical-operators",
    exp.Add: f"{_SCALAR}#unary-and-binary-operations",
    exp.Sub: f"{_SCALAR}#unary-and-binary-operations",
    exp.Mul: f"{_SCALAR}#unary-and-binary-operations",
    exp.DPipe: f"{_SCALAR}#unary-and-binary-operations",
    exp.EQ: f"{_SCALAR}#value-comparisons",
    exp.NEQ: f"{_SCALAR}#value-comparisons",
    exp.LT: f"{_SCALAR}#value-comparisons",
    exp.LTE: f"{_SCALAR}#value-comparisons",
    exp.GT: f"{_SCALAR}#value-comparisons",
    exp.GTE: f"{_SCALAR}#value-comparisons",
    exp.Between: f"{_SCALAR}#value-comparisons",
    exp.Is: f"{_SCALAR}#value-comparisons",
    exp.Like: f"{_SCALAR}#string-pattern-matching",
    exp.In: f"{_SCALAR}#set-membership",
    exp.Case: f"{_SCALAR}#conditional-expressions",
    exp.If: f"{_SCALAR}#conditional-expressions",
    exp.Coalesce: f"{_SCALAR}#conditional-expressions",
    exp.Nullif: f"{_SCALAR}#conditional-expressions",
    exp.Any: f"{_SCALAR}#multi-valued-comparisons",
    exp.Exists: f"{_SCALAR}#existence-test-on-the-result-of-subqueries",
    exp.Array: f"{_SCALAR}#conversion-of-subquery-results-to-an-array",
    exp.Struct: f"{_SCALAR}#tuple-constructors",
    exp.Tuple: f"{_SCALAR}#tuple-constructors",
    exp.Paren: _SCALAR,
    # Functions.
    exp.Anonymous: _FUNCTIONS,
    exp.Count: f"{_FUNCTIONS}#aggregate-functions",
    exp.Max: f"{_FUNCTIONS}#aggregate-functions",
    exp.Min: f"{_FUNCTIONS}#aggregate-functions",
    exp.Sum: f"{_FUNCTIONS}#aggregate-functions",
    exp.ArrayAgg: f"{_FUNCTIONS}#aggregate-functions",
    exp.Filter: "select-clause#filter-columns-fed-into-aggregate-functions",
    exp.Greatest: f"{_FUNCTIONS}#comparison-functions",
    exp.RowNumber: f"{_FUNCTIONS}#window-functions",
    exp.Length: f"{_FUNCTIONS}#string-and-byte-functions",
    exp.SplitPart: f"{_FUNCTIONS}#string-and-byte-functions",
    exp.Unnest: f"{_FUNCTIONS}#set-returning-functions",
    exp.TimeToStr: f"{_FUNCTIONS}#string-and-byte-functions",
    exp.IntDiv: f"{_FUNCTIONS}#math-and-numeric-functions",
    exp.ExplodingGenerateSeries: f"{_FUNCTIONS}#set-returning-functions",
    exp.CurrentTimestamp: f"{_FUNCTIONS}#date-and-time-functions",
    exp.Extract: f"{_FUNCTIONS}#date-and-time-functions",
    exp.CurrentVersion: f"{_FUNCTIONS}#system-info-functions",
    exp.CurrentSchema: f"{_FUNCTIONS}#system-info-functions",
    # What queries are made of.
    exp.Star: "select-clause",
    exp.Alias: "select-clause",
    exp.From: "select-clause",
    exp.Where: "select-clause",
    exp.Group: "select-clause",
    exp.Having: "select-clause",
    exp.Table: "table-expressions#table-and-view-names",
    exp.TableAlias: "table-expressions#aliased-table-expressions",
    exp.Subquery: "table-expressions#use-a-subquery",
    exp.Join: "joins",
    exp.Order: "order-by",
    exp.Ordered: "order-by",
    exp.Limit: "limit-offset",
    exp.Window: "window-functions",
    exp.WindowSpec: "window-functions",
    exp.With: "common-table-expressions",
    exp.CTE: "common-table-expressions",
    exp.Values: "selection-queries#values-clause",
    exp.Lock: "select-for-update",
    # What changes rows.
    exp.OnConflict: "insert#on-conflict-clause",
    exp.Returning: "insert",
    # Definitions.
    exp.Schema: "create-table",
    exp.ColumnDef: "create-table",
    exp.ColumnConstraint: "create-table",
    exp.NotNullColumnConstraint: "not-null",
    exp.PrimaryKey: "primary-key",
    exp.Index: "create-index",
    exp.IndexParameters: "create-index",
    exp.SetItem: "set-vars",
}

FUNCTIONS: Mapping[str, str] = {
    "get_byte": f"{_FUNCTIONS}#string-and-byte-functions",
    "row": f"{_SCALAR}#tuple-constructors",
    "current_setting": f"{_FUNCTIONS}#system-info-functions",
}

TYPES: Mapping[exp.DType, str] = {
    exp.DType.TEXT: "string",
    exp.DType.BIGINT: "int",
    exp.DType.INT: "int",
    exp.DType.BOOLEAN: "bool",
    exp.DType.DECIMAL: "decimal",
    exp.DType.VARBINARY: "bytes",
    exp.DType.ARRAY: "array",
    exp.DType.TIMESTAMP: "timestamp",
    exp.DType.INTERVAL: "interval",
}

CATALOGUE: Mapping[str, str] = {"pg_indexes": "pg-catalog#query-pg_catalog-tables"}
"""What of PostgreSQL's catalogue is shown there with what it holds."""

SESSION_VARIABLES = {
    "application_name",
    "default_transaction_isolation",
    "default_transaction_read_only",
    "idle_in_transaction_session_timeout",
    "lock_timeout",
    "statement_timeout",
}
"""Those of set-vars that we set."""

_RESERVED = """
ALL ANALYSE ANALYZE AND ANY ARRAY AS ASC ASYMMETRIC BOTH CASE CAST CHECK COLLATE COLUMN CONCURRENTLY CONSTRAINT CREATE
CURRENT_CATALOG CURRENT_DATE CURRENT_ROLE CURRENT_SCHEMA CURRENT_TIME CURRENT_TIMESTAMP CURRENT_USER DEFAULT DEFERRABLE
DESC DISTINCT DO ELSE END EXCEPT FALSE FETCH FOR FOREIGN FROM GRANT GROUP HAVING IN INDEX INITIALLY INTERSECT INTO
LATERAL LEADING LIMIT LOCALTIME LOCALTIMESTAMP NOT NOTHING NULL OFFSET ON ONLY OR ORDER PLACING PRIMARY REFERENCES
RETURNING SELECT SESSION_USER SOME SYMMETRIC TABLE THEN TO TRAILING TRUE UNION UNIQUE USER USING VARIADIC WHEN WHERE
WINDOW WITH
"""
RESERVED = frozenset(_RESERVED.split())
"""Keywords that are no names: sql-grammar#reserved_keyword."""

KNOWN_TO_BE_MISSING: Mapping[type[exp.Expr], str] = {
    exp.Command: "a statement that none of ours needs, or that is not there (sql-statements)",
    exp.Collate: "collations are of languages, and make another type (collate)",
    exp.CollateColumnConstraint: "collations are of languages, and make another type (collate)",
    exp.Div: "the quotient of integers is no integer (postgresql-compatibility#integer-division)",
    exp.UnloggedProperty: "no table is unlogged (sql-feature-support)",
    exp.ObjectIdentifier: "the catalogue is not the whole of PostgreSQL's (pg-catalog)",
}

_SYSTEM_COLUMNS = {"ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"}
_CHANGES = (exp.Insert, exp.Update, exp.Delete)


@cache
def faults(statement: str) -> tuple[str, ...]:
    """Return what of a statement CockroachDB is not documented to know."""
    try:
        # The parser does not know this clause of create-index and hash-sharded-indexes.
        tree = parse_one(statement.replace(" USING HASH", "", 1), dialect="postgres")
    except ParseError as error:
        return (str(error),)
    found = [*_of_the_whole(tree)]
    for part in tree.walk():
        found += [*_of_a_part(part), *_of_a_query(part)]
    return tuple(dict.fromkeys(found))


def _of_the_whole(tree: exp.Expr) -> Iterator[str]:
    if type(tree) not in STATEMENTS and type(tree) not in KNOWN_TO_BE_MISSING:
        yield f"{tree.sql()!r} is no statement of sql-statements"
    shown = [*(tree.selects if isinstance(tree, exp.Query) else []), *_returned(tree)]
    if any(each.is_star for each in shown):
        yield "a result of * changes with the table, and what is prepared fails then (known-limitations)"
    changed = [change.this.find(exp.Table).name for change in tree.find_all(*_CHANGES)]
    if len(changed) > len(set(changed)):
        yield "several changes of one table in a statement are refused (known-limitations)"


def _of_a_part(part: exp.Expr) -> Iterator[str]:
    kind = type(part)
    if kind in KNOWN_TO_BE_MISSING:
        yield f"{part.sql(dialect='postgres')!r}: {KNOWN_TO_BE_MISSING[kind]}"
    elif kind not in PARTS and kind not in STATEMENTS:
        yield f"{kind.__name__} in {part.sql(dialect='postgres')!r} is not looked up"
    match part:
        case exp.Anonymous() if part.name.lower() not in FUNCTIONS:
            yield f"{part.name}() is not looked up (functions-and-operators)"
        case exp.DataType() if part.this not in TYPES:
            yield f"{part.sql(dialect='postgres')} is not looked up (data-types)"
        case exp.Identifier() if not part.quoted and part.name.upper() in RESERVED:
            yield f"{part.name} is no name (sql-grammar#reserved_keyword)"
        case exp.Column() if part.name in _SYSTEM_COLUMNS:
            yield f"{part.name} is PostgreSQL's way of storing (postgresql-compatibility)"
        case exp.Table() if part.name.startswith("pg_") and part.name not in CATALOGUE:
            yield f"{part.name}: the catalogue is not the whole of PostgreSQL's (pg-catalog)"
        case exp.IndexParameters() if part.args.get("using") is not None:
            yield f"an index USING {part.args['using']} is not looked up (create-index)"
        case exp.SetItem() if not {each.name for each in part.find_all(exp.Column)} <= SESSION_VARIABLES:
            yield f"{part.sql()} is not looked up (set-vars)"
        case exp.Lock() if part.expressions or part.args.get("wait") is not None:
            yield "a lock on some of the tables, or without waiting, is not looked up (select-for-update)"
        case exp.Create() if part.kind not in ("TABLE", "INDEX", "VIEW"):
            yield f"CREATE {part.kind} is not looked up (sql-statements)"


def _of_a_query(part: exp.Expr) -> Iterator[str]:
    """Yield what is wrong with a part that may be one of the queries of a statement."""
    if isinstance(part, exp.Select) and not part.expressions:
        yield "a SELECT of no columns (select-clause)"
    if isinstance(part, exp.CTE) and isinstance(part.this, _CHANGES):
        if not _returned(part.this):
            yield "a change within WITH returns something (common-table-expressions#data-modifying-statements)"
        if part.parent is not None and part.parent.parent is not part.root():
            yield "a change within WITH is at the top (common-table-expressions#data-modifying-statements)"


def _returned(change: exp.Expr) -> list[exp.Expr]:
    returning = change.args.get("returning")
    return [] if returning is None else list(returning.expressions)
