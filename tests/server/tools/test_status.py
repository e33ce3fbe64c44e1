"""What `perdure db status` and `migrate` say of databases in every state."""

from __future__ import annotations

import asyncio
import os
import re
from types import SimpleNamespace
from urllib.parse import urlsplit

import asyncpg
import pytest

from perdure.server.store.interface import StoreMismatch
from perdure.server.store.postgres import PostgresStore
from perdure.server.store.schema import SCHEMA_VERSION
from perdure.server.store.sqlite import SqliteStore
from perdure.server.store.tools.interface import Access, ToolError
from perdure.server.store.tools.state import Standing
from perdure.server.tools.check import Checked
from perdure.server.tools.commands import Migrated, check, copy, migrate
from perdure.server.tools.status import status
from tests.postgres_server import Databases
from tests.server.store import versions
from tests.server.store.tools.places import by_hand, database_of, dialect_of, fill, store_of
from tests.server.tool_databases import NewDatabase


async def change(url: str, *statements: str) -> None:
    database = database_of(by_hand(url))
    await database.open(Access.MIGRATE)
    for statement in statements:
        await database.execute(statement)
    await database.close()


async def make_version_1(url: str) -> None:
    """Make a database as the first release left it."""
    await change(
        url,
        *versions.schema(1, "postgres" if "://" in url else "sqlite"),
        "INSERT INTO migration (version, applied_at) VALUES (1, 0)",
        "INSERT INTO meta (name, value) VALUES ('cluster_id', 'one')",
    )


async def test_a_database_in_use(empty_url: str) -> None:
    await fill(empty_url)
    store = store_of(empty_url)
    await store.open()
    if isinstance(store, PostgresStore):
        await store.join("local", "session", "1.0", 60.0)
    else:
        await store.claim("local")
    found = await status(empty_url)
    assert found.state.standing is Standing.CURRENT
    assert found.state.cluster_id == await store.cluster_id()
    # As a node and by its session, where the database can tell the session.
    assert len(found.servers) == (2 if empty_url.startswith("postgresql://") else 1)
    assert [tuple(writer) for writer in found.writers] == [("local", 1, 0), ("node", 1, 1)]
    sizes = dict(found.tables)
    assert (sizes["run"].rows, sizes["run"].is_estimate) == (14, False)
    if empty_url.startswith("cockroachdb://"):
        assert found.total_bytes is None, "it does not say"
    else:
        assert found.total_bytes is not None and found.total_bytes > 100_000
    assert re.fullmatch(r"(SQLite|PostgreSQL) [\d.]+", found.product)
    if isinstance(store, PostgresStore):
        await store.leave()
    await store.close()
    assert not (await status(empty_url)).servers


async def test_looking_changes_nothing(empty_url: str) -> None:
    await change(empty_url)
    found = await status(empty_url)
    assert (found.state.standing, found.tables) == (Standing.EMPTY, [])
    assert (await status(empty_url)).state.standing is Standing.EMPTY


async def test_an_older_database_is_told_of_led_and_current(old_url: str) -> None:
    await make_version_1(old_url)
    found = await status(old_url)
    assert (found.state.standing, found.state.version) == (Standing.OLDER, 1)
    assert [step.partition(":")[0] for step in found.steps] == [str(each) for each in range(2, SCHEMA_VERSION + 1)]
    assert "servers of the release before are stopped by it" in found.steps[0]
    assert await migrate(old_url) == Migrated(1, SCHEMA_VERSION)
    found = await status(old_url)
    assert (found.state.standing, found.state.cluster_id, found.steps) == (Standing.CURRENT, "one", [])
    assert await migrate(old_url) == Migrated(SCHEMA_VERSION, SCHEMA_VERSION)


async def test_a_schema_that_was_begun_is_none_yet(new_database: NewDatabase) -> None:
    """As a server leaves it that ends while it makes one statement at a time."""
    url = await new_database("cockroach")
    statements = dialect_of(url).definitions()
    for statement in statements[:6]:
        await change(url, statement)
        assert (await status(url)).state.standing is Standing.EMPTY
    await change(url, *statements)
    assert (await status(url)).state.standing is Standing.EMPTY
    assert await migrate(url) == Migrated(None, SCHEMA_VERSION)


async def test_a_new_database_is_made(empty_url: str) -> None:
    assert await migrate(empty_url) == Migrated(None, SCHEMA_VERSION)
    assert (await status(empty_url)).state.standing is Standing.CURRENT


async def test_calls_at_once_migrate_once(old_url: str) -> None:
    await make_version_1(old_url)
    # Each in a thread with a loop of its own, as in processes of their own.
    calls = [asyncio.to_thread(lambda: asyncio.run(migrate(old_url))) for _ in range(4)]
    done = await asyncio.gather(*calls)
    assert Migrated(1, SCHEMA_VERSION) in done
    assert {each.after for each in done} == {SCHEMA_VERSION}
    assert await applied(old_url) == list(range(1, SCHEMA_VERSION + 1))


async def applied(url: str) -> list[object]:
    """Return the versions that were led to, each once."""
    database = database_of(url)
    await database.open(Access.READ)
    rows = await database.fetch("SELECT version FROM migration ORDER BY version")
    await database.close()
    return [version for (version,) in rows]


async def test_a_newer_database_is_left_alone(empty_url: str) -> None:
    await migrate(empty_url)
    await change(empty_url, f"INSERT INTO migration (version, applied_at) VALUES ({SCHEMA_VERSION + 1}, 0)")
    assert (await status(empty_url)).state.standing is Standing.NEWER
    with pytest.raises(ToolError, match=f"version {SCHEMA_VERSION + 1}; this release knows"):
        await migrate(empty_url)


async def test_a_database_of_something_else_is_left_alone(empty_url: str) -> None:
    await change(empty_url, "CREATE TABLE album (title TEXT)")
    assert (await status(empty_url)).state.standing is Standing.FOREIGN
    with pytest.raises(ToolError, match="not Perdure's"):
        await migrate(empty_url)


async def test_a_schema_may_have_a_name_that_needs_quotes(new_database: NewDatabase) -> None:
    """For a server and for every tool."""
    url, target = await new_database("postgres"), await new_database("sqlite")
    await change(url, 'CREATE SCHEMA "odd ""schema"""')
    odd = f"{url}?search_path=%22odd%20%22%22schema%22%22%22"
    assert (await status(odd)).state.standing is Standing.EMPTY
    assert await migrate(odd) == Migrated(None, SCHEMA_VERSION)
    await fill(odd)
    assert dict((await status(odd)).tables)["run"].rows == 14
    assert [problem async for problem in check(odd, Checked())] == []
    assert dict(await copy(odd, target, lambda progress: None))["run"].rows == 14
    assert (await status(url)).state.standing is Standing.EMPTY, "the other schemas of the database are left alone"


# --- servers that are told not to migrate -----------------------------------------------------------------------------


async def _serve_without_migrating(url: str) -> None:
    dialect = dialect_of(url)
    store = PostgresStore(url, dialect=dialect, migrates=False) if "://" in url else SqliteStore(url, migrates=False)
    await store.open()
    await store.claim("local")
    await store.close()


async def test_a_server_may_be_told_to_leave_the_schema_alone(empty_url: str) -> None:
    with pytest.raises(StoreMismatch, match=r"no schema.*`perdure db migrate`"):
        await _serve_without_migrating(empty_url)
    await migrate(empty_url)
    await _serve_without_migrating(empty_url)


async def test_a_server_may_be_told_to_leave_an_older_schema_alone(old_url: str) -> None:
    await make_version_1(old_url)
    with pytest.raises(StoreMismatch, match=r"version 1; this release needs.*`perdure db migrate`"):
        await _serve_without_migrating(old_url)
    assert (await status(old_url)).state.version == 1
    await migrate(old_url)
    await _serve_without_migrating(old_url)


async def test_a_database_in_memory_is_made_whatever_the_server_was_told() -> None:
    store = SqliteStore(None, migrates=False)
    await store.open()
    await store.close()


# --- what cannot be reached -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("db", "message"),
    [
        ("memory:", "in memory is gone with its server"),
        ("mysql://here/orders", "write sqlite:///file.db, a path, postgresql://.*cockroachdb://"),
        ("sqlite://orders.db", "three slashes"),
        ("sqlite:///no/such/folder/orders.db", "There is no file"),
        ("postgresql://perdure:secret@127.0.0.1:1/orders", "cannot be reached: .*does it run"),
        ("postgresql://perdure:secret@no-such-host.invalid/orders", "cannot be reached: .*host and port"),
        ("postgresql://perdure:secret@127.0.0.1:port/orders", "write postgresql://user:password@host:port/database"),
        ("cockroachdb://perdure:secret@127.0.0.1:1/orders", "cockroachdb://.* cannot be reached: .*does it run"),
        ("cockroachdb://perdure:secret@127.0.0.1:port/orders", "write cockroachdb://user:password@host:port/database"),
    ],
)
async def test_what_is_no_database_is_said_clearly(db: str, message: str) -> None:
    with pytest.raises(ToolError, match=message) as refused:
        await status(db)
    assert "secret" not in str(refused.value)


async def test_a_missing_folder_is_said_clearly() -> None:
    with pytest.raises(ToolError, match="There is no folder for the file"):
        await migrate("no/such/folder/orders.db")


async def test_a_missing_database_is_said_clearly(databases: Databases) -> None:
    url = urlsplit(databases.url)._replace(path="/not_there").geturl()
    with pytest.raises(ToolError, match=r'"not_there" does not exist: make the database \(createdb\)'):
        await status(url)


@pytest.mark.parametrize("scheme", ["postgresql", "cockroachdb"])
async def test_a_missing_schema_is_said_clearly(scheme: str, new_database: NewDatabase) -> None:
    """It is not taken for an empty one: what would be made has no place."""
    url = await new_database("postgres" if scheme == "postgresql" else "cockroach")
    for command in (status, migrate):
        with pytest.raises(ToolError, match="There is no schema to work in: make the one that the URL"):
            await command(f"{url}?search_path=nowhere")


async def test_another_kind_of_database_than_the_url_says_is_said_clearly(
    databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the words of the server, by every tool and whatever it would have asked."""
    url = databases.url.replace("postgresql://", "cockroachdb://", 1)
    for command in (status, migrate):
        with pytest.raises(ToolError, match="This is not CockroachDB: write postgresql:// instead"):
            await command(url)
    monkeypatch.setattr(asyncpg.Connection, "get_settings", lambda connection: SimpleNamespace(crdb_version="v24.3.1"))
    for command in (status, migrate):
        with pytest.raises(ToolError, match="This is CockroachDB: write cockroachdb:// instead"):
            await command(databases.url)


async def test_a_missing_right_is_said_clearly(databases: Databases) -> None:
    """By the role that may connect and nothing more."""
    url = await databases.create_empty()
    role = f"guest_{os.getpid()}"
    await databases.execute(f"CREATE ROLE {role} LOGIN")
    parts = urlsplit(url)
    guest = parts._replace(netloc=f"{role}@{parts.hostname}:{parts.port}").geturl()
    try:
        await change(url, "REVOKE CREATE ON SCHEMA public FROM PUBLIC")
        with pytest.raises(ToolError, match="The role lacks a right: permission denied for schema public") as refused:
            await migrate(guest)
        assert "the owner: of a schema USAGE and CREATE" in str(refused.value)
        await migrate(url)
        with pytest.raises(ToolError, match="The role lacks a right: permission denied for table meta"):
            await status(guest)
    finally:
        await databases.drop(url)
        await databases.execute(f"DROP ROLE {role}")
