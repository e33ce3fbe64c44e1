"""The store on SQLite: a file in WAL mode, or memory without one."""

from perdure.server.store.sqlite.store import SqliteStore

__all__ = ["SqliteStore"]
