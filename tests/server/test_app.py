"""The composition root: what a server is put together of follows from the URL of its database."""

from __future__ import annotations

import asyncio
import os
import socket
import sqlite3
import uuid
from contextlib import closing
from pathlib import Path

import grpc.aio
import pytest
from temporalio.api.common.v1 import WorkflowType
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import StartWorkflowExecutionRequest, StartWorkflowExecutionResponse

from perdure.server.app import CannotServe, running
from perdure.server.settings import ServerSettings
from perdure.server.store.sqlite import SqliteStore
from perdure.server.store.tools.interface import Access
from tests.server.store.tools.places import by_hand, database_of
from tests.server.tool_databases import NewDatabase

START = "/temporal.api.workflowservice.v1.WorkflowService/StartWorkflowExecution"


async def _start(port: int, workflow_id: str) -> str:
    """Start a workflow at a server, and return its run id."""
    request = StartWorkflowExecutionRequest(
        namespace="default",
        workflow_id=workflow_id,
        workflow_type=WorkflowType(name="Order"),
        task_queue=TaskQueue(name="orders"),
        request_id=workflow_id,
    )
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        start: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(START)
        reply = await start(request.SerializeToString(), timeout=20)
    return StartWorkflowExecutionResponse.FromString(reply).run_id


@pytest.mark.parametrize(("kind", "version_of_run_ids"), [("postgres", 7), ("cockroach", 4)])
async def test_servers_on_one_database_are_a_cluster(
    kind: str, version_of_run_ids: int, new_database: NewDatabase
) -> None:
    """Whichever of the databases that can be shared it is; and run ids rise where that does good."""
    url = await new_database(kind)
    settings = ServerSettings(db=url, port=0)
    async with running(settings) as first, running(settings) as second:
        run_ids = [await _start(server.port, f"w{number}") for number, server in enumerate((first, second) * 4)]
        assert {uuid.UUID(run_id).version for run_id in run_ids} == {version_of_run_ids}
        database = database_of(by_hand(url))
        await database.open(Access.READ)
        members = [str(node) for (node,) in await database.fetch("SELECT node FROM member ORDER BY node")]
        await database.close()
        assert members == sorted(f"127.0.0.1:{server.port}" for server in (first, second))


async def test_a_server_that_could_not_start_listens_no_longer() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
    kind = IndexedValueType.INDEXED_VALUE_TYPE_BOOL
    settings = ServerSettings(db="sqlite:///:memory:", port=port, search_attributes={"ExecutionStatus": kind})
    with pytest.raises(CannotServe, match="ExecutionStatus"):
        async with running(settings):
            pytest.fail("it has started")
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


async def _refusal(settings: ServerSettings) -> str:
    """Return why a server does not start."""
    with pytest.raises(CannotServe) as refused:
        async with running(settings):
            pytest.fail("it has started")
    return str(refused.value)


async def test_a_server_that_is_not_to_make_its_database_leaves_nothing(tmp_path: Path) -> None:
    told = await _refusal(ServerSettings(db=str(tmp_path / "fresh.db"), port=0, migrate=False))
    assert told.endswith("The database has no schema, and this server is not to make it: `perdure db migrate` does.")
    assert not os.listdir(tmp_path)


async def test_a_server_on_what_is_no_database_leaves_nothing_beside_it(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("Dear Sir or Madam")
    told = await _refusal(ServerSettings(db=str(tmp_path / "letter.txt"), port=0))
    assert "letter.txt is not an SQLite database: name another file" in told
    assert "is not a file: name one" in await _refusal(ServerSettings(db=str(tmp_path), port=0))
    assert os.listdir(tmp_path) == ["letter.txt"]


async def test_a_server_with_a_pragma_that_is_none_leaves_nothing(tmp_path: Path) -> None:
    settings = ServerSettings(db=str(tmp_path / "fresh.db"), port=0, sqlite_pragmas={"nonsense": "1"})
    assert "has no pragma nonsense" in await _refusal(settings)
    assert not os.listdir(tmp_path)


async def test_a_missing_folder_is_told_with_what_would_do(tmp_path: Path) -> None:
    told = await _refusal(ServerSettings(db=str(tmp_path / "no" / "fresh.db"), port=0))
    assert told.endswith(f"there is no folder {tmp_path / 'no'}: make it first")


async def test_a_server_that_may_wait_for_another_is_told_how(tmp_path: Path) -> None:
    settings = ServerSettings(db=str(tmp_path / "orders.db"), port=0)
    async with running(settings):
        told = await _refusal(settings)
    assert told.endswith("stop that one, or wait for its end with `perdure server --lock-wait-seconds`")


async def test_a_database_that_has_lost_its_id_is_told_clearly(tmp_path: Path) -> None:
    path = str(tmp_path / "orders.db")
    store = SqliteStore(path)
    await store.open()
    await store.close()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("DELETE FROM meta")
    told = await _refusal(ServerSettings(db=path, port=0))
    assert told.endswith("the table meta has no row cluster_id. Restore a backup.")
