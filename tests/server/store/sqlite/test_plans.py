"""The hot statements and their plans: each must find its rows by the index that is meant for it."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Sequence

import pytest

from perdure.server.store.interface import ListPosition
from perdure.server.store.rounds import Fence, SqlValue, gather
from perdure.server.store.sqlite import batches, deletions, listings, nodes, queries
from perdure.server.store.sqlite.migrations import migrate
from perdure.server.store.visibility.filter import EVERYTHING, Attribute, Comparison, Filter, Operator
from tests.server.store import rows

ROWS = 3


class _Recorder(sqlite3.Connection):
    """Notes every statement with its plan before it runs."""

    def __init__(self, *arguments: str, **options: str | None) -> None:
        super().__init__(*arguments, **options)  # type: ignore[arg-type]  # as sqlite3.connect passes them
        self.plans: list[tuple[str, str]] = []

    def execute(  # type: ignore[override]  # of what the base takes, only what the store passes
        self, sql: str, parameters: Sequence[SqlValue] = (), /
    ) -> sqlite3.Cursor:
        if sql.startswith(("SELECT", "INSERT", "UPDATE", "DELETE")):
            steps = super().execute(f"EXPLAIN QUERY PLAN {sql}", parameters).fetchall()
            self.plans.append((sql, "\n".join(step[3] for step in steps)))
        return super().execute(sql, parameters)


@pytest.fixture
def recorder() -> Iterator[_Recorder]:
    connection = sqlite3.connect(":memory:", isolation_level=None, factory=_Recorder)
    migrate(connection)
    connection.plans.clear()
    yield connection
    connection.close()


_TABLES = r"run|event|activity|timer|buffered_event|request|node|child|outbox|inbox"


def _scans(plan: str) -> list[str]:
    """Return the steps that read a table of ours from end to end."""
    return [step for step in plan.splitlines() if re.match(rf"SCAN ({_TABLES})\b", step)]


def test_no_statement_of_a_batch_scans_a_table(recorder: _Recorder) -> None:
    nodes.claim(recorder, "node")
    write = rows.write("w", *(rows.run("w", f"r{number}", is_current=number == 0) for number in range(ROWS)))
    batches.write_batch(recorder, Fence("node", 1, 1), gather([write]))
    changed = rows.write_to_every_table([f"r{number}" for number in range(ROWS)])
    changed.runs_closed = ["r1"]
    changed.runs_deleted = ["r2"]
    batches.write_batch(recorder, Fence("node", 1, 2), gather([changed]))
    assert len(recorder.plans) > 15
    scanned = {sql: _scans(plan) for sql, plan in recorder.plans if _scans(plan)}
    assert not scanned
    for table, key in (
        ("activity", "run_id=? AND scheduled_event_id=?"),
        ("timer", "run_id=? AND timer_id=?"),
        ("child", "run_id=? AND initiated_event_id=?"),
        ("outbox", "run_id=? AND number=?"),
    ):
        plans = [plan for sql, plan in recorder.plans if sql.startswith(f"DELETE FROM {table} WHERE (run_id, ")]
        assert plans
        assert all(f"({key})" in plan for plan in plans), "a pending thing is removed by its whole key"


def test_runs_are_updated_by_their_key(recorder: _Recorder) -> None:
    nodes.claim(recorder, "node")
    write = rows.write("w", rows.run("w", "r"))
    batches.write_batch(recorder, Fence("node", 1, 1), gather([write]))
    recorder.plans.clear()
    write = rows.write("w", rows.run("w", "r", stored_version=1))
    batches.write_batch(recorder, Fence("node", 1, 2), gather([write]))
    [plan] = [plan for sql, plan in recorder.plans if sql.startswith("UPDATE run")]
    assert "SEARCH run USING INDEX sqlite_autoindex_run_1 (run_id=?)" in plan


def test_runs_are_loaded_by_the_index_of_current_runs(recorder: _Recorder) -> None:
    queries.load_current_runs(recorder, [rows.key(f"w{number}") for number in range(ROWS)])
    [(_, plan)] = recorder.plans
    assert "SEARCH run USING INDEX run_current (namespace_id=? AND workflow_id=?)" in plan
    assert not _scans(plan)


def test_one_run_is_loaded_by_its_key(recorder: _Recorder) -> None:
    queries.load_run(recorder, rows.key("w"), "r")
    [(_, plan)] = recorder.plans
    assert "SEARCH run USING INDEX sqlite_autoindex_run_1 (run_id=?)" in plan
    assert not _scans(plan)


@pytest.mark.parametrize(
    ("index", "statement", "parameters"),
    [
        ("run_ready_task", queries.READY_WORKFLOW_TASKS, ("n", "q", 1)),
        ("activity_ready", queries.READY_ACTIVITY_TASKS, ("n", "q", 1, 1)),
        ("run_alarm", queries.DUE_ALARMS, (1, 1)),
        ("run_ready_task", queries.WORKFLOW_TASK_BACKLOG, ("n", "q")),
        ("activity_ready", queries.ACTIVITY_TASK_BACKLOG, ("n", "q", 1)),
        ("sqlite_autoindex_event_1", queries.EVENTS, ("r", 1, 9)),
        ("sqlite_autoindex_event_1", queries.EVENT_SIZES_ASCENDING, ("r", 1, 9, 9)),
        ("sqlite_autoindex_event_1", queries.EVENT_SIZES_DESCENDING, ("r", 1, 9, 9)),
        ("run_by_workflow", queries.LATEST_RUN_ID, ("n", "w")),
        ("sqlite_autoindex_outbox_1", queries.READ_OUTBOX, ("", 0, "r", 1)),
        ("run_closed", deletions.CLOSED_RUNS, ("n", 1, "r", 9)),
        ("run_by_start", deletions.PAGE_RUNS, ("n", 1, "r", 9)),
        ("sqlite_autoindex_event_1", deletions.DELETE_EVENTS, ("r", 9)),
    ],
)
def test_an_index_serves_a_query_in_its_order(
    recorder: _Recorder, index: str, statement: str, parameters: tuple[SqlValue, ...]
) -> None:
    recorder.execute(statement, parameters)
    [(_, plan)] = recorder.plans
    assert re.search(rf"SEARCH \w+ USING (COVERING )?INDEX {index}\b", plan), plan
    assert not _scans(plan)
    assert "TEMP B-TREE" not in plan


def test_the_outbox_is_measured_in_the_order_of_its_key(recorder: _Recorder) -> None:
    recorder.execute(queries.OUTBOX_SIZES, ("", 0, 10))
    [(_, plan)] = recorder.plans
    assert "SEARCH outbox USING INDEX sqlite_autoindex_outbox_1" in plan
    assert "TEMP B-TREE" not in plan


def test_a_pair_is_found_by_its_keys(recorder: _Recorder) -> None:
    recorder.execute(queries.READ_PAIR, ("r", "n", "w", 1))
    [(_, plan)] = recorder.plans
    assert "INDEX sqlite_autoindex_outbox_1 (run_id=? AND number=?)" in plan
    assert "SEARCH inbox USING PRIMARY KEY (sender_run_id=? AND namespace_id=? AND workflow_id=?)" in plan


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
def test_a_listing_pages_along_an_index(
    recorder: _Recorder, index: str, filter: Filter, after: ListPosition | None
) -> None:
    listings.list_runs(recorder, "n", filter, 10, after)
    [(_, plan)] = recorder.plans
    assert f"SEARCH run USING INDEX {index} " in plan
    assert "TEMP B-TREE" not in plan
