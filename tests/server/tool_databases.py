"""Databases of each kind for tests of the tools."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import count
from pathlib import Path

import pytest

from tests.postgres_server import Databases

NewDatabase = Callable[[str], Awaitable[str]]
"""Takes a kind, `sqlite` or `postgres`; gives the URL of a database with nothing in it."""


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
        return url

    yield make
    for databases, url in made:
        await databases.drop(url)


@pytest.fixture(params=["sqlite", "postgres"])
async def empty_url(request: pytest.FixtureRequest, new_database: NewDatabase) -> str:
    """A database of each kind, with nothing in it."""
    return await new_database(request.param)
