"""What holds for every test: property tests have no deadline, and a failing example prints how to repeat it.

And what many need: a PostgreSQL, and in it a database for each test; and a CockroachDB, where one is named.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from hypothesis import settings

from tests.cockroach_server import CockroachDatabase, NoCockroach, cockroach
from tests.postgres_server import Databases, NoPostgres, PostgresServer, postgres

settings.register_profile("perdure", deadline=None, print_blob=True)
settings.load_profile("perdure")


@pytest.fixture(scope="session")
def databases() -> Iterator[Databases]:
    """A PostgreSQL server; without one, what asks for it is skipped with the reason."""
    try:
        with postgres() as found:
            yield found
    except NoPostgres as error:
        pytest.skip(str(error))


@pytest.fixture
def postgres_server(databases: Databases) -> Iterator[PostgresServer]:
    """A server of our own, to be stopped and started; it runs again afterwards."""
    if not isinstance(databases, PostgresServer):
        pytest.skip("the PostgreSQL that was named is not ours to stop")
    yield databases
    databases.stop()
    databases.start()


@pytest.fixture
async def postgres_url(databases: Databases) -> AsyncIterator[str]:
    """The URL of a new database with the schema in it."""
    url = await databases.create()
    yield url
    await databases.drop(url)


@pytest.fixture
async def reused_postgres_url(databases: Databases) -> str:
    """The URL of a database with the schema and no rows in it, made for the first test that asks for one."""
    return await databases.create_or_reuse()


@pytest.fixture(scope="session")
def cockroach_database() -> Iterator[CockroachDatabase]:
    """A database on CockroachDB; without one, what asks for it is skipped with the reason."""
    try:
        with cockroach() as found:
            yield found
    except NoCockroach as error:
        pytest.skip(str(error))


@pytest.fixture
async def cockroach_url(cockroach_database: CockroachDatabase) -> str:
    """The URL of a database on CockroachDB with the schema and no rows in it."""
    await cockroach_database.make_empty()
    return cockroach_database.url
