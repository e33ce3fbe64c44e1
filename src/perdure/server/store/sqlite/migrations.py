"""Bringing a database to this release's schema.

A new database is made from the schema in one go; an older one is led there step by step. Every step must work while the
previous release still runs on the same database: add, fill, and drop only what the previous release no longer reads. A
step that would have it write rows this release cannot use fences it instead.
All of it happens in one transaction, so a database is never between two versions.
"""

from __future__ import annotations

import sqlite3
import time
import uuid

from perdure.server.store.definitions import create_index, create_view
from perdure.server.store.interface import StoreMismatch
from perdure.server.store.schema import SCHEMA_VERSION, TABLES
from perdure.server.store.sqlite.dialect import SqliteViewDialect, create_table
from perdure.server.store.sqlite.steps import STEPS, Steps
from perdure.server.store.steps import CREATE_CLUSTER_VERSION
from perdure.server.store.views import views

_CREATE = (
    *(create_table(table) for table in TABLES),
    *(create_index(table, index) for table in TABLES for index in table.indexes),
    *(create_view(view) for view in views(SqliteViewDialect())),
)


def migrate(connection: sqlite3.Connection, *, target: int = SCHEMA_VERSION, steps: Steps = STEPS) -> None:
    """Create the schema, or lead an older one to the target version.

    Raises:
        StoreMismatch: The database is newer than the target, or not one of Perdure's.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = _stored_version(connection)
        if version is None:
            _create(connection, target)
        elif version > target:
            raise StoreMismatch(
                f"The database has schema version {version}; this release knows versions up to {target}."
                " Use the release that last opened it, or a newer one."
            )
        else:
            for step in range(version + 1, target + 1):
                for action in steps[step]:
                    if isinstance(action, str):
                        connection.execute(action)
                    else:
                        action(connection)
                _record_version(connection, step)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _stored_version(connection: sqlite3.Connection) -> int | None:
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if not tables:
        return None
    if "migration" not in tables or "meta" not in tables:
        raise StoreMismatch("The database holds tables that are not Perdure's. Name another file.")
    row: tuple[int | None] = connection.execute("SELECT max(version) FROM migration").fetchone()
    if row[0] is None:
        raise StoreMismatch("The database does not say which schema version it has. Name another file.")
    return row[0]


def _create(connection: sqlite3.Connection, version: int) -> None:
    for statement in _CREATE:
        connection.execute(statement)
    connection.execute("INSERT INTO meta (name, value) VALUES ('cluster_id', ?)", (str(uuid.uuid4()),))
    connection.execute(CREATE_CLUSTER_VERSION)
    _record_version(connection, version)


def _record_version(connection: sqlite3.Connection, version: int) -> None:
    connection.execute("INSERT INTO migration (version, applied_at) VALUES (?, ?)", (version, time.time_ns()))
