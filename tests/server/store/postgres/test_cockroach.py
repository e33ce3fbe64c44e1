"""What is done in another way on CockroachDB, as far as PostgreSQL can show it."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import cast

import asyncpg
import pytest

from perdure.server.app import make_store
from perdure.server.settings import ServerSettings
from perdure.server.store.interface import Fenced, StoreMismatch, StoreUnavailable
from perdure.server.store.postgres import COCKROACH, POSTGRES, PostgresStore
from perdure.server.store.postgres.cockroach import version_of
from perdure.server.store.postgres.connections import Connection
from perdure.server.store.postgres.dialect import PostgresDialect
from perdure.server.store.postgres.migrations import migrate
from perdure.server.store.postgres.statements import FENCE
from perdure.server.store.postgres.steps import Steps
from perdure.server.store.schema import SCHEMA_VERSION, TABLES
from perdure.server.store.tools.marker import MARK, Marker, marker_text
from tests.server.store import rows
from tests.server.store.faults import Call, CockroachOnPostgres, EachStatement, Fault, PersistentStore
from tests.server.store.postgres.shell import Shell
from tests.server.store.writing import Writer

ON_POSTGRES = CockroachOnPostgres()

# --- which server -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "dsn"),
    [
        ("cockroachdb://ada:pw@db.example/orders", "postgresql://ada:pw@db.example:26257/orders"),
        ("cockroachdb://db.example:5433/orders?sslmode=require", "postgresql://db.example:5433/orders?sslmode=require"),
        (
            "cockroachdb://root@one,two:1,[::1],[::1]:2/orders",
            "postgresql://root@one:26257,two:1,[::1]:26257,[::1]:2/orders",
        ),
        ("cockroachdb:///orders?host=db.example", "postgresql:///orders?host=db.example"),
        ("postgresql://db.example/orders", "postgresql://db.example/orders"),
    ],
)
def test_a_url_is_turned_into_one_that_the_driver_takes(url: str, dsn: str) -> None:
    assert COCKROACH.dsn(url) == dsn
    assert POSTGRES.dsn(url) == url


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("CockroachDB CCL v23.1.11 (x86_64-pc-linux-gnu, built 2023/09/27, go1.19.10)", (23, 1)),
        ("CockroachDB OSS v9.10.0-rc.1 (x86_64)", (9, 10)),
        ("CockroachDB CCL vNext", (0, 0)),
        ("PostgreSQL 15.6", (0, 0)),
    ],
)
def test_a_server_says_which_release_it_is(text: str, version: tuple[int, int]) -> None:
    assert version_of(text) == version


def _server(**says: str) -> Connection:
    """Return a connection of which nothing but what the server said of itself is there."""
    version = SimpleNamespace(major=13)
    found = SimpleNamespace(get_settings=lambda: SimpleNamespace(**says), get_server_version=lambda: version)
    return cast("Connection", found)


async def test_each_scheme_takes_only_its_own_servers() -> None:
    cockroach, postgres = _server(crdb_version="CockroachDB CCL v24.3.1 (x86_64)"), _server()
    await COCKROACH.check_server(cockroach)
    await POSTGRES.check_server(postgres)
    with pytest.raises(StoreMismatch, match="write cockroachdb://"):
        await POSTGRES.check_server(cockroach)
    with pytest.raises(StoreMismatch, match="write postgresql://"):
        await COCKROACH.check_server(postgres)
    with pytest.raises(StoreMismatch, match=r"CockroachDB 23\.2 or newer is needed; this is CockroachDB CCL v23\.1\.9"):
        await COCKROACH.check_server(_server(crdb_version="CockroachDB CCL v23.1.9 (x86_64)"))


@pytest.mark.parametrize(("db", "dialect"), [("cockroachdb://h/d", COCKROACH), ("postgresql://h/d", POSTGRES)])
def test_the_scheme_of_the_url_chooses(db: str, dialect: PostgresDialect) -> None:
    store = make_store(ServerSettings(db=db))
    assert isinstance(store, PostgresStore)
    assert store._dialect is dialect


async def test_postgresql_is_refused_where_cockroachdb_is_named(postgres_url: str) -> None:
    store = PostgresStore(postgres_url.replace("postgresql://", "cockroachdb://"), dialect=COCKROACH)
    with pytest.raises(StoreMismatch, match="write postgresql://"):
        await store.open()


# --- the schema, one statement at a time --------------------------------------------------------------------------


async def _names(connection: Shell) -> set[str]:
    found = await connection.fetch(
        "SELECT relname FROM pg_class"
        " WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'i', 'v')"
    )
    return {name for (name,) in found}


async def _versions(connection: Shell) -> list[int]:
    return [version for (version,) in await connection.fetch("SELECT version FROM migration ORDER BY version")]


class _Stops(Exception):
    """A server ends in the middle of its work."""


class _StopsAt(asyncpg.Connection):
    """A connection of a server that ends at the n-th change that it makes."""

    left: int

    async def execute(self, query: str, *args: object, timeout: float | None = None) -> str:
        if not query.startswith("SET"):
            self.left -= 1
            if self.left < 0:
                raise _Stops
        return str(await super().execute(query, *args, timeout=timeout))


async def test_a_schema_that_was_begun_is_finished_by_whoever_comes_next(connection: Shell, empty_url: str) -> None:
    changes = len(ON_POSTGRES.definitions()) + 3
    for number in range(changes):
        stopping = await asyncpg.connect(empty_url, connection_class=_StopsAt)
        # As far as the one before came, and one change further.
        stopping.left = number
        with pytest.raises(_Stops):
            await migrate(stopping, dialect=ON_POSTGRES)
        await stopping.close()
    assert await _versions(connection) == []
    await migrate(await asyncpg.connect(empty_url), dialect=ON_POSTGRES)
    assert await _versions(connection) == [SCHEMA_VERSION]
    assert {table.name for table in TABLES} <= await _names(connection)
    names = await connection.fetch("SELECT name FROM meta ORDER BY name")
    assert [name for (name,) in names] == ["cluster_id", "cluster_version"]


async def test_the_schema_is_the_same_by_name(connection: Shell, empty_url: str, shell: Shell) -> None:
    await migrate(await asyncpg.connect(empty_url), dialect=ON_POSTGRES)
    assert await _names(connection) == await _names(shell)


async def test_servers_that_start_at_once_make_the_schema_once(connection: Shell, empty_url: str) -> None:
    stores = [PostgresStore(empty_url, dialect=ON_POSTGRES) for _ in range(4)]
    await asyncio.gather(*(store.open() for store in stores))
    assert len({await store.cluster_id() for store in stores}) == 1
    assert await _versions(connection) == [SCHEMA_VERSION]
    for store in stores:
        await store.close()


STEPS: Steps = {
    SCHEMA_VERSION + 1: ("ALTER TABLE meta ADD COLUMN IF NOT EXISTS more text",),
    SCHEMA_VERSION + 2: (
        "CREATE TABLE IF NOT EXISTS second (id text)",
        "INSERT INTO second (id) SELECT 'only' WHERE NOT EXISTS (SELECT 1 FROM second)",
    ),
}


async def test_a_step_that_was_begun_is_done_again(connection: Shell, empty_url: str) -> None:
    target = SCHEMA_VERSION + 2
    await migrate(await asyncpg.connect(empty_url), dialect=ON_POSTGRES)
    for number in range(5):
        stopping = await asyncpg.connect(empty_url, connection_class=_StopsAt)
        # A version that is recorded is not led to again.
        stopping.left = number if number < 2 else number - 2
        with pytest.raises(_Stops):
            await migrate(stopping, dialect=ON_POSTGRES, target=target, steps=STEPS)
        await stopping.close()
    assert await _versions(connection) == [SCHEMA_VERSION, SCHEMA_VERSION + 1]
    await migrate(await asyncpg.connect(empty_url), dialect=ON_POSTGRES, target=target, steps=STEPS)
    assert await _versions(connection) == [SCHEMA_VERSION, SCHEMA_VERSION + 1, SCHEMA_VERSION + 2]
    assert await connection.fetchval("SELECT count(*) FROM second") == 1


class _Overtaken(asyncpg.Connection):
    """A connection of a server that is overtaken by a copy before it says which version it has made."""

    url: str

    async def execute(self, query: str, *args: object, timeout: float | None = None) -> str:
        if query.startswith("INSERT INTO migration"):
            other = await asyncpg.connect(self.url)
            await other.execute("INSERT INTO meta (name, value) VALUES ($1, $2)", MARK, marker_text(COPY))
            await other.close()
        return str(await super().execute(query, *args, timeout=timeout))


COPY = Marker(source="orders.db", cluster_id="one", schema_version=SCHEMA_VERSION, fences="", session="s")


async def test_half_a_copy_is_not_taken_for_a_schema_that_was_begun(connection: Shell, empty_url: str) -> None:
    """Neither by who comes later, nor by who was making the schema when the copy began."""
    overtaken = await asyncpg.connect(empty_url, connection_class=_Overtaken)
    overtaken.url = empty_url
    with pytest.raises(StoreMismatch, match=r"copy of orders\.db into this database is not complete"):
        await migrate(overtaken, dialect=ON_POSTGRES)
    await overtaken.close()
    for may_change in (True, False):
        with pytest.raises(StoreMismatch, match=r"copy of orders\.db into this database is not complete"):
            await migrate(connection, dialect=ON_POSTGRES, may_change=may_change)
    assert await _versions(connection) == []


async def test_a_server_that_may_not_change_the_schema_makes_none_and_ends_none(
    connection: Shell, empty_url: str
) -> None:
    for _ in range(2):
        with pytest.raises(StoreMismatch, match="no schema"):
            await migrate(connection, dialect=ON_POSTGRES, may_change=False)
        await connection.execute(ON_POSTGRES.definitions()[0])
    await migrate(await asyncpg.connect(empty_url), dialect=ON_POSTGRES)
    await migrate(connection, dialect=ON_POSTGRES, may_change=False)
    with pytest.raises(StoreMismatch, match="this release needs"):
        await migrate(connection, dialect=ON_POSTGRES, target=SCHEMA_VERSION + 1, may_change=False)


async def test_a_session_that_migrated_is_made_anew_with_its_time_limit(empty_url: str) -> None:
    store = PostgresStore(empty_url, dialect=ON_POSTGRES)
    await store.open()

    async def limit(connection: Connection) -> object:
        return await connection.fetchval("SHOW statement_timeout")

    assert await store._writer.run(limit) == "30s"
    await store.close()


async def test_a_database_of_something_else_is_refused_and_left_alone(connection: Shell) -> None:
    await connection.execute("CREATE TABLE album (title TEXT)")
    with pytest.raises(StoreMismatch, match="not Perdure's"):
        await migrate(connection, dialect=ON_POSTGRES)
    await connection.execute("CREATE TABLE migration (version bigint)")
    with pytest.raises(StoreMismatch, match="does not say"):
        await migrate(connection, dialect=ON_POSTGRES)
    assert await _names(connection) == {"album", "migration"}


# --- what fails, and that the suite really makes it fail ------------------------------------------------------------


class _Noted(EachStatement):
    """Fails each statement, and notes it."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault)
        self.passed: list[str] = []
        self.failed: list[str] = []

    def fault_of(self, call: Call, *, is_in_transaction: bool) -> Fault | None:
        fault = super().fault_of(call, is_in_transaction=is_in_transaction)
        (self.failed if fault else self.passed).append(call.statement)
        return fault


@pytest.mark.parametrize("fault", list(Fault), ids=lambda fault: fault.name)
async def test_a_batch_is_written_once_however_each_of_its_statements_fails(postgres_url: str, fault: Fault) -> None:
    plan = _Noted(fault)
    store = PersistentStore(postgres_url, plan)
    await store.open()
    writer = await Writer.claim(store)
    await writer.commit(rows.write("w", rows.run("w", "r0"), rows.run("w", "r1", is_current=False)))
    await writer.commit(rows.write_to_every_table(["r0", "r1"]))
    assert {"BEGIN", FENCE, "COMMIT"} < set(plan.passed)
    asked = {*plan.passed, *plan.failed}
    assert len({each for each in asked if each.startswith("WITH")}) > 2, "all of one batch, and parts of the other"
    assert set(plan.passed) - {"ROLLBACK"} <= set(plan.failed), "each has failed"
    [loaded] = await store.load_current_runs([rows.key("w")])
    assert loaded is not None
    assert loaded.run.version == 2
    await store.close()


class _EveryCommit:
    """No transaction is ever committed."""

    def fault_of(self, call: Call, *, is_in_transaction: bool) -> Fault | None:
        return Fault.GIVEN_UP if call.statement == "COMMIT" else None


async def test_a_batch_that_begins_anew_finds_that_its_place_was_taken(postgres_url: str, shell: Shell) -> None:
    store = PersistentStore(postgres_url, _EveryCommit())
    await store.open()
    writer = await Writer.claim(store)
    commit = asyncio.create_task(writer.commit(rows.write("w", rows.run("w", "r"))))
    while not commit.done():
        await shell.execute("UPDATE node SET incarnation = incarnation + 1")
    with pytest.raises(Fenced):
        await commit
    assert await store.load_run(rows.key("w"), "r") is None
    await store.close()


async def test_a_statement_alone_that_is_given_up_is_done_again(postgres_url: str) -> None:
    plan = _Noted(Fault.GIVEN_UP)
    store = PersistentStore(postgres_url, plan)
    await store.open()
    await store.claim("node")
    await store.save_namespace(rows.namespace("orders"))
    assert [each.name for each in await store.list_namespaces()] == ["orders"]
    assert len(plan.failed) == len(plan.passed) == 3
    await store.close()


class _EveryRead:
    """No read is ever answered."""

    def fault_of(self, call: Call, *, is_in_transaction: bool) -> Fault | None:
        return Fault.GIVEN_UP if call.statement.startswith("SELECT") else None


async def test_what_is_given_up_each_time_is_away_for_now(postgres_url: str) -> None:
    store = PersistentStore(postgres_url, _EveryRead())
    await store.open()
    with pytest.raises(StoreUnavailable, match="gave the transaction up"):
        await store.list_namespaces()
    await store.close()
