"""The commands that change or compare databases; `status` has a module of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import NamedTuple

from perdure.server.settings import is_postgres, sqlite_path
from perdure.server.store.tools import copying
from perdure.server.store.tools.copying import Copied, Report
from perdure.server.store.tools.interface import Access, ToolError
from perdure.server.store.tools.problem import Problem
from perdure.server.store.tools.state import read_state
from perdure.server.tools import check as checking
from perdure.server.tools.check import Checked
from perdure.server.tools.databases import opened


class Migrated(NamedTuple):
    """What a migration found and what it left."""

    before: int | None
    """None where there was no schema."""
    after: int


async def migrate(db: str) -> Migrated:
    """Make the schema, or lead it to this release's version; where it is there, do nothing. Raises ToolError."""
    async with opened(db, Access.MIGRATE) as database:
        before = await read_state(database)
        if before.marker is not None:
            raise ToolError(f"{database.shown} cannot be migrated. {before.marker.refusal()}")
        await database.migrate()
        after = (await read_state(database)).version
        assert after is not None, "a database that was migrated has a version"
        return Migrated(before.version, after)


async def check(db: str, so_far: Checked) -> AsyncIterator[Problem]:
    """Yield everything that is wrong with a database. Raises ToolError where it cannot be checked."""
    async with opened(db, Access.READ) as database:
        async for problem in checking.check(database, so_far):
            yield problem


async def copy(source_db: str, target_db: str, report: Report) -> Sequence[Copied]:
    """Copy a database into another one. Raises ToolError; the same call then goes on where this one ended."""
    if _is_same_file(source_db, target_db):
        raise ToolError(f"{source_db} and {target_db} are the same file.")
    async with opened(source_db, Access.COPY_FROM) as source:
        # First: a source that cannot be copied is no reason to make a target.
        begun = await copying.begin(source)
        async with opened(target_db, Access.COPY_INTO) as target:
            return await copying.copy(source, target, begun, report)


def _is_same_file(source_db: str, target_db: str) -> bool:
    if is_postgres(source_db) or is_postgres(target_db):
        return False
    source, target = sqlite_path(source_db), sqlite_path(target_db)
    return source is not None and target is not None and Path(source).resolve() == Path(target).resolve()
