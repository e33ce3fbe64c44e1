"""A CockroachDB for tests, where one is named: `PERDURE_TEST_COCKROACH_URL`, with a role that may create databases."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import asyncpg

from perdure.server.store.postgres import COCKROACH, PostgresStore
from tests.postgres_server import remove_rows

URL_VARIABLE = "PERDURE_TEST_COCKROACH_URL"


class NoCockroach(Exception):
    """There is no CockroachDB to be had here; the message says what would do."""


class CockroachDatabase:
    """One database for all tests, which each finds empty: there a change of the schema takes longer than a test.

    Args:
        url: Any database of the server.
    """

    def __init__(self, url: str) -> None:
        self._server_url = url
        self._name = f"perdure_test_{os.getpid()}"
        self._is_made = False

    @property
    def url(self) -> str:
        """The URL of the database."""
        parts = urlsplit(self._server_url)
        query = f"?{parts.query}" if parts.query else ""
        return f"cockroachdb://{parts.netloc}/{self._name}{query}"

    async def make_empty(self) -> None:
        """Make the database with the schema in it, or remove the rows of the last test."""
        if not self._is_made:
            await self._execute(self._server_url, f"CREATE DATABASE {self._name}")
            self._is_made = True
            store = PostgresStore(self.url, dialect=COCKROACH)
            await store.open()
            await store.close()
        await remove_rows(COCKROACH.dsn(self.url))

    async def drop(self) -> None:
        """Remove the database."""
        if self._is_made:
            await self._execute(self._server_url, f"DROP DATABASE {self._name} CASCADE")

    async def _execute(self, url: str, statement: str) -> None:
        connection = await asyncpg.connect(COCKROACH.dsn(url))
        try:
            await connection.execute(statement)
        finally:
            await connection.close()


@contextmanager
def cockroach() -> Iterator[CockroachDatabase]:
    """Give a database for as long as the block lasts.

    Raises:
        NoCockroach: None is named.
    """
    url = os.environ.get(URL_VARIABLE)
    if not url:
        raise NoCockroach(f"no CockroachDB here: set {URL_VARIABLE}")
    database = CockroachDatabase(url)
    try:
        yield database
    finally:
        asyncio.run(database.drop())
