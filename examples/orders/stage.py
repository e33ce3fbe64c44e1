"""The stage of the story: a directory with the database, the server, the workers and a client.

`until` is how the story checks itself: what it says will happen must happen in time, while every process that should
be alive is.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from temporalio.client import Client

from examples.orders import sql
from examples.orders.processes import Process, free_port, server_command, worker_command

T = TypeVar("T")

SERVER = "server"
PATIENCE_SECONDS = 20.0
LOOK_AGAIN_SECONDS = 0.05
LOG_LINES = 15


class NotAsTold(Exception):
    """Something in the story did not happen as it was told."""


class Stage:
    """Everything that runs while the story is told; leaving it ends every process that is left.

    Args:
        directory: Where the database and the logs are put.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.database = directory / "orders.db"
        self._port = free_port()
        self._processes: list[Process] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The server goes last: a worker that stops waits for it.
        for process in sorted(self._processes, key=lambda process: process.name == SERVER):
            self.stop(process)

    @property
    def address(self) -> str:
        """The address of the server, `host:port`."""
        return f"127.0.0.1:{self._port}"

    def start_server(self) -> Process:
        """Start a server on the database; the one before it must have ended."""
        return self._start(SERVER, server_command(self.database, self._port))

    def start_worker(self, role: str) -> Process:
        """Start a worker in one of the roles of `workers`."""
        return self._start(role, worker_command(role, self.address))

    def kill(self, process: Process) -> None:
        """Kill a process with SIGKILL."""
        self._processes.remove(process)
        process.kill()

    def stop(self, process: Process) -> None:
        """Ask a process to end and wait until it has."""
        self._processes.remove(process)
        process.stop()

    async def connect(self) -> Client:
        """Return a client of the server, once that answers."""

        async def answer() -> Client | None:
            try:
                return await Client.connect(self.address)
            except RuntimeError:
                return None

        return await self.until("the server answers", answer)

    async def until(self, told: str, look: Callable[[], Awaitable[T | None]]) -> T:
        """Look again and again until there is something to see, and return it.

        Raises:
            NotAsTold: Twenty seconds passed, or a process ended by itself.
        """
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (seen := await look()) is None:
            self._check_processes()
            if time.monotonic() > deadline:
                raise NotAsTold(f"{told}: this did not happen within {PATIENCE_SECONDS:.0f} seconds.")
            await asyncio.sleep(LOOK_AGAIN_SECONDS)
        return seen

    def show(self, query: str) -> list[dict[str, str]]:
        """Print a query on the database, and its answer; return the rows, by the names of the columns."""
        columns, rows = sql.answer(self.database, query)
        say_lines(sql.tell(self.database, query, columns, rows))
        return [dict(zip(columns, row, strict=True)) for row in rows]

    def logs(self) -> str:
        """Return the last lines of every log."""
        tails = []
        for log in sorted(self.directory.glob("*.log")):
            lines = log.read_text(errors="replace").splitlines()[-LOG_LINES:]
            tails.append("\n".join([f"--- the end of {log.name}", *lines]))
        return "\n".join(tails)

    def _start(self, name: str, command: list[str]) -> Process:
        process = Process(name, command, self.directory / f"{name}.log")
        self._processes.append(process)
        say(f"  [{name}: process {process.pid}]")
        return process

    def _check_processes(self) -> None:
        for process in self._processes:
            if process.exit_code is not None:
                raise NotAsTold(f"the {process.name} process ended, exit code {process.exit_code}.")


def check(told: str, *, expected: object, seen: object) -> None:
    """Raise NotAsTold unless what is seen is what was told."""
    if seen != expected:
        raise NotAsTold(f"{told}: expected {expected!r}, saw {seen!r}.")


def say(text: str) -> None:
    """Print a line of the story at once."""
    print(text, flush=True)


def say_lines(lines: Iterable[str]) -> None:
    """Print lines of the story."""
    for line in lines:
        say(line)
