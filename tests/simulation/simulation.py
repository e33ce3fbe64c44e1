"""Runs one seed of a workload, and many seeds as a test.

PERDURE_SIMULATION_SEEDS says how many seeds are run in all, PERDURE_SIMULATION_SEED names a single one.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from tests import virtual_time
from tests.simulation.checks import Bugs, bugs_raised, check_all_closed, check_end, every_step_checked, fingerprint
from tests.simulation.faults import FaultRates
from tests.simulation.world import World

Workload = Callable[[World], Awaitable[None]]
"""Does what it does while faults happen, and then until all its workflows have ended."""

SEEDS_OF_CI: Final = 500
WORKLOADS: Final = 6
SEEDS_PER_TEST: Final = 25
LIMIT_SECONDS: Final = 3 * 3600.0
"""Loop time after which a workflow that has not ended never will."""


class Outcome(msgspec.Struct):
    """What came of a seed."""

    fingerprint: str
    """A hash over all events."""
    events: int
    loop_seconds: float
    faults: dict[str, int]


def simulate(workload: Workload, seed: int, rates: FaultRates | None = None) -> Outcome:
    """Run one seed. Raises whatever is wrong."""
    with bugs_raised() as bugs:
        return virtual_time.run(_simulate(workload, seed, rates, bugs), limit_seconds=LIMIT_SECONDS)


async def _simulate(workload: Workload, seed: int, rates: FaultRates | None, bugs: Bugs) -> Outcome:
    loop = asyncio.get_running_loop()
    unhandled: list[dict[str, object]] = []
    loop.set_exception_handler(lambda _, context: unhandled.append(context))
    world = World(seed, rates)
    bugs.tell = world.break_off
    with every_step_checked(world.database):
        await world.begin()
        await workload(world)
        await world.end()
    check_all_closed(world.database)
    check_end(world.database, world.ledger)
    assert not unhandled, f"an exception that nobody looked at: {unhandled[0]}"
    events = sum(map(len, world.database.tables.events.values()))
    faults = {fault.name: count for fault, count in world.faults.seen.items()}
    return Outcome(fingerprint(world.database), events, loop.time(), faults)


def seed_chunks() -> list[range]:
    """Return the seeds a workload's test is to run, in chunks, so that they can run side by side."""
    single = os.environ.get("PERDURE_SIMULATION_SEED")
    if single is not None:
        return [range(int(single), int(single) + 1)]
    count = -(-int(os.environ.get("PERDURE_SIMULATION_SEEDS", SEEDS_OF_CI)) // WORKLOADS)
    return [range(first, min(first + SEEDS_PER_TEST, count)) for first in range(0, count, SEEDS_PER_TEST)]


def run_seeds(workload: Workload, seeds: range, test_file: str) -> None:
    """Run seeds one after the other; the first that fails is named, with the command that repeats it."""
    for seed in seeds:
        try:
            simulate(workload, seed)
        except (Exception, asyncio.CancelledError) as error:
            command = f"PERDURE_SIMULATION_SEED={seed} python -m pytest tests/simulation/{test_file}"
            what = str(error).partition("\n")[0]
            raise AssertionError(
                f"seed {seed} fails: {type(error).__name__}: {what}; repeat it with: {command}"
            ) from error
