"""The views for people: what they show, the same on every SQL database, and that their manual is true."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

import asyncpg
import pytest

from perdure.server.core.records import ChildRecord, MailWrite, OutboxRecord
from perdure.server.store.interface import Store
from perdure.server.store.postgres import COCKROACH, POSTGRES, PostgresStore
from perdure.server.store.sqlite import SqliteStore
from perdure.server.store.sqlite.dialect import SqliteViewDialect
from perdure.server.store.views import views
from tests.server.store import rows
from tests.server.store.writing import Writer

DOCS = Path(__file__).parents[3] / "docs"
MANUAL = DOCS / "sql.md"
EXAMPLES: list[tuple[str, str]] = [
    example
    for page in (MANUAL, DOCS / "operations.md")
    for example in re.findall(r"^```(sql|sqlite|postgresql)\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
]
"""For which database (`sql`: for all), and the query."""

_AT = "2023-11-14T22:13:20.000Z"


def _after(seconds: float) -> str:
    whole, milliseconds = divmod(round(seconds * 1_000), 1_000)
    return f"2023-11-14T22:13:{20 + whole:02d}.{milliseconds:03d}Z"


class Shell(Protocol):
    """What an operator sees of a database while a server runs."""

    name: str

    async def select(self, query: str) -> list[dict[str, object]]:
        """Return the rows of a query."""

    async def execute(self, statement: str) -> None:
        """Change what an operator should not."""

    async def columns(self, view: str) -> list[str]:
        """Return the names of a view's columns."""

    async def reads_whole(self, query: str) -> list[str]:
        """Return which steps of a query read a table of runs or events from end to end."""


class SqliteShell:
    """As `sqlite3`."""

    name = "sqlite"

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    async def select(self, query: str) -> list[dict[str, object]]:
        return [dict(row) for row in self._connection.execute(query)]

    async def execute(self, statement: str) -> None:
        with self._connection:
            self._connection.execute(statement)

    async def columns(self, view: str) -> list[str]:
        return [str(row["name"]) for row in await self.select(f"PRAGMA table_info({view})")]

    async def reads_whole(self, query: str) -> list[str]:
        plan = [str(row["detail"]) for row in await self.select(f"EXPLAIN QUERY PLAN {query}")]
        return [step for step in plan if re.match(r"SCAN (run|event)\b", step)]


class PostgresShell:
    """As `psql`."""

    name = "postgresql"

    def __init__(self, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        self._connection = connection

    async def select(self, query: str) -> list[dict[str, object]]:
        return [dict(row) for row in await self._connection.fetch(query)]

    async def execute(self, statement: str) -> None:
        await self._connection.execute(statement)

    async def columns(self, view: str) -> list[str]:
        found = await self._connection.prepare(f"SELECT * FROM {view}")
        return [column.name for column in found.get_attributes()]

    async def reads_whole(self, query: str) -> list[str]:
        await self._connection.execute("SET enable_seqscan = off")
        plan = await self._connection.fetch(f"EXPLAIN {query}")
        return [step for (step,) in plan if re.search(r"Seq Scan on (run|event)\b", step)]


class CockroachShell(PostgresShell):
    """A session on CockroachDB."""

    async def reads_whole(self, query: str) -> list[str]:
        plan = "\n".join(step for (step,) in await self._connection.fetch(f"EXPLAIN {query}"))
        return re.findall(r"table: (?:run|event)@.*\n.*spans: FULL SCAN.*", plan)


@asynccontextmanager
async def _sqlite(path: Path) -> AsyncIterator[tuple[Store, Shell]]:
    store = SqliteStore(str(path))
    await store.open()
    connection = sqlite3.connect(path)
    connection.row_factory = sqlite3.Row
    yield store, SqliteShell(connection)
    connection.close()
    await store.close()


@asynccontextmanager
async def _postgres(url: str) -> AsyncIterator[tuple[Store, Shell]]:
    is_cockroach = url.startswith("cockroachdb://")
    store = PostgresStore(url, dialect=COCKROACH if is_cockroach else POSTGRES)
    await store.open()
    connection = await asyncpg.connect(COCKROACH.dsn(url))
    yield store, (CockroachShell if is_cockroach else PostgresShell)(connection)
    await connection.close()
    await store.close()


@pytest.fixture(params=["tmp_path", "postgres_url", "cockroach_url"])
def database(request: pytest.FixtureRequest) -> str:
    """Where there is a database of each kind."""
    return str(request.getfixturevalue(request.param))


@pytest.fixture
async def shell(database: str) -> AsyncIterator[Shell]:
    """Orders in every state of waiting, a namespace that is being deleted, and nodes in every state of being there."""
    opened = _postgres(database) if "://" in database else _sqlite(Path(database) / "perdure.db")
    async with opened as (store, shell):
        await _fill(store)
        await _fill_cluster(shell)
        yield shell


async def _fill(store: Store) -> None:
    await store.save_namespace(rows.namespace("default"))
    await store.save_namespace(rows.namespace("orders-deleted-1a2b", "going"))
    writer = await Writer.claim(store)
    order = rows.write(
        "order-17",
        rows.run(
            "order-17",
            "run-17",
            task_state="scheduled",
            task_attempt=4,
            task_scheduled_at=rows.START + rows.SECOND // 2,
            task_ready_queue="sticky-1",
            task_ready_at=rows.START + rows.SECOND // 2,
            alarm_at=rows.START + 9 * rows.SECOND,
            next_event_id=20_000,
        ),
    )
    order.events = [rows.event("run-17", 1, event_type=1), rows.event("run-17", 2, b"12345", event_type=5)]
    order.activities = [
        rows.activity("run-17", 5, workflow_id="order-17", ready_at=rows.START),
        rows.activity(
            "run-17",
            6,
            workflow_id="order-17",
            status="backing_off",
            attempt=7,
            ready_at=rows.START + 3 * rows.SECOND,
            last_failure="card declined",
        ),
        rows.activity(
            "run-17", 7, workflow_id="order-17", status="started", ready_at=None, started_at=rows.START + rows.SECOND
        ),
    ]
    order.timers = [rows.timer("run-17", "reminder", fires_at=rows.START + 30 * rows.SECOND)]
    order.mail = MailWrite(
        children=[
            ChildRecord("run-17", 9, rows.NAMESPACE, "order-17", "parcel-17", "run-p", "Parcel", 10, rows.START),
            ChildRecord("run-17", 11, rows.NAMESPACE, "order-17", "letter-17", None, "Letter", 0, rows.START),
        ],
        outbox=[
            OutboxRecord(
                "run-17", 2, rows.NAMESPACE, "order-17", rows.NAMESPACE, "letter-17", "start child", 11, rows.START, b""
            )
        ],
    )
    closed = rows.run("order-1", "run-1", status=rows.FAILED, closed_at=rows.START + rows.SECOND)
    going = rows.run("old", "run-0", namespace_id="going", status=rows.COMPLETED, closed_at=rows.START)
    await writer.commit(
        order,
        rows.write("order-1", closed),
        rows.write("order-2", rows.run("order-2", "run-2", task_state="none")),
        rows.write("old", going, namespace_id="going"),
    )


async def _fill_cluster(shell: Shell) -> None:
    leases = f"{rows.START}, {rows.START + 5 * rows.SECOND}"
    await shell.execute(
        "INSERT INTO member (node, session, release, started_at, lease_until, is_leaving)"
        f" VALUES ('b:7233', 'b', '1.1', {leases}, true), ('a:7233', 'a', '1.0', {leases}, false)"
    )
    await shell.execute(
        "INSERT INTO shard (shard, owner, epoch)"
        " VALUES (0, 'a:7233', 1), (1, 'gone:7233', 2), (2, 'a:7233', 3), (3, 'gone:7233', 1), (4, 'gone:7233', 1)"
    )


async def test_workflows_are_readable(shell: Shell) -> None:
    open_order, closed_order = await shell.select(
        "SELECT * FROM workflows WHERE workflow_id IN ('order-17', 'order-1') ORDER BY workflow_id DESC"
    )
    assert open_order == {
        "namespace": "default",
        "workflow_id": "order-17",
        "run_id": "run-17",
        "is_current": 1,
        "workflow_type": "Order",
        "task_queue": "orders",
        "status": "Running",
        "started": _AT,
        "first_task_due": _AT,
        "closed": None,
        "history_length": 19_999,
        "history_size_bytes": 100,
        "state_transition_count": 1,
        "workflow_task": "scheduled",
        "next_alarm": _after(9),
    }
    assert (closed_order["status"], closed_order["closed"]) == ("Failed", _after(1))


async def test_pending_activities_are_readable(shell: Shell) -> None:
    waiting, failing, running = await shell.select("SELECT * FROM pending_activities ORDER BY scheduled_event_id")
    assert (waiting["status"], waiting["ready"], waiting["namespace"]) == ("scheduled", _AT, "default")
    assert (failing["attempt"], failing["ready"], failing["last_failure"]) == (7, _after(3), "card declined")
    assert (running["status"], running["ready"], running["started"]) == ("started", None, _after(1))


async def test_workflow_tasks_are_those_of_open_runs(shell: Shell) -> None:
    [task] = await shell.select("SELECT * FROM workflow_tasks_not_completed")
    assert (task["workflow_id"], task["status"], task["attempt"]) == ("order-17", "scheduled", 4)
    assert (task["ready_in_queue"], task["scheduled"], task["started"]) == ("sticky-1", _after(0.5), None)


async def test_the_backlog_counts_what_waits_for_a_worker(shell: Shell) -> None:
    backlog = await shell.select("SELECT task_queue, kind, tasks, oldest FROM task_queue_backlog ORDER BY kind")
    assert backlog == [
        {"task_queue": "orders", "kind": "activity", "tasks": 1, "oldest": _AT},
        {"task_queue": "sticky-1", "kind": "workflow", "tasks": 1, "oldest": _after(0.5)},
    ]


async def test_timers_and_events_are_readable(shell: Shell) -> None:
    [timer] = await shell.select("SELECT workflow_type, timer_id, fires FROM timers")
    assert timer == {"workflow_type": "Order", "timer_id": "reminder", "fires": _after(30)}
    events = await shell.select("SELECT event_id, event_type, time, size_bytes FROM history ORDER BY event_id")
    assert events == [
        {"event_id": 1, "event_type": "WorkflowExecutionStarted", "time": _AT, "size_bytes": 5},
        {"event_id": 2, "event_type": "WorkflowTaskScheduled", "time": _AT, "size_bytes": 5},
    ]


async def test_children_and_messages_are_readable(shell: Shell) -> None:
    parcel, letter = await shell.select("SELECT * FROM pending_children ORDER BY initiated_event_id")
    assert parcel == {
        "namespace": "default",
        "workflow_id": "order-17",
        "run_id": "run-17",
        "child_workflow_id": "parcel-17",
        "child_run_id": "run-p",
        "child_workflow_type": "Parcel",
        "status": "started",
        "initiated": _AT,
        "initiated_event_id": 9,
    }
    assert (letter["child_run_id"], letter["status"]) == (None, "initiated")
    [message] = await shell.select("SELECT * FROM messages")
    assert message == {
        "namespace": "default",
        "workflow_id": "order-17",
        "run_id": "run-17",
        "kind": "start child",
        "to_namespace": "default",
        "to_workflow_id": "letter-17",
        "since": _AT,
        "number": 2,
        "initiated_event_id": 11,
    }


async def test_nodes_are_readable(shell: Shell) -> None:
    first, second = await shell.select("SELECT * FROM nodes ORDER BY node")
    assert first == {
        "node": "a:7233",
        "release": "1.0",
        "started": _AT,
        "lease_until": _after(5),
        "is_leaving": 0,
        "shards": 2,
    }
    assert (second["node"], second["is_leaving"], second["shards"]) == ("b:7233", 1, 0)


async def test_shards_without_a_node_are_seen(shell: Shell) -> None:
    assert await shell.select("SELECT * FROM shards_by_node ORDER BY node") == [
        {"node": "a:7233", "shards": 2, "is_member": 1},
        {"node": "gone:7233", "shards": 3, "is_member": 0},
    ]


async def test_waiting_says_what_since_when_and_why(shell: Shell) -> None:
    found = await shell.select(
        "SELECT workflow_id, waits_for, name, since, until, reason FROM waiting"
        " ORDER BY workflow_id, waits_for, reason",
    )
    assert [tuple(row.values()) for row in found] == [
        ("order-17", "activity", "Charge", _after(1), None, "a worker has it"),
        (
            "order-17",
            "activity",
            "Charge",
            _AT,
            _after(3),
            "it failed and will be retried; last failure: card declined",
        ),
        ("order-17", "activity", "Charge", _AT, None, "no worker has taken it"),
        ("order-17", "child workflow", "Parcel", _AT, None, "it has not closed: parcel-17"),
        ("order-17", "child workflow", "Letter", _AT, None, "it is being started: letter-17"),
        ("order-17", "delivery", "start child", _AT, None, "not delivered yet to letter-17"),
        ("order-17", "timer", "reminder", None, _after(30), "it is not due yet"),
        ("order-17", "workflow task", "Order", _after(0.5), None, "no worker has taken it"),
        ("order-2", "message", None, None, None, "nothing is pending: only a message from outside can move it"),
    ]


def test_there_are_examples_for_every_view() -> None:
    text = " ".join(query for _, query in EXAMPLES)
    assert [view.name for view in views(SqliteViewDialect()) if f"FROM {view.name}" not in text] == ["history"]
    assert "JOIN history" in text


@pytest.mark.parametrize(("kind", "example"), EXAMPLES)
async def test_the_examples_of_the_manual_work(shell: Shell, kind: str, example: str) -> None:
    if kind in ("sql", shell.name):
        assert await shell.select(example), "an example shows what it speaks of"


async def test_the_manual_names_every_column(shell: Shell) -> None:
    manual = MANUAL.read_text()
    sections = {
        view: section for section in manual.split("\n## ") for view in re.findall(r"^`(\w+)` has", section, re.M)
    }
    for view in views(SqliteViewDialect()):
        missing = [name for name in await shell.columns(view.name) if f"`{name}`" not in sections[view.name]]
        assert not missing, f"docs/sql.md does not explain {missing} of {view.name}"


@pytest.mark.parametrize("view", ["workflow_tasks_not_completed", "waiting"])
async def test_open_runs_are_found_without_reading_the_closed_ones(shell: Shell, view: str) -> None:
    assert not await shell.reads_whole(f"SELECT * FROM {view} LIMIT 5")
