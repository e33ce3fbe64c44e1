"""One server in memory for all tests of a process, and a client of it for each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from temporalio.client import Client

from tests.interop.python.harness import Server, running


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running server whose database is in memory."""
    with running(Server(tmp_path_factory.mktemp("interop") / "server.log")) as started:
        yield started


@pytest.fixture(params=["sqlite", "postgres"])
def durable_server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    """A running server of this test's own, on a database of each kind that outlives it."""
    postgres = request.param == "postgres"
    database = request.getfixturevalue("postgres_url") if postgres else str(tmp_path / "perdure.db")
    with running(Server(tmp_path / "server.log", database)) as started:
        yield started


@pytest.fixture
async def client(server: Server) -> Client:
    """A client of the server in memory."""
    return await server.connect()
