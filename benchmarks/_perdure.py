"""Starting and stopping the Perdure server that is measured: a process of its own on a database file of its own."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

from temporalio.api.workflowservice.v1 import GetSystemInfoRequest
from temporalio.client import Client
from temporalio.service import RPCError

from benchmarks._database import new_database, process_id
from benchmarks._measure import Conditions, Subject

NAME = "perdure"

_LOG = "server.log"
_START_LIMIT_SECONDS = 20.0
_STOP_LIMIT_SECONDS = 10.0
_BETWEEN_ATTEMPTS_SECONDS = 0.01


class ServerDidNotStart(Exception):
    """The server gave no answer in time; the message holds the end of its log."""


@asynccontextmanager
async def perdure_server(conditions: Conditions) -> AsyncIterator[Subject]:
    """Run a server on a new database until the block ends.

    Raises:
        ServerDidNotStart: It gave no answer within 20 seconds.
    """
    with tempfile.TemporaryDirectory(prefix="perdure-bench-") as folder:
        async with new_database(conditions) as db, running(Path(folder), db) as subject:
            yield subject


@asynccontextmanager
async def running(folder: Path, db: str) -> AsyncIterator[Subject]:
    """Run a server on a database until the block ends.

    Args:
        folder: Where its log goes.
        db: The database.

    Raises:
        ServerDidNotStart: It gave no answer within 20 seconds.
    """
    port = _free_port()
    began = time.perf_counter()
    process = _spawn(folder, db, port)
    try:
        await _first_answer(process, port, folder)
        took = time.perf_counter() - began
        database = await process_id(db) if db.startswith("postgres") else None
        yield Subject(NAME, f"127.0.0.1:{port}", (process.pid,), took, database)
    finally:
        await asyncio.to_thread(_stop, process)


def _spawn(folder: Path, db: str, port: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "perdure", "server", "--db", db, "--port", str(port)]
    with (folder / _LOG).open("wb") as output:
        return subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)


async def _first_answer(process: subprocess.Popen[bytes], port: int, folder: Path) -> None:
    deadline = time.perf_counter() + _START_LIMIT_SECONDS
    while time.perf_counter() < deadline and process.poll() is None:
        try:
            client = await Client.connect(f"127.0.0.1:{port}")
            await client.workflow_service.get_system_info(GetSystemInfoRequest(), timeout=timedelta(seconds=1))
            return
        except (OSError, RuntimeError, RPCError):
            await asyncio.sleep(_BETWEEN_ATTEMPTS_SECONDS)
    log = await asyncio.to_thread((folder / _LOG).read_text)
    raise ServerDidNotStart(f"perdure server gave no answer; its log ends:\n{log[-2000:]}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_LIMIT_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
