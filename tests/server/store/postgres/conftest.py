"""What the tests of the store on PostgreSQL share."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest

from tests.server.store.postgres.shell import Shell


@pytest.fixture
async def shell(postgres_url: str) -> AsyncIterator[Shell]:
    """Another session on the test's database."""
    connection = await asyncpg.connect(postgres_url)
    yield connection
    await connection.close()
