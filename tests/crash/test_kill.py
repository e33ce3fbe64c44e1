"""Kill -9 of the server at random moments under load: nothing it acknowledged is lost, and everything completes.

The kill ends the process, not the machine: what was handed to the operating system survives it. That a commit also
reaches the disk is SQLite's promise (`synchronous=FULL`) and PostgreSQL's (`synchronous_commit`), which the stores' own
tests pin.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest
from temporalio.api.workflowservice.v1 import GetSystemInfoRequest, GetSystemInfoResponse

from perdure.server.tools.check import Checked
from perdure.server.tools.commands import check
from tests.crash._calls import Calls
from tests.crash._finish import audit_all
from tests.crash._load import Journal, Load
from tests.crash._plan import seed_of_run
from tests.crash._server import ServerProcess, free_port, perdure_command
from tests.postgres_server import PostgresServer

_KILLS = 50
_CRASHES = 4
_CALLERS = 12
_WORKFLOW_POLLERS = 8
_STICKY_POLLERS = 4
_ACTIVITY_POLLERS = 10
_DURING_START_UP = 0.1
"""One kill in ten comes before the server has answered anything."""
_UP_SECONDS = 0.05, 1.5
_STARTING_SECONDS = 0.0, 0.4


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_fifty_kills_under_load_lose_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    seed = seed_of_run()
    port = free_port()
    db = f"sqlite:///{tmp_path}/crash.db"
    server = ServerProcess(perdure_command(db, port), tmp_path / "server.log")

    async def kill(calls: Calls, dice: random.Random) -> None:
        await _kill_again_and_again(server, calls, dice, _KILLS)

    journal, faults = await disturb_under_load(server, f"127.0.0.1:{port}", seed=seed, disturb=kill)

    assert server.kills == _KILLS
    faults += await _faults_of_rows(db)
    _check(journal, faults, f"seed {seed}, {server.kills} kills", at_least=_KILLS)


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_kills_of_the_server_and_crashes_of_postgresql_lose_nothing_either(
    tmp_path: Path, postgres_server: PostgresServer, postgres_url: str
) -> None:
    seed = seed_of_run()
    port = free_port()
    server = ServerProcess(perdure_command(postgres_url, port), tmp_path / "server.log")

    async def kill_and_crash(calls: Calls, dice: random.Random) -> None:
        for _ in range(_CRASHES):
            await _kill_again_and_again(server, calls, dice, 1)
            await calls.until_answered(GetSystemInfoRequest(), GetSystemInfoResponse)
            await asyncio.sleep(dice.uniform(*_UP_SECONDS))
            # The server is not told, and must go on by itself: it is not started again here.
            await asyncio.to_thread(postgres_server.stop)
            await asyncio.to_thread(postgres_server.start)

    journal, faults = await disturb_under_load(server, f"127.0.0.1:{port}", seed=seed, disturb=kill_and_crash)

    assert server.kills == _CRASHES
    faults += await _faults_of_rows(postgres_url)
    _check(journal, faults, f"seed {seed}, {_CRASHES} kills and crashes", at_least=_CRASHES)


async def _faults_of_rows(db: str) -> list[str]:
    """Return what `perdure db check` says of the database that was left."""
    return [f"{problem.where}: {problem.what}" async for problem in check(db, Checked())]


def _check(journal: Journal, faults: Sequence[str], what: str, *, at_least: int) -> None:
    load = f"{what}; acknowledged: {dict(journal.acknowledged)}"
    assert not faults, "\n".join([f"{len(faults)} faults, {load}", *faults[:40]])
    for kind in ("start", "signal", "activity completion", "workflow completion"):
        assert journal.acknowledged[kind] >= at_least, f"too little to prove anything: {load}"


async def disturb_under_load(
    server: ServerProcess, address: str, *, seed: int, disturb: Callable[[Calls, random.Random], Awaitable[None]]
) -> tuple[Journal, list[str]]:
    """Disturb a server under load, let everything finish, and compare what is there with the journal."""
    dice = random.Random(seed)
    async with Calls(address) as calls:
        load = Load(calls, random.Random(dice.random()))
        server.start()
        try:
            async with load.working(workflows=_WORKFLOW_POLLERS, sticky=_STICKY_POLLERS, activities=_ACTIVITY_POLLERS):
                async with asyncio.TaskGroup() as callers:
                    for _ in range(_CALLERS):
                        callers.create_task(load.call())
                    await disturb(calls, dice)
                    load.stopping = True
                faults = await audit_all(calls, load.journal)
        finally:
            server.stop()
    return load.journal, faults + load.journal.faults


async def _kill_again_and_again(server: ServerProcess, calls: Calls, dice: random.Random, kills: int) -> None:
    """Each life of the server ends at a random moment; the next one begins at once, on the same file and port."""
    for _ in range(kills):
        if dice.random() < _DURING_START_UP:
            await asyncio.sleep(dice.uniform(*_STARTING_SECONDS))
        else:
            await calls.until_answered(GetSystemInfoRequest(), GetSystemInfoResponse)
            await asyncio.sleep(dice.uniform(*_UP_SECONDS))
        server.kill()
        server.start()
