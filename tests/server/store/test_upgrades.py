"""A migration never breaks the release before it: what a step changes is harmless beside it, or the step fences it.

The rules are those of docs/operations.md; `upgrades.faults` checks a step against them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

import asyncpg
import pytest

from perdure.server.store.interface import StoreError
from perdure.server.store.postgres import steps as postgres_steps
from perdure.server.store.postgres.migrations import migrate as migrate_postgres
from perdure.server.store.schema import SCHEMA_VERSION
from perdure.server.store.sqlite import steps as sqlite_steps
from perdure.server.store.sqlite.migrations import migrate as migrate_sqlite
from perdure.server.store.steps import FENCE_ALL, SUMMARIES
from perdure.server.store.tools.interface import Access, CatalogTable, Database
from tests.server.store import versions
from tests.server.store.tools.places import database_of
from tests.server.store.upgrades import faults
from tests.server.tool_databases import NewDatabase

STEPS = {"sqlite": sqlite_steps.STEPS, "postgres": postgres_steps.STEPS}


def kind_of(url: str) -> str:
    return "postgres" if "://" in url else "sqlite"


async def make(url: str, *statements: str) -> None:
    database = database_of(url)
    await database.open(Access.MIGRATE)
    for statement in statements:
        await database.execute(statement)
    await database.close()


async def catalog(url: str) -> Mapping[str, CatalogTable]:
    database = database_of(url)
    await database.open(Access.READ)
    tables = await database.tables()
    await database.close()
    return tables


VIEW_COLUMNS = {
    "sqlite": "SELECT view.name, part.name FROM sqlite_schema AS view JOIN pragma_table_info(view.name) AS part"
    " WHERE view.type = 'view' ORDER BY view.name, part.cid",
    "postgres": "SELECT table_name::text, column_name::text FROM information_schema.columns"
    " JOIN information_schema.views USING (table_schema, table_name) WHERE table_schema = current_schema()"
    " ORDER BY table_name, ordinal_position",
}


async def view_columns(url: str) -> dict[str, list[str]]:
    """Return the columns of each view, in their order."""
    database = database_of(url)
    await database.open(Access.READ)
    found: dict[str, list[str]] = {}
    for view, column in await database.fetch(VIEW_COLUMNS[kind_of(url)]):
        found.setdefault(str(view), []).append(str(column))
    await database.close()
    return found


async def lead(url: str, version: int) -> None:
    """Do the step that leads to a version."""
    if kind_of(url) == "postgres":
        connection = await asyncpg.connect(url)
        await migrate_postgres(connection, target=version)
        await connection.close()
        return
    database = sqlite3.connect(url, isolation_level=None)
    migrate_sqlite(database, target=version)
    database.close()


def test_every_step_says_what_it_does() -> None:
    assert set(SUMMARIES) == set(STEPS["sqlite"]) == set(STEPS["postgres"]) == set(range(2, SCHEMA_VERSION + 1))
    assert set(postgres_steps.STEPS_ON_COCKROACH) == set(range(4, SCHEMA_VERSION + 1)), "there it began with 3"


@pytest.mark.parametrize("version", range(2, SCHEMA_VERSION + 1))
async def test_a_step_is_harmless_beside_the_release_before_or_fences_it(version: int, old_url: str) -> None:
    await make(old_url, *versions.schema(1, kind_of(old_url)))
    await make(old_url, "INSERT INTO migration (version, applied_at) VALUES (1, 0)")
    await lead(old_url, version - 1)
    before, views = await catalog(old_url), await view_columns(old_url)
    assert views, "there were views in every version"
    await lead(old_url, version)
    found = list(faults(before, await catalog(old_url)))
    views_after = await view_columns(old_url)
    for view, columns in views.items():
        if views_after.get(view, [])[: len(columns)] != columns:
            found.append(f"the view {view} has other columns")
    first = STEPS[kind_of(old_url)][version][0]
    assert SUMMARIES[version].stops_the_previous_release == (first == FENCE_ALL), "a fence comes first, and is told of"
    assert first == FENCE_ALL or not found


# --- the rules themselves, against what a database does ---------------------------------------------------------------

HARMLESS = {
    "a table": "CREATE TABLE more (id TEXT PRIMARY KEY)",
    "a column that may be empty": "ALTER TABLE item ADD COLUMN more TEXT",
    "a column with a default": "ALTER TABLE item ADD COLUMN more INTEGER NOT NULL DEFAULT 7",
    "an index": "CREATE INDEX item_by_size ON item (size)",
}
HARMFUL = {
    "a unique index": "CREATE UNIQUE INDEX one_of_a_size ON item (size)",
    "a column that is gone": "ALTER TABLE item DROP COLUMN size",
    "a column of another name": "ALTER TABLE item RENAME COLUMN size TO extent",
    "a table of another name": "ALTER TABLE item RENAME TO article",
    "an index that is gone": "DROP INDEX item_by_name",
}
ONLY_POSTGRES = {
    "a column that must be filled": "ALTER TABLE item ADD COLUMN more INTEGER NOT NULL",
    "a column that must be filled now": "ALTER TABLE item ALTER COLUMN note SET NOT NULL",
    "a column of another type": "ALTER TABLE item ALTER COLUMN size TYPE TEXT",
}
OLD_ITEMS = (
    "CREATE TABLE item (name TEXT PRIMARY KEY, size INTEGER, note TEXT)",
    "CREATE INDEX item_by_name ON item (name, note)",
)


async def _old_release_works(url: str) -> bool:
    """Whether what a server knew to write before is still taken."""
    database: Database = database_of(url)
    await database.open(Access.MIGRATE)
    try:
        await database.execute("INSERT INTO item (name, size, note) VALUES ('hat', 3, NULL)")
        await database.execute("INSERT INTO item (name, size, note) VALUES ('cap', 3, NULL)")
        await database.execute("UPDATE item SET size = 4 WHERE name = 'hat'")
        found = await database.fetch("SELECT name, size, note FROM item ORDER BY name")
    except StoreError:
        return False
    finally:
        await database.close()
    return list(found) == [("cap", 3, None), ("hat", 4, None)]


@pytest.mark.parametrize("step", HARMLESS.values(), ids=list(HARMLESS))
async def test_what_may_be_added_does_no_harm(step: str, old_url: str) -> None:
    await make(old_url, *OLD_ITEMS)
    before = await catalog(old_url)
    await make(old_url, step)
    assert not list(faults(before, await catalog(old_url)))
    assert await _old_release_works(old_url)


@pytest.mark.parametrize("name", HARMFUL)
async def test_what_does_harm_is_found(name: str, old_url: str) -> None:
    await _require_found(name, HARMFUL[name], old_url)


@pytest.mark.parametrize("name", ONLY_POSTGRES)
async def test_so_is_what_sqlite_has_no_statement_for(name: str, new_database: NewDatabase) -> None:
    await _require_found(name, ONLY_POSTGRES[name], await new_database("postgres"))


async def _require_found(name: str, step: str, old_url: str) -> None:
    await make(old_url, *OLD_ITEMS)
    before = await catalog(old_url)
    await make(old_url, step)
    assert len(list(faults(before, await catalog(old_url)))) in (1, 2)
    # An index that is gone makes things slow and not wrong.
    assert await _old_release_works(old_url) == (name == "an index that is gone")
