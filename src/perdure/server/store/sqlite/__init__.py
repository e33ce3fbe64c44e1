"""The store on SQLite: a file in WAL mode, or memory without one. A file is for one process at a time."""

from perdure.server.store.sqlite.lock import FileHeld, FileLock
from perdure.server.store.sqlite.store import SqliteStore

__all__ = ["FileHeld", "FileLock", "SqliteStore"]
