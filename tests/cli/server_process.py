"""A server started as people start it: a process with arguments, ready when it says so on standard output."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

READY = re.compile(r"^Perdure \S+ serves gRPC on (\S+):(\d+), store: (.+)$")


class ServerProcess(NamedTuple):
    """A running server and what it said of itself."""

    process: subprocess.Popen[str]
    ip: str
    port: int
    store: str

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"{self.ip}:{self.port}"

    def end(self) -> tuple[int, str]:
        """Wait until the process has ended; return its exit code and what it logged."""
        _, log = self.process.communicate(timeout=30)
        return self.process.returncode, log


def spawn(arguments: Sequence[str], directory: Path) -> subprocess.Popen[str]:
    """Start `perdure` with arguments in a directory."""
    return subprocess.Popen(
        [sys.executable, "-m", "perdure", *arguments],
        cwd=directory,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextmanager
def serving(arguments: Sequence[str], directory: Path) -> Iterator[ServerProcess]:
    """Start a server, wait until it is ready, and kill it at the end if it still runs."""
    with spawn(arguments, directory) as process:
        try:
            assert process.stdout is not None and process.stderr is not None
            line = process.stdout.readline()
            ready = READY.match(line)
            assert ready, f"not ready: {line!r} {process.stderr.read() if not line else ''}"
            yield ServerProcess(process, ready[1], int(ready[2]), ready[3])
        finally:
            process.kill()
