"""From version 1 to version 2: every row gets its shard, and who still has version 1 in mind is fenced."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from perdure.server.core.records import WorkflowKey
from perdure.server.core.shards import SHARDS, shard_of
from perdure.server.store.interface import Claim
from perdure.server.store.postgres import PostgresStore
from perdure.server.store.postgres.connections import writing_session
from perdure.server.store.postgres.migrations import migrate
from perdure.server.store.settings import PostgresSettings
from tests.server.store import rows, versions
from tests.server.store.postgres.shell import Shell, until
from tests.server.store.writing import Node

MANY = 12_000
"""More than are looked at at once."""


@pytest.fixture
async def connection(connection: Shell) -> Shell:
    """A session on a database of version 1."""
    for statement in versions.schema(1, "postgres"):
        await connection.execute(statement)
    for table, row in versions.rows_of_version_1():
        marks = ", ".join(f"${number}" for number, _ in enumerate(row, start=1))
        await connection.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})", *row.values())
    return connection


async def _misplaced(connection: Shell, table: str) -> list[asyncpg.Record]:
    found = await connection.fetch(f"SELECT namespace_id, workflow_id, shard FROM {table}")
    assert found
    return [row for row in found if row[2] != shard_of(WorkflowKey(row[0], row[1]))]


@pytest.mark.parametrize("table", ["run", "activity", "outbox"])
async def test_every_row_gets_the_shard_of_its_workflow_id(connection: Shell, table: str) -> None:
    await migrate(connection)
    assert await _misplaced(connection, table) == []


async def test_many_rows_are_filled_page_by_page(connection: Shell, empty_url: str) -> None:
    [(names,)] = await connection.fetch(
        "SELECT string_agg(attname, ', ' ORDER BY attnum) FROM pg_attribute WHERE attrelid = 'run'::regclass"
        " AND attnum > 0 AND attname NOT IN ('run_id', 'workflow_id')"
    )
    await connection.execute(
        f"INSERT INTO run (run_id, workflow_id, {names}) SELECT 'r' || number, 'w' || number, {names}"
        f" FROM run, generate_series(1, {MANY}) AS number WHERE run_id = 'run of order-1'"
    )
    store = PostgresStore(empty_url)
    await store.open()
    await store.close()
    assert await _misplaced(connection, "run") == []
    assert await connection.fetchval("SELECT count(DISTINCT shard) FROM run") == SHARDS


async def test_the_schema_is_that_of_a_new_database(connection: Shell, shell: Shell) -> None:
    await migrate(connection)
    assert await _definitions(connection) == await _definitions(shell)


async def test_runs_go_on_where_they_were(connection: Shell, empty_url: str) -> None:
    store = PostgresStore(empty_url)
    await store.open()
    assert await store.cluster_id() == "4a3b2c1d-0000-4000-8000-000000000000"
    [loaded] = await store.load_current_runs([rows.key("order-2")])
    assert loaded is not None
    assert (loaded.run.run_id, loaded.started_event, len(loaded.activities)) == ("run of order-2", b"event", 2)
    node = Node("a:1", store)
    await node.join("life 1", 60)
    assert len(await node.shards()) == SHARDS
    store.limit_to(frozenset({shard_of(rows.key("order-2"))}))
    ready = await store.ready_workflow_tasks(rows.NAMESPACE, "orders", 10)
    assert [task.workflow_id for task in ready] == ["order-2"]
    assert len((await store.read_outbox(10, 1_000)).records) == 1
    await node.commit(rows.write("order-2", rows.run("order-2", "run of order-2", stored_version=1)))
    await store.close()


async def test_a_server_of_the_release_before_is_fenced(connection: Shell, empty_url: str) -> None:
    store = PostgresStore(empty_url)
    await store.open()
    # Its own claim was of incarnation 3.
    assert await store.claim("node") == Claim(incarnation=5, batch=17)
    await store.close()


async def test_a_batch_of_the_release_before_is_waited_for(connection: Shell, empty_url: str) -> None:
    await connection.execute("BEGIN")
    await connection.execute("UPDATE node SET batch = 18 WHERE node = 'node' AND incarnation = 3 AND batch = 17")
    session = writing_session(PostgresSettings())
    migrating, watching = [await asyncpg.connect(empty_url, server_settings=session) for _ in range(2)]
    migration = asyncio.create_task(migrate(migrating))
    await watching.execute(
        until(f"EXISTS (SELECT FROM pg_locks WHERE NOT granted AND pid = {migrating.get_server_pid()})")
    )
    await connection.execute("UPDATE run SET workflow_id = 'order-7' WHERE workflow_id = 'order-1'")
    await connection.execute("COMMIT")
    await migration
    assert await _misplaced(connection, "run") == []
    assert await connection.fetchval("SELECT (incarnation, batch) FROM node") == (4, 18)
    for each in (migrating, watching):
        await each.close()


async def _definitions(connection: Shell) -> list[list[tuple[object, ...]]]:
    """Return what the catalogue says of columns, indexes and views."""
    queries = (
        "SELECT table_name, ordinal_position, column_name, data_type, is_nullable, column_default, collation_name"
        " FROM information_schema.columns WHERE table_schema = current_schema()",
        "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = current_schema()",
        "SELECT viewname, definition FROM pg_views WHERE schemaname = current_schema()",
    )
    return [sorted(tuple(row) for row in await connection.fetch(query)) for query in queries]
