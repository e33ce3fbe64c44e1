"""Copies: the same rows, whatever kinds of databases; gone on with after any end; never half a copy that is served."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import product

import pytest

from perdure.server.core.records import WorkflowKey
from perdure.server.core.stored import restore
from perdure.server.store.interface import StoreError, StoreMismatch
from perdure.server.store.postgres.tools import PostgresDatabase
from perdure.server.store.schema import EVENT, RUN, ColumnType, Table
from perdure.server.store.sqlite.dialect import SqliteViewDialect
from perdure.server.store.sqlite.tools import SqliteDatabase
from perdure.server.store.tools.copying import Copied, Progress, Report, begin, copy
from perdure.server.store.tools.interface import Access, Database, PageLimits, Row, ToolError, Value
from perdure.server.store.tools.tables import DATA, OF_ONE_DATABASE
from perdure.server.store.views import views
from tests.server.core.story import KEY
from tests.server.store.faults import EachCommit, EachStatement, Fault, Plan, faulty_dialect
from tests.server.store.tools.places import SMALL_PAGES, by_hand, database_of, dialect_of, fill, store_of
from tests.server.tool_databases import NewDatabase

DIRECTIONS = [
    pytest.param(source, target, id=f"{source}-to-{target}")
    for source, target in (
        *product(("sqlite", "postgres"), repeat=2),
        ("sqlite", "cockroach"),
        ("cockroach", "postgres"),
    )
]
EVERY_DIRECTION = pytest.mark.parametrize(("source_kind", "target_kind"), DIRECTIONS)


class PowerCut(Exception):
    """The end of a process, wherever it is."""


class _Cut:
    """A database whose process ends at its n-th insert, before or after it is written."""

    inserts_left = 0

    async def insert(self, table: Table, rows: Sequence[Row]) -> None:
        self.inserts_left -= 1
        if self.inserts_left < 0:
            raise PowerCut
        await super().insert(table, rows)  # type: ignore[misc]  # a mix-in: the database comes after it


class CutSqlite(_Cut, SqliteDatabase):
    """One in a file."""


class CutPostgres(_Cut, PostgresDatabase):
    """One on a server."""


def cut_database(url: str, inserts: int) -> CutSqlite | CutPostgres:
    database = CutPostgres(url, url, SMALL_PAGES, dialect_of(url)) if "://" in url else CutSqlite(url, SMALL_PAGES)
    database.inserts_left = inserts
    return database


@asynccontextmanager
async def opened(database: Database, access: Access) -> AsyncIterator[Database]:
    await database.open(access)
    try:
        yield database
    finally:
        await database.close()


def ignore(progress: Progress) -> None:
    pass


async def begin_and_copy(source: Database, target: Database, report: Report) -> list[Copied]:
    return await copy(source, target, await begin(source), report)


async def copied(source: str, target: str | Database) -> list[Copied]:
    """Copy as the command does."""
    into = database_of(target) if isinstance(target, str) else target
    async with opened(database_of(source), Access.COPY_FROM) as one, opened(into, Access.COPY_INTO) as other:
        return await begin_and_copy(one, other, ignore)


async def all_rows(url: str) -> dict[str, list[Row]]:
    """Read a database, in one page per table."""
    async with opened(database_of(url, PageLimits()), Access.READ) as database:
        return {table.name: await database.read_page(table, None) for table in DATA}


async def change(url: str, statement: str) -> None:
    """Do what nobody should."""
    async with opened(database_of(by_hand(url)), Access.MIGRATE) as database:
        await database.execute(statement)


async def fill_the_rest(url: str) -> None:
    """Write a row into each table that has none, so that a new table is copied or this test fails."""
    values: dict[ColumnType, Value] = {
        ColumnType.TEXT: "text",
        ColumnType.INTEGER: 2**40,
        ColumnType.BOOLEAN: True,
        ColumnType.BYTES: b"\x00\xff",
    }
    rows = await all_rows(url)
    async with opened(database_of(url), Access.MIGRATE) as database:
        for table in DATA:
            if not rows[table.name]:
                await database.insert(table, [tuple(values[column.type] for column in table.columns)])


async def serve_for_a_moment(url: str) -> None:
    """Start a server, which claims the database, and stop it."""
    store = store_of(url)
    await store.open()
    await store.claim("local")
    await store.close()


@EVERY_DIRECTION
async def test_a_copy_holds_the_same(source_kind: str, target_kind: str, new_database: NewDatabase) -> None:
    source, target = await new_database(source_kind), await new_database(target_kind)
    await fill(source)
    await fill_the_rest(source)
    done = await copied(source, target)
    rows = await all_rows(source)
    assert all(rows.values())
    assert await all_rows(target) == rows
    assert {each.table: each.checksum.rows for each in done} == {name: len(found) for name, found in rows.items()}


@EVERY_DIRECTION
async def test_every_view_shows_the_same_in_a_copy(
    source_kind: str, target_kind: str, new_database: NewDatabase
) -> None:
    source, target = await new_database(source_kind), await new_database(target_kind)
    await fill(source)
    await copied(source, target)
    one, other = database_of(by_hand(source)), database_of(by_hand(target))
    async with opened(one, Access.READ), opened(other, Access.READ):
        for view in views(SqliteViewDialect()):
            query = f"SELECT * FROM {view.name}"
            here = sorted(map(comparable, await one.fetch(query)))
            there = sorted(map(comparable, await other.fetch(query)))
            assert here == there, view.name
            assert here or view.name in ("nodes", "shards_by_node")


def comparable(row: Row) -> str:
    """Databases differ in whether a truth is 1 or true."""
    return repr([int(value) if isinstance(value, bool) else value for value in row])


@pytest.mark.parametrize("target_kind", ["sqlite", "postgres", "cockroach"])
async def test_a_server_goes_on_with_a_copy(target_kind: str, new_database: NewDatabase) -> None:
    source, target = await new_database("sqlite"), await new_database(target_kind)
    await fill(source)
    await copied(source, target)
    key = WorkflowKey(KEY.namespace_id, "order-1")
    runs, cluster_ids = [], []
    for url in (source, target):
        store = store_of(url)
        await store.open()
        cluster_ids.append(await store.cluster_id())
        [stored] = await store.load_current_runs([key])
        assert stored is not None
        runs.append(restore(stored))
        claim = await store.claim("fresh")
        assert (claim.incarnation, claim.batch) == (1, 0)
        await store.close()
    assert runs[0] == runs[1]
    assert cluster_ids[0] == cluster_ids[1]


@EVERY_DIRECTION
@pytest.mark.parametrize("inserts", [0, 6])
async def test_an_interrupted_copy_is_refused_and_gone_on_with(
    source_kind: str, target_kind: str, inserts: int, new_database: NewDatabase
) -> None:
    source, target = await new_database(source_kind), await new_database(target_kind)
    await fill(source)
    with pytest.raises(PowerCut):
        await copied(source, cut_database(target, inserts))
    with pytest.raises(StoreMismatch, match="is not complete"):
        await store_of(target).open()
    whole, rest = cut_database(await new_database(target_kind), 1_000), cut_database(target, 1_000)
    for database in (whole, rest):
        await copied(source, database)
    assert await all_rows(target) == await all_rows(source)
    assert rest.inserts_left - whole.inserts_left == inserts, "what was there is not written again"
    await serve_for_a_moment(target)


async def test_a_copy_that_is_cut_again_and_again_gets_there(new_database: NewDatabase) -> None:
    source, target = await new_database("sqlite"), await new_database("sqlite")
    await fill(source)
    cuts = 0
    while True:
        try:
            await copied(source, cut_database(target, 1))
        except PowerCut:
            cuts += 1
        else:
            break
    assert cuts > 10
    assert await all_rows(target) == await all_rows(source)


async def test_of_two_calls_at_once_the_later_one_goes_on(new_database: NewDatabase) -> None:
    source, target = await new_database("sqlite"), await new_database("postgres")
    await fill(source)
    with pytest.raises(PowerCut):
        await copied(source, cut_database(target, 3))
    async with (
        opened(database_of(source), Access.COPY_FROM) as one,
        opened(database_of(target), Access.COPY_INTO) as earlier,
        opened(database_of(target), Access.COPY_INTO) as later,
    ):
        begun: list[asyncio.Task[list[Copied]]] = []

        def overtake(progress: Progress) -> None:
            if not begun:
                begun.append(asyncio.create_task(begin_and_copy(one, later, ignore)))

        slow = asyncio.create_task(begin_and_copy(one, earlier, overtake))
        with pytest.raises(ToolError, match="Another call"):
            await slow
        await begun[0]
    assert await all_rows(target) == await all_rows(source)


class Overtaken(PostgresDatabase):
    """One that another call marks after this one has found it empty."""

    async def migrate(self) -> None:
        await super().migrate()
        await self.overtake(cut_database(self.shown, 0))

    async def overtake(self, other: Database) -> None:
        assert self.source is not None
        async with opened(other, Access.COPY_INTO):
            with pytest.raises(PowerCut):
                await begin_and_copy(self.source, other, ignore)

    source: Database | None = None


@pytest.mark.parametrize("kind", ["postgres", "cockroach"])
async def test_of_two_calls_that_begin_at_once_the_later_one_is_told_of_the_other(
    kind: str, new_database: NewDatabase
) -> None:
    source, target = await new_database("sqlite"), await new_database(kind)
    await fill(source)
    late = Overtaken(target, target, SMALL_PAGES, dialect_of(target))
    async with opened(database_of(source), Access.COPY_FROM) as one, opened(late, Access.COPY_INTO):
        late.source = one
        with pytest.raises(ToolError, match=r"Another call is copying into .* nothing was copied by this one"):
            await begin_and_copy(one, late, ignore)
    await copied(source, target)
    assert await all_rows(target) == await all_rows(source)


async def _failing(plan: Plan, target: str) -> PostgresDatabase:
    """Return a database that has the schema, and fails as planned from now on."""
    async with opened(database_of(target), Access.MIGRATE) as database:
        await database.migrate()
    return PostgresDatabase(target, target, SMALL_PAGES, faulty_dialect(plan))


async def test_what_the_database_gives_up_for_anothers_sake_is_done_again(new_database: NewDatabase) -> None:
    """At every statement in turn, and the copy goes on."""
    source, target = await new_database("sqlite"), await new_database("cockroach")
    await fill(source)
    await copied(source, await _failing(EachStatement(Fault.GIVEN_UP), target))
    assert await all_rows(target) == await all_rows(source)
    await serve_for_a_moment(target)


@pytest.mark.parametrize("start", [0, 4])
async def test_a_copy_whose_commits_are_unknown_gets_there(start: int, new_database: NewDatabase) -> None:
    """By being called again, as after any other end."""
    source, target = await new_database("sqlite"), await new_database("cockroach")
    await fill(source)
    failing = await _failing(EachCommit(start), target)
    ends = 0
    while True:
        try:
            await copied(source, failing)
        except (StoreError, ToolError) as error:
            ends += 1
            if "holds an earlier or complete copy" in str(error):
                break
        else:
            break
    assert ends > 10
    assert await all_rows(target) == await all_rows(source)
    await serve_for_a_moment(target)


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
@pytest.mark.parametrize("served", ["source", "target"])
async def test_a_database_that_is_served_is_not_copied(kind: str, served: str, new_database: NewDatabase) -> None:
    source, target = await new_database(kind), await new_database(kind)
    await fill(source)
    store = store_of(source if served == "source" else target)
    await store.open()
    await store.claim("local")
    with pytest.raises(ToolError, match=r"[Ss]top"):
        await copied(source, target)
    await store.close()


@pytest.mark.parametrize("kind", ["postgres", "cockroach"])
async def test_a_node_whose_lease_runs_serves_though_it_has_no_session(kind: str, new_database: NewDatabase) -> None:
    source, target = await new_database(kind), await new_database("sqlite")
    await fill(source)
    member = "INSERT INTO member (node, session, release, started_at, lease_until, is_leaving) VALUES"
    await change(source, f"{member} ('dead:7233', 's', '1', 0, 1, false)")
    await change(source, f"{member} ('alive:7233', 's', '1', 0, {2**62}, false)")
    with pytest.raises(ToolError, match="node alive:7233 of release 1") as refused:
        await copied(source, target)
    assert "dead:7233" not in str(refused.value)


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_a_server_that_ran_on_the_source_voids_what_was_copied(kind: str, new_database: NewDatabase) -> None:
    source, target = await new_database(kind), await new_database("sqlite")
    await fill(source)
    with pytest.raises(PowerCut):
        await copied(source, cut_database(target, 3))
    await serve_for_a_moment(source)
    with pytest.raises(ToolError, match=r"has run on .* since the copy"):
        await copied(source, target)


class ServedMeanwhile(PostgresDatabase):
    """A server runs on it after all was read."""

    async def refresh(self) -> None:
        await serve_for_a_moment(self.shown)
        await super().refresh()


@pytest.mark.parametrize("kind", ["postgres", "cockroach"])
async def test_a_server_that_starts_on_the_source_meanwhile_is_noticed(kind: str, new_database: NewDatabase) -> None:
    source, target = await new_database(kind), await new_database("sqlite")
    await fill(source)
    async with (
        opened(ServedMeanwhile(source, source, dialect=dialect_of(source)), Access.COPY_FROM) as one,
        opened(database_of(target), Access.COPY_INTO) as other,
    ):
        with pytest.raises(ToolError, match=r"has run on .* while it was copied"):
            await begin_and_copy(one, other, ignore)
    with pytest.raises(StoreMismatch, match="is not complete"):
        await store_of(target).open()


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_a_target_that_holds_something_is_left_alone(kind: str, new_database: NewDatabase) -> None:
    source, target = await new_database("sqlite"), await new_database(kind)
    await fill(source)
    await fill(target)
    before = await all_rows(target)
    with pytest.raises(ToolError, match="is not empty"):
        await copied(source, target)
    assert await all_rows(target) == before
    await serve_for_a_moment(target)


async def test_a_part_of_another_database_is_left_alone(new_database: NewDatabase) -> None:
    source, other, target = [await new_database("sqlite") for _ in range(3)]
    await fill(source)
    await fill(other)
    with pytest.raises(PowerCut):
        await copied(other, cut_database(target, 3))
    with pytest.raises(ToolError, match="which is another database"):
        await copied(source, target)


async def test_a_complete_copy_is_not_made_twice(new_database: NewDatabase) -> None:
    source, target = await new_database("sqlite"), await new_database("sqlite")
    await fill(source)
    await copied(source, target)
    with pytest.raises(ToolError, match="holds an earlier or complete copy of it: nothing was copied"):
        await copied(source, target)


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_an_earlier_copy_is_not_called_a_complete_one(kind: str, new_database: NewDatabase) -> None:
    """Who believed that would lose what the source has done since."""
    source, target = await new_database(kind), await new_database("sqlite")
    await fill(source)
    await copied(source, target)
    await serve_for_a_moment(source)
    with pytest.raises(ToolError, match=r"an earlier or .* nothing was copied.* give an empty target") as refused:
        await copied(source, target)
    assert "nothing to do" not in str(refused.value)


async def test_half_a_copy_is_no_source(new_database: NewDatabase) -> None:
    source, half, target = [await new_database("sqlite") for _ in range(3)]
    await fill(source)
    with pytest.raises(PowerCut):
        await copied(source, cut_database(half, 3))
    with pytest.raises(ToolError, match="is no source"):
        await copied(half, target)


@EVERY_DIRECTION
async def test_a_row_that_is_not_the_same_is_found(
    source_kind: str, target_kind: str, new_database: NewDatabase
) -> None:
    source, target = await new_database(source_kind), await new_database(target_kind)
    await fill(source)
    with pytest.raises(PowerCut):
        await copied(source, cut_database(target, 6))
    assert (await all_rows(target))[EVENT.name], "the cut is in the events, behind the runs"
    await change(target, "UPDATE run SET transition_count = transition_count + 1 WHERE workflow_id = 'order-1'")
    with pytest.raises(ToolError, match="The table run is not the same"):
        await copied(source, target)
    with pytest.raises(StoreMismatch, match="is not complete"):
        await store_of(target).open()


# --- what it takes ----------------------------------------------------------------------------------------------------


async def test_every_table_is_data_or_of_one_database(empty_url: str) -> None:
    await serve_for_a_moment(empty_url)
    async with opened(database_of(empty_url), Access.READ) as database:
        assert set(await database.tables()) == {table.name for table in (*DATA, *OF_ONE_DATABASE)}


async def test_a_page_ends_at_its_bytes(empty_url: str) -> None:
    """However many rows it may have; one row always comes."""
    await fill(empty_url)
    everything = (await all_rows(empty_url))[RUN.name]
    for size_bytes, fewest, most in ((1, 1, 1), (600, 2, 5)):
        async with opened(database_of(empty_url, PageLimits(size_bytes=size_bytes)), Access.READ) as database:
            page = await database.read_page(RUN, None)
            assert fewest <= len(page) <= most
            assert page == everything[: len(page)]
