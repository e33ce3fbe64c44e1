"""The Go SDK against a server; without a recent enough `go` on the PATH it is skipped, with the reason.

Go fetches the pinned modules once, and keeps them and what it built of them in its own caches.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.interop.programs import (
    expect_all_scenarios_to_go_well,
    perdure_executable,
    skip_if_older,
    tool,
    version_in,
)
from tests.interop.python.harness import Server, running

pytestmark = [pytest.mark.process, pytest.mark.timeout(300)]

PROGRAM = Path(__file__).parent / "program"
ENVIRONMENT = {**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local"}
SCENARIO = re.compile(r'^\t\{"[\w ]+", \w+\},$', re.MULTILINE)


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built program."""
    go = tool("go")
    skip_if_older("go", _go_found(go), _go_wanted())
    built = tmp_path_factory.mktemp("go") / "program"
    subprocess.run(
        [go, "build", "-mod=readonly", "-buildvcs=false", "-o", str(built), "."],
        cwd=PROGRAM,
        env=ENVIRONMENT,
        check=True,
    )
    return built


async def test_the_go_sdk(program: Path, tmp_path: Path) -> None:
    count = len(SCENARIO.findall((PROGRAM / "main.go").read_text(encoding="utf-8")))
    with running(Server(tmp_path / "server.log")) as server:
        await server.connect()
        command = [str(program), server.address, str(perdure_executable(tmp_path))]
        await expect_all_scenarios_to_go_well(command, count)


def _go_wanted() -> tuple[int, ...]:
    line = re.search(r"^go ([\d.]+)$", (PROGRAM / "go.mod").read_text(encoding="utf-8"), re.MULTILINE)
    assert line is not None
    return version_in(line[1])


def _go_found(go: str) -> tuple[int, ...]:
    answer = subprocess.run([go, "version"], env=ENVIRONMENT, capture_output=True, text=True, check=True)
    return version_in(answer.stdout.split()[2])
