"""The server under test: a process of its own that can be killed or suspended at any moment, and started again."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

_STOP_SECONDS = 20.0
_NO_DATABASE = "Error: cannot open the store", "Error: cannot take over the store"
_SERVES = "serves gRPC"


def perdure_command(db: str, port: int, *more: str) -> list[str]:
    """Return the command that serves a database on a loopback port."""
    return [sys.executable, "-m", "perdure", "server", "--db", db, "--port", str(port), *more]


class ServerProcess:
    """A command that is run again after each kill, always on the same files and the same port."""

    def __init__(self, command: Sequence[str], log: Path) -> None:
        self._command = list(command)
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._began_at = 0
        """Where in the log the present life begins."""
        self.kills = 0

    def start(self) -> None:
        """Run the command. What it prints is appended to the log."""
        with self._log.open("ab") as output:
            self._began_at = output.tell()
            self._process = subprocess.Popen(self._command, stdout=output, stderr=subprocess.STDOUT)

    def kill(self) -> None:
        """End the process with SIGKILL. It must still have been running: a server that fell over by itself is a bug."""
        process = self._running()
        process.kill()
        process.wait()
        self.kills += 1

    def suspend(self) -> None:
        """Let the process stand still as it is, until it is to go on."""
        self._running().send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let the process run again, which knows nothing of the time that has passed."""
        self._running().send_signal(signal.SIGCONT)

    def ask_to_stop(self) -> None:
        """Have the process end in good order. It must do so."""
        process = self._running()
        process.terminate()
        code = process.wait(_STOP_SECONDS)
        # One that does not serve yet may just end.
        expected = (0,) if _SERVES in self._log_of_this_life() else (0, -signal.SIGTERM)
        assert code in expected, f"the server ended with {code}:\n{self.log_end()}"

    def stop(self) -> None:
        """Make sure that nothing is left running."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def supervise(self) -> None:
        """Run the command again where it has ended because it found its database away when it started."""
        if self._process is not None and self._process.poll() == 1:
            log = self._log_of_this_life()
            if any(words in log for words in _NO_DATABASE):
                self.start()

    def _running(self) -> subprocess.Popen[bytes]:
        self.supervise()
        assert self._process is not None, "a server that was never started was to be disturbed"
        ended_by_itself = self._process.poll()
        assert ended_by_itself is None, f"the server ended by itself ({ended_by_itself}):\n{self.log_end()}"
        return self._process

    def _log_of_this_life(self) -> str:
        return self._log.read_bytes()[self._began_at :].decode(errors="replace")

    def log_end(self) -> str:
        """Return the last lines the server printed."""
        return self._log.read_text(errors="replace")[-3000:]


def free_port() -> int:
    """Return a port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
