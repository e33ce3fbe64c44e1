"""Runs one seed of a workload, and many seeds as a test.

PERDURE_SIMULATION_SEEDS says how many seeds are run in all, PERDURE_SIMULATION_SEED names a single one. A third are
lives of a lone server, the others of a cluster, each with the same number for every workload.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

import msgspec

from tests import virtual_time
from tests.simulation.checks import Bugs, bugs_raised, check_all_closed, check_end, every_step_checked, fingerprint
from tests.simulation.faults import FaultRates
from tests.simulation.world import LoneWorld, World
from tests.virtual_time import VirtualTimeLoop

Workload = Callable[[World], Awaitable[None]]
"""Does what it does while faults happen, and then until all its workflows have ended."""

SEEDS_OF_CI: Final = 1_500
SEEDS_PER_TEST: Final = 25


class Stage(NamedTuple):
    """Where workloads are played."""

    make_world: Callable[[int, FaultRates | None], World]
    loop_class: type[VirtualTimeLoop]
    workloads: int
    """How many there are, which share the seeds."""
    thirds: int
    """How many thirds of all seeds are played there."""
    limit_seconds: float
    """Loop time after which a workflow that has not ended never will."""


LONE: Final = Stage(LoneWorld, VirtualTimeLoop, workloads=6, thirds=1, limit_seconds=3 * 3600.0)


class Outcome(msgspec.Struct):
    """What came of a seed."""

    fingerprint: str
    """A hash over all events."""
    events: int
    loop_seconds: float
    faults: dict[str, int]


def simulate(workload: Workload, seed: int, rates: FaultRates | None = None, stage: Stage = LONE) -> Outcome:
    """Run one seed. Raises whatever is wrong."""
    with bugs_raised() as bugs:
        life = _simulate(workload, seed, rates, stage, bugs)
        return virtual_time.run(life, limit_seconds=stage.limit_seconds, loop_class=stage.loop_class)


async def _simulate(workload: Workload, seed: int, rates: FaultRates | None, stage: Stage, bugs: Bugs) -> Outcome:
    loop = asyncio.get_running_loop()
    unhandled: list[dict[str, object]] = []
    loop.set_exception_handler(lambda _, context: unhandled.append(context))
    world = stage.make_world(seed, rates)
    bugs.tell = world.break_off
    with every_step_checked(world.database, world.check_step):
        await world.begin()
        await workload(world)
        await world.end()
    check_all_closed(world.database)
    check_end(world.database, world.ledger)
    assert not unhandled, f"an exception that nobody looked at: {unhandled[0]}"
    events = sum(map(len, world.database.tables.events.values()))
    return Outcome(fingerprint(world.database), events, loop.time(), world.seen_faults())


def seed_chunks(stage: Stage = LONE) -> list[range]:
    """Return the seeds a workload's test is to run, in chunks, so that they can run side by side."""
    single = os.environ.get("PERDURE_SIMULATION_SEED")
    if single is not None:
        return [range(int(single), int(single) + 1)]
    in_all = int(os.environ.get("PERDURE_SIMULATION_SEEDS", SEEDS_OF_CI))
    count = -(-in_all * stage.thirds // (3 * stage.workloads))
    return [range(first, min(first + SEEDS_PER_TEST, count)) for first in range(0, count, SEEDS_PER_TEST)]


def run_seeds(workload: Workload, seeds: range, test_file: str, stage: Stage = LONE) -> None:
    """Run seeds one after the other; the first that fails is named, with the command that repeats it."""
    for seed in seeds:
        try:
            simulate(workload, seed, stage=stage)
        except (Exception, asyncio.CancelledError) as error:
            command = f"PERDURE_SIMULATION_SEED={seed} python -m pytest tests/simulation/{test_file}"
            what = str(error).partition("\n")[0]
            raise AssertionError(
                f"seed {seed} fails: {type(error).__name__}: {what}; repeat it with: {command}"
            ) from error
