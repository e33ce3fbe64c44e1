"""The store on PostgreSQL 13 or newer, and on CockroachDB 23.2 or newer, over asyncpg."""

from perdure.server.store.postgres.cockroach import COCKROACH
from perdure.server.store.postgres.dialect import POSTGRES
from perdure.server.store.postgres.store import PostgresStore

__all__ = ["COCKROACH", "POSTGRES", "PostgresStore"]
