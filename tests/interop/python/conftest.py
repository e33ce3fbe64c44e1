"""One server in memory for all tests of a process, and a client of it for each; and three on one database as a cluster.

Some tests run on both: a cluster answers at any address as one server does. `PERDURE_INTEROP_CLUSTER=1` runs all there.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from temporalio.client import Client

from tests.interop.python.harness import Server, running
from tests.postgres_server import Databases

NODES = 3
EVERYWHERE = "PERDURE_INTEROP_CLUSTER"
ON_A_CLUSTER_TOO = {
    "test_children",
    "test_external_workflows",
    "test_first_workflows",
    "test_signals_and_queries",
    "test_workers",
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run on a cluster too what has most to do with who owns what."""
    if "server" in metafunc.fixturenames:
        name = metafunc.module.__name__.rpartition(".")[2]
        on_a_cluster = name in ON_A_CLUSTER_TOO or os.environ.get(EVERYWHERE)
        metafunc.parametrize("server", ["memory", "cluster"] if on_a_cluster else ["memory"], indirect=True)


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running server: one whose database is in memory, or any of a cluster's."""
    directory = tmp_path_factory.mktemp("interop")
    if request.param == "memory":
        with running(Server(directory / "server.log")) as started:
            yield started
        return
    databases: Databases = request.getfixturevalue("databases")
    url = asyncio.run(databases.create())
    with ExitStack() as nodes:
        members = [nodes.enter_context(running(Server(directory / f"{place}.log", url))) for place in range(NODES)]
        yield members[-1]
    asyncio.run(databases.drop(url))


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
