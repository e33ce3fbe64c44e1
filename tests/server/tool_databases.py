"""Databases of each kind for tests of the tools."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import count
from pathlib import Path

import pytest

from tests.postgres_server import Databases
from tests.server.store.faults import CockroachOnPostgres

NewDatabase = Callable[[str], Awaitable[str]]
"""Takes a kind, `sqlite`, `postgres` or `cockroach`; gives the URL of a database with nothing in it.

What the last one names is PostgreSQL, spoken to in CockroachDB's dialect.
"""


@pytest.fixture
async def new_database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[NewDatabase]:
    """Makes databases that go away with the test."""
    numbers = count(1)
    made: list[tuple[Databases, str]] = []

    async def make(kind: str) -> str:
        if kind == "sqlite":
            return str(tmp_path / f"{next(numbers)}.db")
        databases: Databases = request.getfixturevalue("databases")
        url = await databases.create_empty()
        made.append((databases, url))
        if kind != "cockroach":
            return url
        monkeypatch: pytest.MonkeyPatch = request.getfixturevalue("monkeypatch")
        monkeypatch.setattr("perdure.server.store.postgres.COCKROACH", CockroachOnPostgres())
        return url.replace("postgresql://", "cockroachdb://", 1)

    yield make
    for databases, url in made:
        await databases.drop(url)


@pytest.fixture(params=["sqlite", "postgres", "cockroach"])
async def empty_url(request: pytest.FixtureRequest, new_database: NewDatabase) -> str:
    """A database of each kind, with nothing in it."""
    return await new_database(request.param)


@pytest.fixture(params=["sqlite", "postgres"])
async def old_url(request: pytest.FixtureRequest, new_database: NewDatabase) -> str:
    """A database with nothing in it, of each kind that the first release had."""
    return await new_database(request.param)
