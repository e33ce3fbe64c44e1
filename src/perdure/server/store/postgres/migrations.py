"""Bringing a database to this release's schema.

A new database is made from the schema in one go; an older one is led there step by step. Every step must work while the
previous release still runs on the same database: add, fill, and drop only what the previous release no longer reads. A
step that would have it write rows this release cannot use fences it instead.
All of it happens in one transaction, so a database is never between two versions. Where two servers begin at once, the
second one waits for the first at the row of the version, fails there, and looks again.
"""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING, Final

import asyncpg

from perdure.server.store.definitions import create_index, create_view
from perdure.server.store.interface import StoreMismatch, StoreUnavailable
from perdure.server.store.postgres.dialect import PostgresViewDialect, create_table
from perdure.server.store.postgres.steps import STEPS, Steps
from perdure.server.store.schema import SCHEMA_VERSION, TABLES
from perdure.server.store.steps import CREATE_CLUSTER_VERSION, told_not_to
from perdure.server.store.tools.marker import MARK, marker_of
from perdure.server.store.views import views

if TYPE_CHECKING:
    from perdure.server.store.postgres.connections import Connection

OLDEST_POSTGRES: Final = 13

_ATTEMPTS: Final = 5

_CREATE = (
    *(create_table(table) for table in TABLES),
    *(create_index(table, index) for table in TABLES for index in table.indexes),
    *(create_view(view) for view in views(PostgresViewDialect())),
)

_TABLES = (
    "SELECT relname FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p')"
    " AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = pg_class.oid"
    " AND deptype = 'e')"
)
"""The tables of the schema we would use, less those that belong to an extension."""


async def migrate(
    connection: Connection, *, target: int = SCHEMA_VERSION, steps: Steps = STEPS, may_change: bool = True
) -> None:
    """Create the schema, or lead an older one to the target version.

    Args:
        connection: In no transaction.
        target: The version to reach.
        steps: What leads there.
        may_change: Whether to do it; otherwise only look whether it is done.

    Raises:
        StoreMismatch: The database cannot hold what we store, is newer than the target, not one of Perdure's, half a
            copy, or would have to be changed and may not.
    """
    await _check_server(connection)
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            async with connection.transaction():
                # An index on a large table takes what it takes.
                await connection.execute("SET LOCAL statement_timeout = 0")
                await _migrate(connection, target, steps, may_change=may_change)
        except (asyncpg.UniqueViolationError, asyncpg.DuplicateTableError) as error:
            # Another server does the same at this moment, and was first.
            if attempt == _ATTEMPTS:
                raise StoreUnavailable(f"The schema could not be made: {error}") from error
        else:
            return


async def _check_server(connection: Connection) -> None:
    version = connection.get_server_version()
    if version.major < OLDEST_POSTGRES:
        raise StoreMismatch(f"PostgreSQL {OLDEST_POSTGRES} or newer is needed; this is {version.major}.")
    encoding = connection.get_settings().server_encoding
    if encoding != "UTF8":
        raise StoreMismatch(f"The database must have the encoding UTF8; this one has {encoding}.")
    if await connection.fetchval("SELECT current_schema()") is None:
        raise StoreMismatch("There is no schema to work in: make the one that the URL or the role names.")


async def _migrate(connection: Connection, target: int, steps: Steps, *, may_change: bool) -> None:
    version = await _stored_version(connection)
    if not may_change and (version is None or version < target):
        raise StoreMismatch(told_not_to(version, target))
    if version is None:
        await _create(connection, target)
    elif version > target:
        raise StoreMismatch(
            f"The database has schema version {version}; this release knows versions up to {target}."
            " Use the release that last opened it, or a newer one."
        )
    else:
        for step in range(version + 1, target + 1):
            await _record_version(connection, step)
            for action in steps[step]:
                if isinstance(action, str):
                    await connection.execute(action)
                else:
                    await action(connection)


async def _stored_version(connection: Connection) -> int | None:
    tables = {name for (name,) in await connection.fetch(_TABLES)}
    if not tables:
        return None
    if not {"migration", "meta"} <= tables:
        raise StoreMismatch("The schema holds tables that are not Perdure's. Name another database, or a schema.")
    version: int | None = await connection.fetchval("SELECT max(version) FROM migration")
    if version is None:
        marked = await connection.fetchval("SELECT value FROM meta WHERE name = $1", MARK)
        if marked is not None:
            raise StoreMismatch(marker_of(marked).refusal())
        raise StoreMismatch("The database does not say which schema version it has. Name another one.")
    return version


async def _create(connection: Connection, version: int) -> None:
    for statement in _CREATE:
        await connection.execute(statement)
    await connection.execute("INSERT INTO meta (name, value) VALUES ('cluster_id', $1)", str(uuid.uuid4()))
    await connection.execute(CREATE_CLUSTER_VERSION)
    await _record_version(connection, version)


async def _record_version(connection: Connection, version: int) -> None:
    await connection.execute("INSERT INTO migration (version, applied_at) VALUES ($1, $2)", version, time.time_ns())
