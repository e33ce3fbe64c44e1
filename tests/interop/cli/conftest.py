"""The `temporal` executable and a server for it; without the executable every test here is skipped, with the reason."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from temporalio.client import Client

from tests.interop.python.harness import Server, running

EXECUTABLE = "PERDURE_TEMPORAL_CLI"


class Temporal:
    """Runs `temporal` commands against a server.

    Args:
        executable: The path of the program.
        address: The server, `host:port`.
        home: Where the program looks for its configuration.
    """

    def __init__(self, executable: str, address: str, home: Path) -> None:
        self._executable = executable
        self._address = address
        self._environment = {"PATH": os.environ.get("PATH", ""), "HOME": str(home), "TEMPORAL_ADDRESS": address}

    async def run(self, *arguments: str) -> str:
        """Run a command that must succeed and return what it prints."""
        code, output, errors = await self._execute(*arguments)
        assert code == 0, f"temporal {' '.join(arguments)}: {errors}{output}"
        return output

    async def refused(self, *arguments: str) -> str:
        """Run a command that must fail and return what it complains of."""
        code, output, errors = await self._execute(*arguments)
        assert code != 0, f"temporal {' '.join(arguments)} succeeded: {output}"
        return errors

    async def json(self, *arguments: str) -> object:
        """Run a command and return the JSON it prints."""
        parsed: object = json.loads(await self.run(*arguments, "--output", "json"))
        return parsed

    async def _execute(self, *arguments: str) -> tuple[int, str, str]:
        process = await asyncio.create_subprocess_exec(
            self._executable,
            *arguments,
            "--color",
            "never",
            env=self._environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        output, errors = await asyncio.wait_for(process.communicate(), 20)
        assert process.returncode is not None
        return process.returncode, output.decode(), errors.decode()


@pytest.fixture(scope="session")
def executable() -> str:
    """The path of the `temporal` program."""
    found = os.environ.get(EXECUTABLE) or shutil.which("temporal")
    if found is None:
        pytest.skip(f"no `temporal` executable on PATH, nor named by {EXECUTABLE}")
    return found


@pytest.fixture(scope="session")
def server(executable: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running server whose database is in memory."""
    with running(Server(tmp_path_factory.mktemp("interop-cli") / "server.log")) as started:
        yield started


@pytest.fixture
async def client(server: Server) -> Client:
    """A client of the server, for the workers that the commands need."""
    return await server.connect()


@pytest.fixture
def temporal(executable: str, server: Server, client: Client, tmp_path: Path) -> Temporal:
    """The `temporal` program, pointed at the server, which answers already."""
    return Temporal(executable, server.address, tmp_path)
