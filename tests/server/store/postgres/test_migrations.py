"""Databases of other releases: newer ones are refused, older ones are led to the present, all or nothing."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from perdure.server.store.interface import StoreMismatch
from perdure.server.store.postgres import PostgresStore
from perdure.server.store.postgres.migrations import migrate
from perdure.server.store.postgres.steps import STEPS, Steps
from perdure.server.store.schema import SCHEMA_VERSION, TABLES
from tests.postgres_server import Databases
from tests.server.store.postgres.shell import Shell


async def _versions(connection: Shell) -> list[int]:
    return [version for (version,) in await connection.fetch("SELECT version FROM migration ORDER BY version")]


async def _tables(connection: Shell) -> set[str]:
    rows = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = current_schema()")
    return {name for (name,) in rows}


async def test_a_new_database_gets_the_whole_schema(connection: Shell) -> None:
    await migrate(connection)
    assert await _tables(connection) == {table.name for table in TABLES}
    assert await _versions(connection) == [SCHEMA_VERSION]


async def test_text_compares_by_code_point_whatever_the_language_of_the_database(connection: Shell) -> None:
    await migrate(connection)
    other = await connection.fetch(
        "SELECT attrelid::regclass, attname FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid"
        " WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r' AND attnum > 0"
        " AND atttypid = 'text'::regtype AND attcollation <> '\"C\"'::regcollation"
    )
    assert other == []


async def test_migrating_twice_changes_nothing(connection: Shell) -> None:
    await migrate(connection)
    catalogue = "SELECT oid, relname, relfilenode FROM pg_class WHERE relnamespace = current_schema()::regnamespace"
    schema, meta = await connection.fetch(catalogue), await connection.fetch("SELECT * FROM meta")
    await migrate(connection)
    assert await connection.fetch(catalogue) == schema
    assert await connection.fetch("SELECT * FROM meta") == meta


async def test_servers_that_start_at_once_make_the_schema_once(empty_url: str) -> None:
    stores = [PostgresStore(empty_url) for _ in range(4)]
    await asyncio.gather(*(store.open() for store in stores))
    assert len({await store.cluster_id() for store in stores}) == 1
    for store in stores:
        await store.close()


def test_every_older_version_has_its_step() -> None:
    assert set(STEPS) == set(range(2, SCHEMA_VERSION + 1))


async def test_an_older_database_is_led_there_step_by_step(connection: Shell) -> None:
    await migrate(connection, target=1, steps={})
    steps: Steps = {2: ("CREATE TABLE second (id TEXT)",), 3: ("ALTER TABLE second ADD COLUMN more TEXT",)}
    await migrate(connection, target=3, steps=steps)
    assert await _versions(connection) == [1, 2, 3]
    await connection.execute("SELECT more FROM second")


async def test_servers_that_migrate_at_once_do_it_once(connection: Shell, empty_url: str) -> None:
    await migrate(connection, target=1, steps={})
    connections = [await asyncpg.connect(empty_url) for _ in range(4)]
    steps: Steps = {2: ("CREATE TABLE second (id TEXT)", "SELECT pg_sleep(0.05)")}
    await asyncio.gather(*(migrate(each, target=2, steps=steps) for each in connections))
    assert await _versions(connection) == [1, 2]
    for each in connections:
        await each.close()


async def test_a_step_that_fails_leaves_the_database_as_it_was(connection: Shell) -> None:
    await migrate(connection, target=1, steps={})
    steps: Steps = {2: ("CREATE TABLE second (id TEXT)",), 3: ("DROP TABLE missing",)}
    with pytest.raises(asyncpg.UndefinedTableError):
        await migrate(connection, target=3, steps=steps)
    assert await _versions(connection) == [1]
    assert "second" not in await _tables(connection)


async def test_a_database_of_a_newer_release_is_refused_and_left_alone(connection: Shell, empty_url: str) -> None:
    await migrate(connection)
    await connection.execute(f"INSERT INTO migration (version, applied_at) VALUES ({SCHEMA_VERSION + 1}, 0)")
    with pytest.raises(StoreMismatch, match=f"version {SCHEMA_VERSION + 1}"):
        await PostgresStore(empty_url).open()
    assert await _versions(connection) == [SCHEMA_VERSION, SCHEMA_VERSION + 1]


async def test_a_database_of_something_else_is_refused_and_left_alone(connection: Shell, empty_url: str) -> None:
    await connection.execute("CREATE TABLE album (title TEXT)")
    with pytest.raises(StoreMismatch, match="not Perdure's"):
        await PostgresStore(empty_url).open()
    assert await _tables(connection) == {"album"}


async def test_a_schema_of_its_own_shares_a_database_with_others(connection: Shell, empty_url: str) -> None:
    await connection.execute("CREATE TABLE album (title TEXT)")
    with pytest.raises(StoreMismatch, match="no schema"):
        await PostgresStore(f"{empty_url}?search_path=durable").open()
    await connection.execute("CREATE SCHEMA durable")
    store = PostgresStore(f"{empty_url}?search_path=durable")
    await store.open()
    await store.claim("node")
    await store.close()
    assert await connection.fetchval("SELECT count(*) FROM durable.node") == 1
    assert await _tables(connection) == {"album"}


async def test_a_database_of_another_encoding_is_refused(databases: Databases) -> None:
    url = await databases.create_empty(" ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'")
    with pytest.raises(StoreMismatch, match="UTF8"):
        await PostgresStore(url).open()
    await databases.drop(url)
