"""Checking a whole database: its files, its schema, every run in it. It reads one moment's state and writes nothing.

Servers may run meanwhile. The database keeps what they change until the check is through, so do not let one run for
hours beside a busy server; check a copy or a standby instead.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Container, Iterator
from typing import Final

import msgspec

from perdure.server.core.records import NamespaceRecord
from perdure.server.store.namespace_rows import NamespaceRow, namespace_record
from perdure.server.store.schema import NAMESPACE, RUN, SCHEMA_VERSION, TABLES
from perdure.server.store.tools.checksums import key_of
from perdure.server.store.tools.interface import Database, ToolError
from perdure.server.store.tools.problem import Problem
from perdure.server.store.tools.schema_check import schema_problems
from perdure.server.store.tools.state import SchemaState, Standing, read_state
from perdure.server.tools.message_check import message_problems
from perdure.server.tools.run_check import run_problems
from perdure.server.tools.run_rows import RunRows, runs

_TWO_CURRENT: Final = (
    "SELECT namespace_id, workflow_id, count(*) FROM run WHERE is_current GROUP BY namespace_id, workflow_id"
    " HAVING count(*) > 1 ORDER BY namespace_id, workflow_id"
)


class Checked(msgspec.Struct):
    """How far a check has come."""

    runs: int = 0


async def check(database: Database, so_far: Checked) -> AsyncIterator[Problem]:
    """Yield everything that is wrong.

    Args:
        database: Open to be read.
        so_far: Kept up to date.

    Raises:
        ToolError: The database is not one of this release's.
    """
    require_current(await read_state(database), database.shown)
    damage = await database.damage()
    for finding in damage:
        yield Problem("the file", finding, "Restore a backup. `sqlite3 FILE .recover` saves what can be read.")
    if damage:
        return
    tables = list(schema_problems(TABLES, await database.tables(), database))
    for problem in tables:
        yield problem
    if any(problem.is_fatal for problem in tables):
        # Without a table or a column nothing can be asked of the rows.
        return
    for view, what in (await database.wrong_views()).items():
        yield Problem(f"view {view}", what, "The engine reads no view; drop it, and take its text from a new database.")
    async for problem in _row_problems(database, so_far):
        yield problem


def require_current(state: SchemaState, shown: str) -> None:
    """Raise ToolError for a database that is not of this release, and say what would make it one."""
    match state.standing:
        case Standing.CURRENT:
            return
        case Standing.OLDER:
            raise ToolError(
                f"{shown} has schema version {state.version}, and this release {SCHEMA_VERSION}: lead it there with"
                " `perdure db migrate`."
            )
        case Standing.NEWER:
            raise ToolError(
                f"{shown} has schema version {state.version}, and this release knows {SCHEMA_VERSION} only: use the"
                " release that made it, or a newer one."
            )
        case Standing.UNFINISHED:
            assert state.marker is not None
            raise ToolError(f"{shown} cannot be checked. {state.marker.refusal()}")
        case Standing.EMPTY:
            raise ToolError(f"{shown} is empty: there is nothing to check. `perdure db migrate` makes the schema.")
        case Standing.FOREIGN:
            raise ToolError(f"{shown} is none of Perdure's: its tables are others.")


async def _row_problems(database: Database, so_far: Checked) -> AsyncIterator[Problem]:
    namespaces: set[str] = set()
    async for found in _namespaces(database):
        if isinstance(found, Problem):
            yield found
        else:
            namespaces.add(found.namespace_id)
    for _, workflow_id, count in await database.fetch(_TWO_CURRENT):
        yield Problem(
            f"workflow {workflow_id!r}",
            f"has {count!r} current runs",
            "Restore a backup; the index run_current, which forbids it, is missing or broken.",
        )
    async for rows in runs(database):
        so_far.runs += len(rows.of(RUN))
        for problem in _problems(rows, namespaces):
            yield problem


def _problems(rows: RunRows, namespaces: Container[str]) -> Iterator[Problem]:
    """Yield what is wrong with all that goes by one run id."""
    try:
        yield from run_problems(rows)
        yield from message_problems(rows)
        run = rows.run()
    except msgspec.ValidationError as error:
        yield Problem(f"run {rows.run_id}", f"has a value of a wrong type: {error}", "Restore a backup.")
        return
    if run is not None and run.namespace_id not in namespaces:
        yield Problem(
            f"workflow {run.workflow_id}",
            f"is in a namespace {run.namespace_id} that does not exist",
            "Nobody can reach it. Restore the namespace's row from a backup.",
        )


async def _namespaces(database: Database) -> AsyncIterator[NamespaceRecord | Problem]:
    page = await database.read_page(NAMESPACE, None)
    while page:
        for row in page:
            try:
                yield namespace_record(msgspec.convert(row, NamespaceRow))
            except (msgspec.DecodeError, msgspec.ValidationError) as error:
                remedy = "No server starts on it. Restore a backup."
                yield Problem(f"namespace {row[1]!r}", f"cannot be read: {error}", remedy)
        page = await database.read_page(NAMESPACE, key_of(NAMESPACE, page[-1]))
