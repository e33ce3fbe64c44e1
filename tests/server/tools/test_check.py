"""What `perdure db check` finds: nothing in what a server leaves, and each kind of damage by its name."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import pytest

from perdure.server.store.postgres import COCKROACH
from perdure.server.store.postgres.tools import PostgresDatabase
from perdure.server.store.schema import RUN as RUN_TABLE
from perdure.server.store.schema import TABLES
from perdure.server.store.tools.interface import Access, Row, ToolError
from perdure.server.store.tools.problem import Problem
from perdure.server.store.tools.schema_check import schema_problems
from perdure.server.tools import check as checking
from perdure.server.tools.check import Checked
from tests.server.core.story import KEY
from tests.server.store.tools.places import by_hand, database_of, fill, store_of
from tests.server.tool_databases import NewDatabase

RUN = "(SELECT run_id FROM run WHERE workflow_id = '{}' AND is_current)"


def run_id(workflow_id: str) -> str:
    return RUN.format(workflow_id)


async def change(url: str, *statements: str) -> None:
    database = database_of(by_hand(url))
    await database.open(Access.MIGRATE)
    for statement in statements:
        await database.execute(statement)
    await database.close()


async def rows_of(url: str, query: str) -> Sequence[Row]:
    database = database_of(url)
    await database.open(Access.READ)
    try:
        return await database.fetch(query)
    finally:
        await database.close()


async def problems(url: str) -> list[Problem]:
    """Check a database."""
    database = database_of(url)
    await database.open(Access.READ)
    try:
        return [problem async for problem in checking.check(database, Checked())]
    finally:
        await database.close()


async def test_what_a_server_leaves_is_well(empty_url: str) -> None:
    await fill(empty_url)
    database = database_of(empty_url)
    await database.open(Access.READ)
    so_far = Checked()
    assert [problem async for problem in checking.check(database, so_far)] == []
    [(runs,)] = await database.fetch("SELECT count(*) FROM run")
    assert so_far.runs == runs == 14
    await database.close()


async def test_it_may_run_beside_a_server_and_sees_one_moment(empty_url: str) -> None:
    await fill(empty_url)
    store = store_of(empty_url)
    await store.open()
    database = database_of(empty_url)
    await database.open(Access.READ)
    await change(empty_url, f"DELETE FROM event WHERE run_id = {run_id('order-1')}")
    assert [problem async for problem in checking.check(database, Checked())] == [], "it looks at what was there"
    await database.close()
    await store.close()


DAMAGE = {
    "an event is gone": (
        [f"DELETE FROM event WHERE event_id = 3 AND run_id = {run_id('order-1')}"],
        [r"run .* of workflow order-1: should have events 1 to \d+ and has 1-2, 4-\d+", r"order-1.*cannot be"],
    ),
    "the end of a history is gone": (
        [f"DELETE FROM event WHERE event_id > 4 AND run_id = {run_id('order-2')}"],
        [r"order-2: should have events 1 to \d+ and has 1-4", "order-2: cannot be"],
    ),
    "a whole history is gone": (
        [f"DELETE FROM event WHERE run_id = {run_id('loop')}"],
        ["loop: should have events 1 to 1 and has none"],
    ),
    "an event of another run": (
        [
            "UPDATE event SET data = (SELECT data FROM event AS other WHERE other.event_id = 4 AND other.run_id ="
            f" event.run_id) WHERE event_id = 3 AND run_id = {run_id('order-1')}"
        ],
        ["order-1: event 3 is not the event that its row says it is", "order-1: cannot be"],
    ),
    "an event cannot be read": (
        [f"UPDATE event SET data = {{bytes}} WHERE event_id = 3 AND run_id = {run_id('order-1')}"],
        ["order-1: has an event that cannot be read"],
    ),
    "a run cannot be read": (
        [f"UPDATE run SET state = {{bytes}} WHERE run_id = {run_id('order-1')}"],
        ["order-1: cannot be restored from its rows: "],
    ),
    "a run is gone and its rows are not": (
        ["DELETE FROM run WHERE workflow_id = 'order-5'"],
        [
            "table event: has 10 rows of a run .* that does not exist",
            "table activity: has 2 rows of a run",
            "table timer: has 1 rows of a run",
            "table request: has 1 rows of a run",
        ],
    ),
    "a closed run waits": (
        [f"INSERT INTO timer (run_id, timer_id, started_event_id, fires_at) VALUES ({run_id('order-2')}, 't', 7, 1)"],
        ["order-2: is closed and has 1 rows in timer", "order-2: .*"],
    ),
    "a timer is forgotten": (
        [f"DELETE FROM timer WHERE run_id = {run_id('order-1')}"],
        ["order-1: cannot be: .*timers"],
    ),
    "nobody wakes a run": (
        [f"UPDATE run SET alarm_at = NULL WHERE run_id = {run_id('order-1')}"],
        ["order-1: cannot be: .*something is due at .*, the stored alarm is at None"],
    ),
    "a task is in no queue": (
        [f"UPDATE run SET task_ready_queue = NULL WHERE run_id = {run_id('child')}"],
        ["child: has None in the column task_ready_queue, which should be '.+'"],
    ),
    "an activity is ready that is not": (
        [f"UPDATE activity SET ready_at = 5 WHERE activity_id = 'a' AND run_id = {run_id('order-1')}"],
        ["order-1: has rows in activity that are not what its state says"],
    ),
    "an activity names another workflow": (
        [f"UPDATE activity SET workflow_id = 'order-9' WHERE activity_id = 'a' AND run_id = {run_id('order-1')}"],
        [
            "order-1: has a row in activity that names another workflow: order-9",
            "order-1: has rows in activity that are not",
            "table activity: has a row of run .* in shard",
        ],
    ),
    "a row is in another shard": (
        ["UPDATE run SET shard = 1024 WHERE workflow_id = 'order-1'"],
        [r"table run: has a row of run .* in shard 1024, which belongs to \d+"],
    ),
    "a message of a run that is gone is in another shard": (
        ["UPDATE outbox SET shard = 1024, run_id = 'gone' WHERE receiver_workflow_id = 'late'"],
        ["table outbox: has a row of run gone in shard 1024", "parent: .*cannot be.*are not in flight"],
    ),
    "a message is gone": (
        ["DELETE FROM outbox WHERE receiver_workflow_id = 'late'"],
        ["parent: .*cannot be.*are not in flight"],
    ),
    "a message is not what it says": (
        ["UPDATE outbox SET kind = 'child closed' WHERE receiver_workflow_id = 'late'"],
        ["parent: cannot be", "message 2 of run .*: is not what its row says it is"],
    ),
    "a message cannot be read": (
        ["UPDATE outbox SET body = {bytes} WHERE receiver_workflow_id = 'late'"],
        ["message 2 of run .*: cannot be read"],
    ),
    "a message to oneself": (
        ["UPDATE outbox SET receiver_workflow_id = 'parent' WHERE receiver_workflow_id = 'late'"],
        ["message 2 of run .*: goes to its own workflow id"],
    ),
    "an answered message is remembered": (
        ["UPDATE inbox SET number = 99"],
        ["inbox of workflow order-5: remembers message 99 of run .*, which is not in the outbox any more"],
    ),
    "two current runs": (
        ["DROP INDEX run_current", "UPDATE run SET is_current = {true} WHERE workflow_id = 'loop'"],
        [
            "index run_current: is missing",
            "workflow 'loop': has 2 current runs",
        ],
    ),
    "a namespace is gone": (
        ["DELETE FROM namespace"],
        [rf"workflow .*: is in a namespace {KEY.namespace_id} that does not exist"] * 14,
    ),
    "a namespace cannot be read": (
        ["UPDATE namespace SET search_attributes = 'nonsense'"],
        ["namespace 'default': cannot be read", *[rf"workflow .*: is in a namespace {KEY.namespace_id}"] * 14],
    ),
    "an index is gone": (
        ["DROP INDEX run_alarm"],
        [r"index run_alarm: is missing.*CREATE INDEX (IF NOT EXISTS )?run_alarm ON run \(alarm_at, run_id, shard\)"],
    ),
    "an index is another one": (
        ["DROP INDEX run_alarm", "CREATE INDEX run_alarm ON run (alarm_at)"],
        [r"index run_alarm: is over \(alarm_at\).*, not \(alarm_at, run_id, shard\).* where alarm_at IS NOT NULL"],
    ),
    "an index forbids what is right": (
        ["CREATE UNIQUE INDEX mine ON timer (run_id)"],
        ["index mine: is none of Perdure's and refuses rows that are right: DROP INDEX mine;"],
    ),
    "a column is gone": (["ALTER TABLE child DROP COLUMN initiated_at"], ["table child: has no column initiated_at"]),
    "a table is gone": (["DROP TABLE buffered_event"], ["table buffered_event: is missing"]),
    "a table of somebody else": (["CREATE TABLE album (title TEXT)"], ["table album: is none of Perdure's"]),
    "a view is gone": (["DROP VIEW waiting"], ["view waiting: is missing"]),
    "a view is another one": (
        ["DROP VIEW nodes", "CREATE VIEW nodes AS SELECT 1 AS one"],
        ["view nodes: (is not what|has other columns than) this release makes"],
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
async def test_damage_is_found_and_called_by_its_name(name: str, empty_url: str) -> None:
    statements, expected = DAMAGE[name]
    await fill(empty_url)
    if "://" in empty_url:
        # What depends on a dropped column goes with it.
        statements = [re.sub(r"(DROP (COLUMN|TABLE) \w+)$", r"\1 CASCADE", each) for each in statements]
        literals = {"{bytes}": r"'\xff00ff'::bytea", "{true}": "true"}
    else:
        statements = [*_DROP_ALL_VIEWS, *statements] if "DROP COLUMN" in statements[0] else statements
        literals = {"{bytes}": "x'ff00ff'", "{true}": "1"}
    for mark, literal in literals.items():
        statements = [statement.replace(mark, literal) for statement in statements]
    await change(empty_url, *statements)
    found = [f"{problem.where}: {problem.what}: {problem.remedy}" for problem in await problems(empty_url)]
    for pattern in expected:
        matching = next((each for each in found if re.search(pattern, each, re.DOTALL)), None)
        assert matching is not None, f"nothing like {pattern!r} in {found}"
        found.remove(matching)
    assert not found


_DROP_ALL_VIEWS = ["DROP VIEW waiting", "DROP VIEW pending_children"]


async def test_a_history_that_is_being_deleted_has_no_run(empty_url: str) -> None:
    await fill(empty_url)
    await change(
        empty_url,
        "INSERT INTO discarded_history (run_id, namespace_id, workflow_id, shard)"
        " SELECT run_id, namespace_id, workflow_id, shard FROM run WHERE workflow_id = 'order-2'",
        "DELETE FROM run WHERE workflow_id = 'order-2'",
    )
    assert await problems(empty_url) == []


async def test_an_index_that_is_not_split_up_is_found(new_database: NewDatabase) -> None:
    """Where new rows would keep one server busy and the others idle."""
    url = await new_database("cockroach")
    await fill(url)
    database = database_of(url)
    await database.open(Access.READ)
    tables = dict(await database.tables())
    assert not list(schema_problems(TABLES, tables, database))
    indexes = dict(tables["run"].indexes)
    assert indexes["run_alarm"].is_split and not indexes["run_by_workflow"].is_split
    indexes["run_alarm"] = indexes["run_alarm"]._replace(is_split=False)
    tables["run"] = tables["run"]._replace(indexes=indexes)
    [problem] = schema_problems(TABLES, tables, database)
    await database.close()
    assert problem.where == "index run_alarm"
    assert "not (alarm_at, run_id, shard) split by a hash where" in problem.what


def test_what_makes_an_index_is_in_the_words_of_the_database() -> None:
    index = next(index for index in RUN_TABLE.indexes if index.name == "run_alarm")
    made = PostgresDatabase("cockroachdb://h/d", "d", dialect=COCKROACH).create_index(RUN_TABLE, index)
    assert made.startswith("CREATE INDEX IF NOT EXISTS run_alarm ON run (alarm_at, run_id, shard) USING HASH WHERE")


async def test_a_trigger_is_found(old_url: str) -> None:
    await fill(old_url)
    if "://" in old_url:
        statements = [
            "CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
            "CREATE TRIGGER mine AFTER INSERT ON run FOR EACH ROW EXECUTE FUNCTION nothing()",
        ]
    else:
        statements = ["CREATE TRIGGER mine AFTER INSERT ON run BEGIN SELECT 1; END"]
    await change(old_url, *statements)
    [problem] = await problems(old_url)
    assert (problem.where, "trigger mine" in problem.what) == ("table run", True)


async def test_a_damaged_file_is_found(tmp_path: Path) -> None:
    path = tmp_path / "perdure.db"
    await fill(str(path))
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = delete")
    [(page_size,)] = connection.execute("PRAGMA page_size")
    [(root,)] = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'run_by_type'")
    connection.close()
    with path.open("r+b") as file:
        file.seek((root - 1) * page_size + page_size // 2)
        file.write(b"\xff" * (page_size // 2))
    found = await problems(str(path))
    assert found and found[0].where == "the file"
    assert "backup" in found[0].remedy


@pytest.mark.parametrize("name", ["cluster_id", "cluster_version"])
async def test_a_row_of_meta_that_is_gone_is_found(name: str, empty_url: str) -> None:
    """No server starts or stays on such a database."""
    await fill(empty_url)
    await change(empty_url, f"DELETE FROM meta WHERE name = '{name}'")
    with pytest.raises(ToolError, match=f"is damaged: the table meta has no row {name}, .* from a backup"):
        await problems(empty_url)


async def test_meta_that_is_empty_is_found(empty_url: str) -> None:
    await fill(empty_url)
    await change(empty_url, "DELETE FROM meta")
    with pytest.raises(ToolError, match="no row cluster_id and no row cluster_version"):
        await problems(empty_url)


async def test_what_is_wrong_with_a_run_is_said_in_one_line(empty_url: str) -> None:
    """By ids, whatever the messages are like that it has of them."""
    await fill(empty_url)
    [initiated] = await rows_of(
        empty_url,
        f"SELECT initiated_event_id FROM child WHERE run_id = {run_id('parent')} AND child_workflow_id = 'late'",
    )
    await change(empty_url, "DELETE FROM child WHERE child_workflow_id = 'late'")
    [problem] = await problems(empty_url)
    assert problem.what.endswith(f"children: memory has {{}}, history says {{{initiated[0]!r}}}")


async def test_what_cannot_be_checked_says_what_would_do(empty_url: str) -> None:
    await change(empty_url)
    with pytest.raises(ToolError, match="is empty"):
        await problems(empty_url)
    await change(empty_url, "CREATE TABLE album (title TEXT)")
    with pytest.raises(ToolError, match="none of Perdure's"):
        await problems(empty_url)
