"""Start, kill and stop the processes of the story: one server and its workers.

Every process is known by its process id and nothing is ever ended by name. Its output goes to a log file beside the
database.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
STOP_SECONDS = 5.0


def server_command(database: Path, port: int) -> list[str]:
    """Return the command that serves a database file on a port."""
    return [sys.executable, "-m", "perdure", "server", "--db", f"sqlite:///{database}", "--port", str(port)]


def worker_command(role: str, address: str) -> list[str]:
    """Return the command that runs one worker."""
    return [sys.executable, "-m", "examples.orders.workers", role, address]


def free_port() -> int:
    """Return a port of the loopback address that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


class Process:
    """A running child process.

    Args:
        name: What the story calls it.
        command: The command line, the program first.
        log: The file its output is appended to.
    """

    def __init__(self, name: str, command: list[str], log: Path) -> None:
        self.name = name
        self.log = log
        with log.open("ab") as output:
            self._child = subprocess.Popen(
                command, cwd=REPOSITORY, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
            )

    @property
    def pid(self) -> int:
        """The process id."""
        return self._child.pid

    @property
    def exit_code(self) -> int | None:
        """The exit code, or None while the process runs."""
        return self._child.poll()

    def kill(self) -> None:
        """Kill the process with SIGKILL, which it can neither see coming nor clean up after."""
        self._child.send_signal(signal.SIGKILL)
        self._child.wait()

    def stop(self) -> None:
        """Ask the process to end, and kill it where it does not within five seconds. Does nothing if it has ended."""
        if self.exit_code is not None:
            return
        self._child.terminate()
        try:
            self._child.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
