"""What SQLite's errors mean for the caller: away for now, or refused for what was written."""

from __future__ import annotations

import sqlite3

from perdure.server.store.interface import BatchRejected, StoreError, StoreMismatch, StoreUnavailable

_PRIMARY_CODE = 0xFF
"""Extended result codes carry the primary one in their low byte."""

_REFUSED = frozenset({sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_RANGE})


def map_error(error: Exception) -> StoreError:
    """Return the store's own error for one raised by `sqlite3`.

    Values that Python cannot bind (a lone surrogate, an integer beyond 64 bits, text beyond the size limit) never reach
    the database and have no result code: they are refusals as well.
    """
    if isinstance(error, StoreError):
        return error
    if isinstance(error, (UnicodeError, OverflowError)):
        return BatchRejected(f"The database cannot hold a value: {error}")
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        refused = isinstance(error, (sqlite3.InterfaceError, sqlite3.ProgrammingError)) and "binding" in str(error)
        return BatchRejected(str(error)) if refused else StoreUnavailable(str(error))
    if code & _PRIMARY_CODE in _REFUSED:
        return BatchRejected(f"The database refuses a row: {error}")
    if code & _PRIMARY_CODE == sqlite3.SQLITE_NOTADB:
        return StoreMismatch(f"The file is not an SQLite database: {error}")
    return StoreUnavailable(f"The database cannot answer: {error}")
