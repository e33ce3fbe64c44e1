"""A new database for each measurement: an SQLite file, or a database in a PostgreSQL server. Removed afterwards."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import asyncpg
import psutil

from benchmarks._measure import Conditions


@asynccontextmanager
async def new_database(conditions: Conditions) -> AsyncIterator[str]:
    """Give the URL of a database that holds nothing yet."""
    if conditions.postgres is None:
        with tempfile.TemporaryDirectory(prefix="perdure-bench-", dir=conditions.directory) as folder:
            yield f"sqlite:///{folder}/bench.db"
        return
    name = f"perdure_bench_{uuid.uuid4().hex}"
    await _execute(conditions.postgres, f"CREATE DATABASE {name}")
    try:
        yield urlsplit(conditions.postgres)._replace(path=f"/{name}").geturl()
    finally:
        await _execute(conditions.postgres, f"DROP DATABASE {name} WITH (FORCE)")


async def process_id(url: str) -> int | None:
    """Return the process whose children serve a PostgreSQL database, if it runs on this machine."""
    connection = await asyncpg.connect(url)
    try:
        backend: int = await connection.fetchval("SELECT pg_backend_pid()")
        process = psutil.Process(backend)
        # A number of another machine may be that of any process here.
        return process.ppid() if "postgres" in process.name() else None
    except psutil.Error:
        return None
    finally:
        await connection.close()


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
