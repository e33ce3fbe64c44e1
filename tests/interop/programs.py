"""Programs of other languages' SDKs: each does what users of a server do, and says of each thing how it went.

A program is given a server's address and the path of an executable that starts one. It prints a line for each of its
scenarios: `ok NAME`, or `failed NAME: WHY`.
"""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Sequence
from pathlib import Path

RUN_SECONDS = 60
_LINE = re.compile(r"^(ok|failed) (.+)$", re.MULTILINE)


def perdure_executable(directory: Path) -> Path:
    """Write an executable that is Perdure's command line, for SDKs that want the path of one."""
    executable = directory / "perdure"
    executable.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m perdure "$@"\n', encoding="utf-8")
    executable.chmod(0o755)
    return executable


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
