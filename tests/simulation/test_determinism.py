"""The simulation itself: a seed is the same life every time, and lives meet every fault there is."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

import pytest

from tests.simulation.faults import Fault
from tests.simulation.simulation import Workload, simulate
from tests.simulation.test_activities_and_timers import activities_and_timers
from tests.simulation.test_signals_and_queries import signals_and_queries
from tests.simulation.test_sticky_workers import sticky_workers
from tests.simulation.test_successors_and_policies import successors_and_policies

WORKLOADS = {
    "activities_and_timers": activities_and_timers,
    "signals_and_queries": signals_and_queries,
    "successors_and_policies": successors_and_policies,
    "sticky_workers": sticky_workers,
}
SEED = 11


@pytest.mark.parametrize("workload", WORKLOADS.values(), ids=list(WORKLOADS))
def test_the_same_seed_is_the_same_life(workload: Workload) -> None:
    once, again = simulate(workload, SEED), simulate(workload, SEED)
    assert once == again
    assert once.events > 10


def test_different_seeds_are_different_lives() -> None:
    assert len({simulate(activities_and_timers, seed).fingerprint for seed in range(5)}) == 5


def test_a_seed_is_the_same_life_in_every_process() -> None:
    """Sets of strings have another order in every process, unless told otherwise."""
    program = (
        "from tests.simulation.simulation import simulate\n"
        "from tests.simulation.test_determinism import WORKLOADS, SEED\n"
        "print([simulate(workload, SEED).fingerprint for workload in WORKLOADS.values()])"
    )
    lives = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(lives) == 1


def test_every_fault_happens() -> None:
    seen: Counter[str] = Counter()
    for workload in WORKLOADS.values():
        for seed in range(12):
            seen.update(simulate(workload, seed).faults)
    assert {fault.name for fault in Fault} - set(seen) == set()
