"""The hot statements and their plans: each must find its rows by the index that is meant for it.

Hot sessions are planned in a database without statistics, as a new one is. Listings are planned with a table that is
large enough for a scan to be wrong.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable

import asyncpg
import pytest

from perdure.server.core.records import EntityWrite
from perdure.server.store.interface import ListPosition, ShardMove
from perdure.server.store.postgres import POSTGRES, batches, deletions, listings, members, nodes, queries
from perdure.server.store.postgres.connections import listing_session, reading_session, writing_session
from perdure.server.store.postgres.statements import FewRows, group_changes, statement
from perdure.server.store.rounds import Fence, gather
from perdure.server.store.settings import PostgresSettings
from perdure.server.store.visibility.filter import EVERYTHING, Attribute, Comparison, Filter, Operator
from tests.server.store import rows
from tests.server.store.postgres.rounds import round_with
from tests.server.store.postgres.shell import Shell

RUN_IDS = [f"r{number}" for number in range(3)]
MANY = 5_000


class Recorder:
    """A session that notes every statement with its plan before it runs."""

    def __init__(self, connection: Shell) -> None:
        self._connection = connection
        self.plans: list[tuple[str, str]] = []

    async def execute(self, query: str, *arguments: object) -> str:
        await self.note(query, *arguments)
        return await self._connection.execute(query, *arguments)

    async def fetch(self, query: str, *arguments: object) -> list[asyncpg.Record]:
        await self.note(query, *arguments)
        return await self._connection.fetch(query, *arguments)

    async def note(self, query: str, *arguments: object) -> None:
        """Note the plan of a statement that does not run, for these arguments."""
        await self._note(query, query, *arguments)

    async def note_for_any(self, query: str, arguments: int) -> None:
        """Note the plan that the session makes of a statement whatever its so many arguments; it does not run."""
        await self._connection.execute(f"PREPARE noted AS {query}")
        await self._note(query, f"EXECUTE noted ({', '.join(['NULL'] * arguments)})")
        await self._connection.execute("DEALLOCATE noted")

    async def _note(self, query: str, explained: str, *arguments: object) -> None:
        steps = await self._connection.fetch(f"EXPLAIN (COSTS OFF) {explained}", *arguments)
        self.plans.append((query, "\n".join(step for (step,) in steps)))


@pytest.fixture
async def writing(postgres_url: str) -> AsyncIterator[Recorder]:
    connection = await asyncpg.connect(postgres_url, server_settings=writing_session(PostgresSettings()))
    yield Recorder(connection)
    await connection.close()


@pytest.fixture
async def reading(postgres_url: str) -> AsyncIterator[Recorder]:
    connection = await asyncpg.connect(postgres_url, server_settings=reading_session(PostgresSettings()))
    yield Recorder(connection)
    await connection.close()


@pytest.fixture
async def listing(postgres_url: str, shell: Shell) -> AsyncIterator[Recorder]:
    """A session that lists, of a database with many closed runs in a few types."""
    names, values = zip(*_row_of_many().items(), strict=True)
    await shell.execute(
        f"INSERT INTO run ({', '.join(names)}) SELECT {', '.join(values)} FROM generate_series(1, {MANY}) AS number"
    )
    await shell.execute("ANALYZE run")
    connection = await asyncpg.connect(postgres_url, server_settings=listing_session(PostgresSettings()))
    yield Recorder(connection)
    await connection.close()


def _row_of_many() -> dict[str, str]:
    """Return what each of many runs holds, as expressions of its number."""
    written = rows.run("w", "r", status=rows.COMPLETED)
    values = {name: getattr(written, name) for name in written.__struct_fields__ if name != "stored_version"}
    row = {name: f"'{value}'" for name, value in values.items() if isinstance(value, str | int)}
    row |= {"memo": "''", "search_attributes": "''", "state": "''", "workflow_type": "'type-' || number % 100"}
    row["shard"] = "number % 1024"
    return row | {"workflow_id": "'w' || number", "run_id": "'r' || number", "started_at": "number"}


def _scans(plan: str) -> list[str]:
    """Return the steps that read a table from end to end, or rows in an order that is made only then."""
    return re.findall(r"Seq Scan on \w+|Bitmap Heap Scan on \w+|Sort Key.*", plan)


async def _write(session: Recorder, batch: int, *writes: EntityWrite) -> None:
    parts = batches.parts_of(gather(writes), POSTGRES)
    await batches.write_in_transaction(session, Fence("node", 1, batch), parts, [])


async def test_no_statement_of_a_batch_scans_a_table(writing: Recorder) -> None:
    await nodes.claim(writing, "node")
    await _write(writing, 1, rows.write("w", *(rows.run("w", run_id, is_current=run_id == "r0") for run_id in RUN_IDS)))
    changed = rows.write_to_every_table(RUN_IDS)
    await _write(writing, 2, changed)
    await _write(writing, 3, EntityWrite(rows.key("w"), runs_deleted=RUN_IDS))
    found = {query: scans for query, plan in writing.plans if (scans := _scans(plan))}
    assert not found
    plans = "\n".join(plan for _, plan in writing.plans)
    for index in (
        "node_pkey",
        "run_pkey",
        "event_pkey",
        "activity_pkey",
        "timer_pkey",
        "buffered_event_pkey",
        "inbox_pkey",
    ):
        assert re.search(rf"Index Scan using {index}|Conflict Arbiter Indexes: {index}", plans), index


@pytest.mark.parametrize(("table", "key"), [("activity", "run_id.*scheduled_event_id"), ("timer", "run_id.*timer_id")])
async def test_a_pending_thing_is_removed_by_its_whole_key(writing: Recorder, table: str, key: str) -> None:
    await nodes.claim(writing, "node")
    write = rows.write("w")
    write.activities_removed, write.timers_removed = [("r", 5)], [("r", "t")]
    await _write(writing, 1, write)
    [plan] = [plan for query, plan in writing.plans if f"DELETE FROM {table} " in query]
    assert re.search(rf"Index Scan using {table}_pkey on {table}\n\s+Index Cond: .*{key}", plan), plan


@pytest.mark.parametrize("few", [None, FewRows()], ids=["columns", "value by value"])
async def test_nothing_is_touched_before_the_fence_that_a_statement_begins_with(
    writing: Recorder, few: FewRows | None
) -> None:
    whole = round_with(workflows=1)
    first, *_ = group_changes(whole, changes_tables_once=False)
    batch = statement(first, whole, Fence("node", 1, 1), few)
    await writing.note_for_any(batch.text, len(batch.parameters))
    [(_, plan)] = writing.plans
    parts = plan.split("CTE change_")[1:]
    assert len(parts) > 20
    for part in parts:
        assert re.search(r"CTE Scan on fence", part) and re.search(r"Result\b.*\n +One-Time Filter: ", part), part


async def test_a_piece_of_a_history_is_found_by_its_key(writing: Recorder) -> None:
    await writing.fetch(deletions.DELETE_SOME, "r", 9)
    [(_, plan)] = writing.plans
    assert not _scans(plan), plan
    for index in ("event_pkey", "request_pkey"):
        assert f"using {index}" in plan


@pytest.mark.parametrize(
    ("indexes", "statement", "arguments"),
    [
        (["run_current"], queries.LOAD_CURRENT_RUNS, (["n"] * 200, ["w"] * 200)),
        (["run_pkey"], queries.LOAD_RUN, ("r",)),
        (["run_ready_task", "run_pkey"], queries.READY_WORKFLOW_TASKS, ("n", "q", 1, b"")),
        (["activity_ready", "activity_pkey"], queries.READY_ACTIVITY_TASKS, ("n", "q", 1, 1, b"")),
        (["run_alarm", "run_pkey"], queries.DUE_ALARMS, (1, 1, b"")),
        (["run_ready_task"], queries.WORKFLOW_TASK_BACKLOG, ("n", "q", b"")),
        (["activity_ready"], queries.ACTIVITY_TASK_BACKLOG, ("n", "q", 1, b"")),
        (["outbox_pkey"], queries.READ_OUTBOX, (9, 9, b"", "", 0)),
        (["inbox_pkey", "outbox_pkey"], queries.READ_PAIR, ("r", "n", "w", 1)),
        (["event_pkey"], queries.EVENTS_ASCENDING, ("r", 1, 9, 9, 9)),
        (["event_pkey"], queries.EVENTS_DESCENDING, ("r", 1, 9, 9, 9)),
        (["run_closed", "run_pkey"], deletions.CLOSED_RUNS, ("n", 1, "r", 9, b"")),
        (["run_by_start"], deletions.PAGE_RUNS, ("n", 1, "r", 9, b"")),
    ],
)
async def test_an_index_serves_a_query_in_its_order(
    reading: Recorder, indexes: list[str], statement: str, arguments: tuple[object, ...]
) -> None:
    await reading.fetch(statement, *arguments)
    [(_, plan)] = reading.plans
    assert _uses(plan, indexes), plan
    assert not _scans(plan), plan


@pytest.mark.parametrize(
    ("index", "statement", "arguments"),
    [
        ("run_ready_task", queries.READY_WORKFLOW_TASKS, ("n", "q", 1, queries.ALL_SHARDS)),
        ("activity_ready", queries.READY_ACTIVITY_TASKS, ("n", "q", 1, 1, queries.ALL_SHARDS)),
        ("run_alarm", queries.DUE_ALARMS, (1, 1, queries.ALL_SHARDS)),
        ("run_ready_task", queries.WORKFLOW_TASK_BACKLOG, ("n", "q", queries.ALL_SHARDS)),
        ("activity_ready", queries.ACTIVITY_TASK_BACKLOG, ("n", "q", 1, queries.ALL_SHARDS)),
    ],
)
async def test_the_index_alone_tells_the_rows_of_other_nodes(
    reading: Recorder, index: str, statement: str, arguments: tuple[object, ...]
) -> None:
    await reading.fetch(statement, *arguments)
    [(_, plan)] = reading.plans
    found = re.search(rf"Index Only Scan using {index} on .*\n +Index Cond: .*\n +Filter: \((.*)", plan)
    assert found, plan
    assert re.match(r"get_byte\(.*, \(shard\)::integer\) = 1", found[1]), plan


async def test_no_statement_about_members_scans_a_table(writing: Recorder) -> None:
    await members.join(writing, "a", "life", "1.0", 60)
    await members.join(writing, "b", "life", "1.0", 0)
    writing.plans.clear()
    await members.renew(writing, "a", "life", 60)
    await members.move(writing, "a", [ShardMove(1, "b"), ShardMove(2, "b")])
    await members.set_leaving(writing, "a", "life")
    assert await members.take_over(writing, ("a", "life"), "b", "life", {"a": [1, 2]})
    await members.leave(writing, "a", "life")
    scanned = {query: scans for query, plan in writing.plans if (scans := _scans(plan))}
    assert not scanned
    assert len(writing.plans) == 13


@pytest.mark.parametrize(
    ("index", "filter"),
    [
        ("run_by_start", EVERYTHING),
        ("run_by_start", Comparison(Attribute.START_TIME, Operator.BETWEEN, (1, 2))),
        ("run_by_status", Comparison(Attribute.EXECUTION_STATUS, Operator.EQUAL, (1,))),
        ("run_by_type", Comparison(Attribute.WORKFLOW_TYPE, Operator.EQUAL, ("Order",))),
        ("run_by_workflow", Comparison(Attribute.WORKFLOW_ID, Operator.EQUAL, ("w",))),
    ],
    ids=str,
)
@pytest.mark.parametrize("after", [None, ListPosition(1, "r")], ids=["first page", "next page"])
async def test_a_listing_pages_along_an_index(
    listing: Recorder, index: str, filter: Filter, after: ListPosition | None
) -> None:
    await listings.list_runs(listing, rows.NAMESPACE, filter, 10, after)
    [(_, plan)] = listing.plans
    assert f"Index Scan Backward using {index} on run" in plan
    assert "Sort" not in plan


def _uses(plan: str, indexes: Iterable[str]) -> bool:
    return all(re.search(rf"Index (Only )?Scan (Backward )?using {index}\b", plan) for index in indexes)
