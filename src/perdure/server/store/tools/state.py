"""How a database stands to this release: empty, too old, right, too new, half copied, or none of ours."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final, NamedTuple

from perdure.server.store.schema import META, MIGRATION, SCHEMA_VERSION, TABLES
from perdure.server.store.tools.interface import Database, ToolError
from perdure.server.store.tools.marker import MARK, Marker, marker_of

_NAMES: Final = {table.name for table in TABLES}
_ROWS_OF_META: Final = ("cluster_id", "cluster_version")
"""What every database has of this release, the oldest first."""


class Standing(Enum):
    """What a server of this release would make of it."""

    EMPTY = "empty"
    OLDER = "older"
    CURRENT = "current"
    NEWER = "newer"
    UNFINISHED = "unfinished copy"
    FOREIGN = "foreign"


class SchemaState(NamedTuple):
    """What a database says of itself."""

    standing: Standing
    version: int | None = None
    cluster_id: str | None = None
    marker: Marker | None = None


async def read_state(database: Database) -> SchemaState:
    """Look at an open database. Raises ToolError where it has lost what no server starts without."""
    tables = await database.tables()
    if not tables:
        return SchemaState(Standing.EMPTY)
    # Made one statement at a time, it may have been left half made: then it is finished by whoever makes it.
    is_begun = not database.makes_schema_at_once and MIGRATION.name in tables and tables.keys() <= _NAMES
    without_version = Standing.EMPTY if is_begun else Standing.FOREIGN
    if not {MIGRATION.name, META.name} <= tables.keys():
        return SchemaState(without_version)
    meta = {str(name): str(value) for name, value in await database.fetch("SELECT name, value FROM meta")}
    cluster_id = meta.get("cluster_id")
    if MARK in meta:
        return SchemaState(Standing.UNFINISHED, None, cluster_id, marker_of(meta[MARK]))
    [(version,)] = await database.fetch("SELECT max(version) FROM migration")
    if not isinstance(version, int):
        return SchemaState(without_version)
    standing = _standing(version)
    _require_meta(database.shown, standing, meta)
    return SchemaState(standing, version, cluster_id)


def _require_meta(shown: str, standing: Standing, meta: Mapping[str, str]) -> None:
    """A newer release may keep other rows; an older one had the first of ours only."""
    known = {Standing.CURRENT: _ROWS_OF_META, Standing.OLDER: _ROWS_OF_META[:1]}.get(standing, ())
    if missing := [name for name in known if name not in meta]:
        raise ToolError(
            f"{shown} is damaged: the table meta has no row {' and no row '.join(missing)}, and no server can use it."
            " Restore the row from a backup."
        )


def _standing(version: int) -> Standing:
    if version == SCHEMA_VERSION:
        return Standing.CURRENT
    return Standing.OLDER if version < SCHEMA_VERSION else Standing.NEWER


async def read_fences(database: Database) -> str:
    """Return who has written what, so that one sees whether a server has run since."""
    rows = await database.fetch("SELECT node, incarnation, batch FROM node ORDER BY node")
    return "; ".join(" ".join(map(str, row)) for row in rows)
