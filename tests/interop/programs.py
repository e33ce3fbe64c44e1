"""Programs of other languages' SDKs: each does what users of a server do, and says of each thing how it went.

A program is given a server's address and the path of an executable that starts one. It prints a line for each of its
scenarios: `ok NAME`, or `failed NAME: WHY`.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

RUN_SECONDS = 60
_LINE = re.compile(r"^(ok|failed) (.+)$", re.MULTILINE)


def perdure_executable(directory: Path) -> Path:
    """Write an executable that is Perdure's command line, for SDKs that want the path of one."""
    executable = directory / "perdure"
    executable.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m perdure "$@"\n', encoding="utf-8")
    executable.chmod(0o755)
    return executable


def tool(*names: str) -> str:
    """Return the path of the first of these tools; skip the test, saying so, where one is not on the PATH."""
    paths = [shutil.which(name) for name in names]
    if paths[0] is None or None in paths:
        pytest.skip(f"no {' and '.join(f'`{name}`' for name in names)} on PATH")
    return paths[0]


def skip_if_older(name: str, found: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    """Skip the test, saying so, where a tool is older than the one that is needed."""
    if found < wanted:
        shown, needed = (".".join(map(str, version)) for version in (found, wanted))
        pytest.skip(f"{name} {shown} is older than {needed}, which is needed")


def version_in(text: str) -> tuple[int, ...]:
    """Return the first version that a text names: its numbers, three at most."""
    return tuple(int(part) for part in re.findall(r"\d+", text)[:3])


async def expect_all_scenarios_to_go_well(command: Sequence[str], count: int) -> None:
    """Run a program and fail if one of its scenarios did, or if there were not as many as it has."""
    code, output, errors = await _run(command)
    found = _LINE.findall(output)
    failed = [what for outcome, what in found if outcome == "failed"]
    assert not failed, "\n".join(failed)
    assert (code, len(found)) == (0, count), f"it ended with {code} after {len(found)} scenarios:\n{output}{errors}"


async def _run(command: Sequence[str]) -> tuple[int | None, str, str]:
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        output, errors = await asyncio.wait_for(process.communicate(), RUN_SECONDS)
    except TimeoutError as error:
        process.kill()
        await process.wait()
        raise AssertionError(f"it did not end within {RUN_SECONDS} seconds") from error
    return process.returncode, output.decode(), errors.decode()
