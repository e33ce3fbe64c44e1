"""Every statement of the store on PostgreSQL keeps to what CockroachDB documents, its own dialect left out.

The statements are found in the modules, in their constants and in their code; those that are made per call, by calling.
"""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterable, Iterator
from itertools import chain

import asyncpg
import pytest

from perdure.server.store.interface import ListPosition
from perdure.server.store.postgres import COCKROACH, listings
from perdure.server.store.postgres.bulk import Bulk
from perdure.server.store.postgres.connections import listing_session, reading_session, writing_session
from perdure.server.store.postgres.statements import CHANGES, FewRows, group_changes, statement
from perdure.server.store.postgres.steps import STEPS_ON_COCKROACH
from perdure.server.store.rounds import Fence
from perdure.server.store.schema import TABLES
from perdure.server.store.settings import PostgresSettings
from perdure.server.store.visibility.filter import And, Attribute, Comparison, Not, Operator, Or
from tests.architecture.cockroach_sql import KNOWN_TO_BE_MISSING, SESSION_VARIABLES, faults
from tests.architecture.sources import Source, sources_under
from tests.server.store.postgres.rounds import round_with

FOR_POSTGRESQL_ALONE = {
    "perdure.server.store.postgres.dialect": "cockroach.py overrides what it holds",
    "perdure.server.store.postgres.cockroach": "what it holds is made into whole statements here",
    "perdure.server.store.postgres.steps": "STEPS_ON_COCKROACH stands beside it",
    "perdure.server.store.postgres.tool_queries": "cockroach_tools.py has others",
    "perdure.server.store.postgres.cockroach_tools": "what it holds is looked at here, one by one",
}
BEYOND_THE_PARSER = {
    COCKROACH.tools.size: "show-tables, within table-expressions#use-the-output-of-another-statement",
    COCKROACH.tools.snapshot_beside_writers: "as-of-system-time#use-as-of-system-time-in-transactions",
}
"""What no parser of PostgreSQL's SQL can take apart, and the page that has it as a whole."""

_BEGINS_A_STATEMENT = re.compile(
    r"\s*(SELECT|INSERT|UPDATE|DELETE|WITH|SET|CREATE|ALTER|DROP|BEGIN|COMMIT|ROLLBACK|SHOW|LOCK|COPY|TRUNCATE|LISTEN"
    r"|NOTIFY|DO|CALL|GRANT|ANALYZE|VACUUM|PREPARE|DECLARE|SAVEPOINT)(\s(?!\d)|$)"
)


def _texts(value: object) -> Iterator[str]:
    """Yield the texts in what a module holds under a name."""
    match value:
        case str():
            yield value
        case Bulk():
            yield value.of_many()
            yield value.of_few(2)
        case tuple() | list():
            for each in value:
                yield from _texts(each)
        case dict():
            yield from _texts(list(value.values()))


def _constants(source: Source) -> Iterator[str]:
    """Yield the texts that stand in the code as they are; what is put together ends as a constant, or in a call."""
    parts = {id(part) for node in ast.walk(source.tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
            yield node.value


def _modules() -> list[Source]:
    """Return the modules of the store, and of the tools, whose statements are for every SQL database."""
    folders = ("src/perdure/server/store/postgres", "src/perdure/server/store/tools", "src/perdure/server/tools")
    found = [source for folder in folders for source in sources_under(folder)]
    return [source for source in found if source.module not in FOR_POSTGRESQL_ALONE]


def _defined(source: Source) -> Iterator[str]:
    """Yield the names that a module gives to what it holds itself."""
    for node in source.tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                yield name


def _held() -> set[str]:
    """Return the statements that are in the modules."""
    texts: set[str] = set()
    for source in _modules():
        held = vars(importlib.import_module(source.module))
        texts.update(_texts([held.get(name) for name in _defined(source)]), _constants(source))
    return {listings.numbered(text) for text in texts if _BEGINS_A_STATEMENT.match(text)}


class _Notes:
    """A reader that finds nothing, and notes what it was asked."""

    def __init__(self) -> None:
        self.queries: set[str] = set()

    async def fetch(self, query: str, *arguments: object) -> list[asyncpg.Record]:
        self.queries.add(query)
        return []


async def _listings() -> set[str]:
    """Return listings and counts by every attribute and operator."""
    notes = _Notes()
    for attribute in Attribute:
        for operator in Operator:
            each = Comparison(attribute, operator, ("v", "w") if operator is Operator.BETWEEN else ("v",))
            for filter in (each, Not(Or((each, And((each, each)))))):
                for after in (None, ListPosition(1, "r")):
                    await listings.list_runs(notes, "n", filter, 1, after)
                await listings.count_runs(notes, "n", filter)
    return notes.queries


def _complaints(statements: Iterable[str]) -> list[str]:
    return [f"{fault}: in {text}" for text in sorted(statements) for fault in faults(text)]


def test_every_statement_in_the_code_is_one_that_cockroachdb_documents() -> None:
    held = _held()
    assert len(held) > 40, "they are found"
    assert {"BEGIN", "ROLLBACK", "COMMIT", "SELECT current_schema()"} <= held, "also those within functions"
    assert not _complaints(held)


@pytest.mark.parametrize("few", [None, FewRows()], ids=["columns", "value by value"])
@pytest.mark.parametrize("fence", [Fence("node", 1, 1), None], ids=["fenced", "in a transaction"])
def test_every_statement_of_a_batch_is_one_that_cockroachdb_documents(fence: Fence | None, few: FewRows | None) -> None:
    whole = round_with(workflows=1)
    parts = group_changes(whole, changes_tables_once=COCKROACH.changes_tables_once)
    assert set(chain.from_iterable(parts)) == set(CHANGES)
    assert not _complaints(statement(changes, whole, fence, few).text for changes in parts)


async def test_every_listing_is_one_that_cockroachdb_documents() -> None:
    queries = await _listings()
    assert len(queries) > 100
    assert not _complaints(queries)


def test_the_schema_is_made_of_what_cockroachdb_documents() -> None:
    definitions = COCKROACH.definitions()
    assert not _complaints([*definitions, *_texts(dict(STEPS_ON_COCKROACH)), COCKROACH.table_names])
    assert all(re.search(" IF NOT EXISTS | OR REPLACE ", text) for text in definitions), "each can be made again"


def test_the_tools_ask_what_cockroachdb_documents() -> None:
    asked = {query for query in COCKROACH.tools if query is not None}
    assert not _complaints(asked - set(BEYOND_THE_PARSER))
    for query in BEYOND_THE_PARSER:
        assert query in asked and faults(query), "an exemption is needed as long as it is there"


def test_keys_that_rise_with_time_are_split_up() -> None:
    indexes = [text for text in COCKROACH.definitions() if text.startswith("CREATE INDEX")]
    split = {text.split()[5] for text in indexes if ") USING HASH" in text}
    assert split == {index.name for table in TABLES for index in table.indexes if index.rises}
    assert {"run_ready_task", "run_alarm", "run_closed", "run_by_start", "activity_ready"} < split


def test_sessions_are_set_to_what_cockroachdb_documents() -> None:
    settings = PostgresSettings()
    for session in (writing_session, reading_session, listing_session):
        assert set(session(settings, COCKROACH)) <= SESSION_VARIABLES


@pytest.mark.parametrize(
    ("statement", "fault"),
    [
        ("SELECT pg_xact_status($1::text::xid8)", "pg_xact_status"),
        ("SELECT pg_current_xact_id()", "pg_current_xact_id"),
        ("SELECT pg_advisory_xact_lock($1)", "pg_advisory_xact_lock"),
        ("SELECT txid_current()", "txid_current"),
        ("LISTEN tasks", "statement"),
        ("NOTIFY tasks", "statement"),
        ("LOCK TABLE run IN EXCLUSIVE MODE", "statement"),
        ("DO $$ BEGIN END $$", "statement"),
        ("COPY run FROM STDIN", "Copy"),
        ("VACUUM run", "statement"),
        ("ANALYZE run", "Analyze"),
        ("TRUNCATE run", "TruncateTable"),
        ("CREATE UNLOGGED TABLE a (b text NOT NULL)", "unlogged"),
        ('CREATE TABLE a (b text COLLATE "C" NOT NULL)', "collations"),
        ("CREATE TABLE a (b text REFERENCES c (d))", "Reference"),
        ("CREATE TABLE a (b int4range)", "INT4RANGE"),
        ("CREATE INDEX a ON b USING brin (c)", "USING brin"),
        ("CREATE DOMAIN a AS text", "statement"),
        ('SELECT run_id FROM run ORDER BY run_id COLLATE "C"', "collations"),
        ("SELECT started_at / 1000 FROM run", "quotient"),
        ("SELECT run_id::xid8 FROM run", "XID8"),
        ("SELECT relname FROM pg_class WHERE oid = 'run'::regclass", "catalogue"),
        ("SELECT ctid FROM run WHERE xmin = 5", "way of storing"),
        ("SELECT 1 WHERE EXISTS (SELECT FROM run)", "no columns"),
        ("SELECT * FROM run", "result of \\*"),
        ("DELETE FROM run WHERE run_id = $1 RETURNING *", "result of \\*"),
        ("WITH gone AS (DELETE FROM run WHERE run_id = $1) SELECT 1", "returns something"),
        ("SELECT 1 FROM (WITH a AS (DELETE FROM run RETURNING run_id) SELECT run_id FROM a) AS b", "at the top"),
        (
            "WITH a AS (DELETE FROM run RETURNING 1), b AS (UPDATE run SET version = 1 RETURNING 1) SELECT 1",
            "several changes of one table",
        ),
        ("SELECT run_id AS user FROM run", "no name"),
        ("SELECT run_id FROM run FOR UPDATE OF run", "lock"),
        ("SELECT run_id FROM run TABLESAMPLE system (1)", "TableSample"),
        ("SELECT DISTINCT ON (run_id) run_id FROM run", "Distinct"),
        ("MERGE INTO run USING node ON TRUE WHEN MATCHED THEN DELETE", "Merge"),
        ("SET enable_bitmapscan = off", "set-vars"),
        ("SET jit = off", "set-vars"),
        ("CREATE TRIGGER a AFTER INSERT ON run EXECUTE FUNCTION b()", "CREATE TRIGGER"),
    ],
    ids=lambda value: value[:40],
)
def test_what_cockroachdb_lacks_is_refused(statement: str, fault: str) -> None:
    assert re.search(fault, "\n".join(faults(statement)), re.IGNORECASE), faults(statement)


def test_every_refusal_names_its_source() -> None:
    assert all(re.search(r"\([a-z-]+(#[\w-]+)?\)$", reason) for reason in KNOWN_TO_BE_MISSING.values())
