"""From version 2 to version 3: closed runs wait for no alarm any more, and are found by when they closed."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from perdure.server.store.sqlite import SqliteStore
from perdure.server.store.sqlite.migrations import migrate
from perdure.server.store.sqlite.steps import STEPS
from tests.server.store import rows, versions


async def test_closed_runs_lose_their_alarms_and_keep_their_time(tmp_path: Path) -> None:
    path = tmp_path / "perdure.db"
    connection = sqlite3.connect(path, isolation_level=None)
    for statement in versions.schema(1, "sqlite"):
        connection.execute(statement)
    for table, row in versions.rows_of_version_1():
        names, marks = ", ".join(row), ", ".join("?" * len(row))
        connection.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", list(row.values()))
    migrate(connection, target=2, steps={2: STEPS[2]})
    connection.execute("UPDATE run SET status = 2, closed_at = ? WHERE workflow_id = 'order-1'", (rows.START + 9,))
    connection.close()
    store = SqliteStore(str(path))
    await store.open()
    alarms = await store.due_alarms(2 * rows.START, 10)
    assert sorted(alarm.workflow_id for alarm in alarms) == ["order-0", "order-2", "order-3", "order-4"]
    [closed] = await store.closed_runs(rows.NAMESPACE, 10, None)
    assert (closed.workflow_id, closed.closed_at) == ("order-1", rows.START + 9)
    await store.close()
