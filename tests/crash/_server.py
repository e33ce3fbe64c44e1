"""The server under test: a process of its own that can be killed at any moment and started again at once."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def perdure_command(db: str, port: int) -> list[str]:
    """Return the command that serves a database on a loopback port."""
    return [sys.executable, "-m", "perdure", "server", "--db", db, "--port", str(port)]


class ServerProcess:
    """A command that is run again after each kill, always on the same files and the same port."""

    def __init__(self, command: Sequence[str], log: Path) -> None:
        self._command = list(command)
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self.kills = 0

    def start(self) -> None:
        """Run the command. What it prints is appended to the log."""
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(self._command, stdout=output, stderr=subprocess.STDOUT)

    def kill(self) -> None:
        """End the process with SIGKILL. It must still have been running: a server that fell over by itself is a bug."""
        assert self._process is not None, "a server that was never started was to be killed"
        ended_by_itself = self._process.poll()
        assert ended_by_itself is None, f"the server ended by itself ({ended_by_itself}):\n{self.log_end()}"
        self._process.kill()
        self._process.wait()
        self.kills += 1

    def stop(self) -> None:
        """Make sure that nothing is left running."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def log_end(self) -> str:
        """Return the last lines the server printed."""
        return self._log.read_text(errors="replace")[-3000:]
