"""What the tests of the store on PostgreSQL share."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest

from tests.postgres_server import Databases
from tests.server.store.postgres.shell import Shell


@pytest.fixture
async def shell(postgres_url: str) -> AsyncIterator[Shell]:
    """Another session on the test's database."""
    connection = await asyncpg.connect(postgres_url)
    yield connection
    await connection.close()


@pytest.fixture
async def empty_url(databases: Databases) -> AsyncIterator[str]:
    """A database with nothing in it."""
    url = await databases.create_empty()
    yield url
    await databases.drop(url)


@pytest.fixture
async def connection(empty_url: str) -> AsyncIterator[Shell]:
    """A session on an empty database."""
    connection = await asyncpg.connect(empty_url)
    yield connection
    await connection.close()
