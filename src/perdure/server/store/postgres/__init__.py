"""The store on PostgreSQL 13 or newer, over asyncpg."""

from perdure.server.store.postgres.store import PostgresStore

__all__ = ["PostgresStore"]
