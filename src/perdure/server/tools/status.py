"""A database at a glance: where it is, how its schema stands to this release, who uses it, how large it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from perdure.server.store.interface import StoreError
from perdure.server.store.schema import NODE, SCHEMA_VERSION, TABLES
from perdure.server.store.steps import SUMMARIES
from perdure.server.store.tools.interface import Access, Database, TableSize, ToolError
from perdure.server.store.tools.state import SchemaState, Standing, read_state
from perdure.server.tools.databases import database_of, opened


class Writer(NamedTuple):
    """A name under which servers have written, and how far the last one came."""

    node: str
    incarnation: int
    batch: int


class Status(NamedTuple):
    """A database at a glance."""

    shown: str
    product: str
    total_bytes: int | None
    state: SchemaState
    servers: Sequence[str]
    writers: Sequence[Writer]
    tables: Sequence[tuple[str, TableSize]]

    @property
    def standing(self) -> str:
        """How the schema stands to this release's, and what a migration would do."""
        return _STANDINGS[self.state.standing].format(has=self.state.version, wants=SCHEMA_VERSION)

    @property
    def steps(self) -> list[str]:
        """What a migration would do, step by step."""
        return steps_between(self.state.version, SCHEMA_VERSION)


_STANDINGS = {
    Standing.EMPTY: "none: a migration makes version {wants}",
    Standing.OLDER: "version {has}; a migration leads it to {wants}, which is this release's",
    Standing.CURRENT: "version {has}, which is this release's: a migration does nothing",
    Standing.NEWER: "version {has}; this release knows {wants}, and neither serves nor changes it",
    Standing.UNFINISHED: "none yet: a copy into it is not complete",
    Standing.FOREIGN: "not Perdure's: its tables are others",
}


def steps_between(before: int | None, after: int) -> list[str]:
    """Say what the steps between two versions do; nothing of a database that is made anew, or is newer."""
    return [
        f"{version}: {summary.what}"
        + ("; servers of the release before are stopped by it" if summary.stops_the_previous_release else "")
        for version, summary in SUMMARIES.items()
        if before is not None and before < version <= after
    ]


async def status(db: str) -> Status:
    """Look at a database. Raises ToolError where it cannot be reached."""
    asked = database_of(db)
    try:
        # Before it is open: our own session would count as somebody's.
        servers = await asked.servers()
    except StoreError as error:
        raise ToolError(f"{asked.shown}: {error}") from error
    async with opened(db, Access.READ) as database:
        state = await read_state(database)
        return Status(
            database.shown,
            await database.product(),
            await database.total_bytes(),
            state,
            servers,
            await _writers(database),
            await _sizes(database),
        )


async def _writers(database: Database) -> list[Writer]:
    if NODE.name not in await database.tables():
        return []
    rows = await database.fetch("SELECT node, incarnation, batch FROM node ORDER BY node")
    return [Writer(str(node), int(str(incarnation)), int(str(batch))) for node, incarnation, batch in rows]


async def _sizes(database: Database) -> list[tuple[str, TableSize]]:
    found = await database.tables()
    return [(table.name, await database.table_size(table)) for table in TABLES if table.name in found]
