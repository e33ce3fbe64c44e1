"""Bringing a database to this release's schema.

A new database is made from the schema in one go; an older one is led there step by step. Every step must work while the
previous release still runs on the same database: add, fill, and drop only what the previous release no longer reads. A
step that would have it write rows this release cannot use fences it instead.

PostgreSQL does all of it in one transaction, so a database is never between two versions. Where two servers begin at
once, the second one waits for the first at the row of the version, fails there, and looks again. CockroachDB promises
that of a single change of the schema only. There each statement is a transaction of its own, a version is recorded
after its last one, and whoever finds it not recorded does all of it again: each statement must bear that.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

import asyncpg

from perdure.server.store.interface import StoreMismatch, StoreUnavailable
from perdure.server.store.postgres.dialect import POSTGRES, PostgresDialect
from perdure.server.store.postgres.steps import STEPS, STEPS_ON_COCKROACH, Step, Steps
from perdure.server.store.schema import SCHEMA_VERSION, TABLES
from perdure.server.store.steps import CREATE_CLUSTER_VERSION, told_not_to
from perdure.server.store.tools.marker import MARK, marker_of

if TYPE_CHECKING:
    from perdure.server.store.postgres.connections import Connection

_ATTEMPTS: Final = 50
"""A server that does one statement at a time may meet another one at each of them."""

_ANOTHER_WAS_FASTER = (
    asyncpg.UniqueViolationError,
    asyncpg.DuplicateTableError,
    asyncpg.DuplicateObjectError,
    asyncpg.SerializationError,
)

_RECORD_VERSION = (
    "INSERT INTO migration (version, applied_at) SELECT $1::bigint, $2::bigint"
    " WHERE NOT EXISTS (SELECT 1 FROM meta WHERE name = $3)"
)
"""Not of what became the target of a copy since we looked, as may be where a schema is made one statement at a time."""
_GIVE_ID = "INSERT INTO meta (name, value) VALUES ('cluster_id', $1) ON CONFLICT (name) DO NOTHING"
_BEGIN_CLUSTER = f"{CREATE_CLUSTER_VERSION} ON CONFLICT (name) DO NOTHING"


async def migrate(
    connection: Connection,
    *,
    dialect: PostgresDialect = POSTGRES,
    target: int = SCHEMA_VERSION,
    steps: Steps | None = None,
    may_change: bool = True,
) -> None:
    """Create the schema, or lead an older one to the target version.

    Args:
        connection: In no transaction. Where one statement at a time is made, it may be closed afterwards.
        dialect: Which kind of database it is.
        target: The version to reach.
        steps: What leads there, if not the steps that there are.
        may_change: Whether to do it; otherwise only look whether it is done.

    Raises:
        StoreMismatch: The database cannot hold what we store, is newer than the target, not one of Perdure's, half a
            copy, or would have to be changed and may not.
    """
    await check_server(connection, dialect)
    at_once = dialect.changes_schema_at_once
    lead = _lead_at_once if at_once else _lead_by_statements
    if steps is None:
        steps = STEPS if at_once else STEPS_ON_COCKROACH
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            await lead(connection, dialect, target, steps, may_change=may_change)
        except _ANOTHER_WAS_FASTER as error:
            # Another server does the same at this moment.
            if attempt == _ATTEMPTS:
                raise StoreUnavailable(f"The schema could not be made: {error}") from error
        else:
            return


async def check_server(connection: Connection, dialect: PostgresDialect) -> None:
    """Do nothing, if the schema can be where the connection leads. Raises StoreMismatch."""
    await dialect.check_server(connection)
    encoding = connection.get_settings().server_encoding
    if encoding != "UTF8":
        raise StoreMismatch(f"The database must have the encoding UTF8; this one has {encoding}.")
    if await connection.fetchval("SELECT current_schema()") is None:
        raise StoreMismatch(
            "There is no schema to work in: make the one that the URL or the role names, or grant the role USAGE on it."
        )


async def _lead_at_once(
    connection: Connection, dialect: PostgresDialect, target: int, steps: Steps, *, may_change: bool
) -> None:
    async with connection.transaction():
        # An index on a large table takes what it takes.
        await connection.execute("SET LOCAL statement_timeout = 0")
        version = await _stored_version(connection, dialect, target)
        _require_leave(version, target, may_change=may_change)
        if version is None:
            await _create(connection, dialect, target)
            return
        for step in range(version + 1, target + 1):
            # Before the statements, so that a second server waits here.
            await _record_version(connection, step)
            await _execute(connection, steps[step])


async def _lead_by_statements(
    connection: Connection, dialect: PostgresDialect, target: int, steps: Steps, *, may_change: bool
) -> None:
    version = await _stored_version(connection, dialect, target)
    if version == target:
        return
    _require_leave(version, target, may_change=may_change)
    await connection.execute("SET statement_timeout = 0")
    if version is None:
        await _create(connection, dialect, target)
    else:
        for step in range(version + 1, target + 1):
            await _execute(connection, steps[step])
            await _record_version(connection, step)
    # It has no time limit any more.
    await connection.close()


def _require_leave(version: int | None, target: int, *, may_change: bool) -> None:
    if not may_change and (version is None or version < target):
        raise StoreMismatch(told_not_to(version, target))


async def _stored_version(connection: Connection, dialect: PostgresDialect, target: int) -> int | None:
    """Return the version, None for a database that is to be made."""
    tables = {name for (name,) in await connection.fetch(dialect.table_names)}
    if not tables:
        return None
    # The first table that is made, and where one statement at a time is made, maybe the only one so far.
    if "migration" not in tables:
        raise StoreMismatch("The schema holds tables that are not Perdure's. Name another database, or a schema.")
    version: int | None = await connection.fetchval("SELECT max(version) FROM migration")
    if version is None and "meta" in tables:
        # Before all else: it has the tables of a schema that was begun, and nothing but the mark tells it from one.
        await _refuse_half_a_copy(connection)
    if version is None and (dialect.changes_schema_at_once or not tables <= {table.name for table in TABLES}):
        raise StoreMismatch("The database does not say which schema version it has. Name another one.")
    if version is not None and version > target:
        raise StoreMismatch(
            f"The database has schema version {version}; this release knows versions up to {target}."
            " Use the release that last opened it, or a newer one."
        )
    return version


async def _refuse_half_a_copy(connection: Connection) -> None:
    marked = await connection.fetchval("SELECT value FROM meta WHERE name = $1", MARK)
    if marked is not None:
        raise StoreMismatch(marker_of(marked).refusal())


async def _create(connection: Connection, dialect: PostgresDialect, version: int) -> None:
    await _execute(connection, dialect.definitions())
    await connection.execute(_GIVE_ID, str(uuid.uuid4()))
    await connection.execute(_BEGIN_CLUSTER)
    await _record_version(connection, version)


async def _execute(connection: Connection, actions: Iterable[Step]) -> None:
    for action in actions:
        if isinstance(action, str):
            await connection.execute(action)
        else:
            await action(connection)


async def _record_version(connection: Connection, version: int) -> None:
    if await connection.execute(_RECORD_VERSION, version, time.time_ns(), MARK) == "INSERT 0 0":
        await _refuse_half_a_copy(connection)
