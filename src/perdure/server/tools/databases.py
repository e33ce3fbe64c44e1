"""From a database setting to an open database, whatever kind it is; the tools' only door to the concrete ones."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from perdure.server.settings import SettingsError, is_cockroach, is_postgres, shown_db, sqlite_path
from perdure.server.store.interface import StoreError
from perdure.server.store.sqlite.tools import SqliteDatabase
from perdure.server.store.tools.interface import Access, Database, ToolError


def database_of(db: str) -> Database:
    """Return the database that a setting names, not opened yet. Raises ToolError where it names none."""
    try:
        if is_postgres(db):
            # Imported here: who stores in SQLite goes without the driver.
            from perdure.server.store.postgres import COCKROACH, POSTGRES
            from perdure.server.store.postgres.tools import PostgresDatabase

            return PostgresDatabase(db, shown_db(db), dialect=COCKROACH if is_cockroach(db) else POSTGRES)
        path = sqlite_path(db)
    except (SettingsError, ValueError) as error:
        raise ToolError(str(error)) from error
    if path is None:
        raise ToolError("A database in memory is gone with its server: name a file or a URL.")
    return SqliteDatabase(path)


@asynccontextmanager
async def opened(db: str, access: Access) -> AsyncIterator[Database]:
    """Give a database for as long as the block lasts. Whatever its store raises comes as a ToolError."""
    database = database_of(db)
    try:
        await database.open(access)
        try:
            yield database
        finally:
            await database.close()
    except StoreError as error:
        raise ToolError(f"{database.shown}: {error}") from error
