"""The TypeScript SDK against a server; without a recent enough `node` and `npm` it is skipped, with the reason.

The packages of the lock file are installed once, into the user's cache folder, under a name made of the lock file.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
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
SCENARIO = re.compile(r"^  '[\w ]+': async \(world\) =>", re.MULTILINE)
OLDEST_NODE = (20, 3)


@pytest.fixture(scope="session")
def node() -> str:
    """The path of `node`."""
    node = tool("node", "npm")
    told = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    skip_if_older("node", version_in(told), OLDEST_NODE)
    return node


@pytest.fixture(scope="session")
def program(node: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the program beside the packages it needs."""
    folder = tmp_path_factory.mktemp("typescript")
    for source in PROGRAM.glob("*.mjs"):
        shutil.copy(source, folder)
    (folder / "node_modules").symlink_to(_installed_packages(), target_is_directory=True)
    return folder / "program.mjs"


async def test_the_typescript_sdk(node: str, program: Path, tmp_path: Path) -> None:
    count = len(SCENARIO.findall((PROGRAM / "scenarios.mjs").read_text(encoding="utf-8")))
    with running(Server(tmp_path / "server.log")) as server:
        await server.connect()
        command = [node, str(program), server.address, str(perdure_executable(tmp_path))]
        await expect_all_scenarios_to_go_well(command, count)


def _installed_packages() -> Path:
    lock = PROGRAM / "package-lock.json"
    name = f"typescript-{sys.platform}-{hashlib.sha256(lock.read_bytes()).hexdigest()[:16]}"
    installed = _cache_folder() / name
    if not installed.exists():
        installed.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=installed.parent) as begun:
            for file in (lock, PROGRAM / "package.json"):
                shutil.copy(file, begun)
            # The packages' own install scripts only fetch what they already bring along.
            subprocess.run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=begun, check=True)
            _move_into_place(Path(begun) / "node_modules", installed)
    return installed / "node_modules"


def _move_into_place(packages: Path, installed: Path) -> None:
    """Show the whole folder at once, so that a test beside this one never sees half of it."""
    whole = packages.parent / "whole"
    whole.mkdir()
    packages.rename(whole / "node_modules")
    try:
        whole.rename(installed)
    except OSError:
        if not installed.exists():
            raise


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "perdure-tests"
