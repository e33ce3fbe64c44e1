"""Many lives of a cluster, in each of which nodes die, stand still, lose each other and the database, and come anew.

After each: nothing acknowledged is lost, nothing is done twice, everything has ended, no shard ever had two nodes, and
no node holds what nobody needs. See `faults.py` for what goes wrong, `checks.py` here and above for what must hold.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

import pytest

from tests.simulation.cluster.fan_out import fan_out
from tests.simulation.cluster.faults import ClusterFault
from tests.simulation.cluster.signal_storms import signal_storms
from tests.simulation.cluster.world import CLUSTER
from tests.simulation.faults import Fault
from tests.simulation.simulation import Workload, run_seeds, seed_chunks, simulate
from tests.simulation.test_activities_and_timers import activities_and_timers
from tests.simulation.test_families import families
from tests.simulation.test_ping_pong import ping_pong
from tests.simulation.test_signals_and_queries import signals_and_queries
from tests.simulation.test_sticky_workers import sticky_workers
from tests.simulation.test_successors_and_policies import successors_and_policies

WORKLOADS: Final[dict[str, Workload]] = {
    "activities_and_timers": activities_and_timers,
    "families": families,
    "fan_out": fan_out,
    "ping_pong": ping_pong,
    "signal_storms": signal_storms,
    "signals_and_queries": signals_and_queries,
    "sticky_workers": sticky_workers,
    "successors_and_policies": successors_and_policies,
}
OF_A_LONE_SERVER: Final = {Fault.CRASH, Fault.FENCED, Fault.STORE_UNREADABLE}
"""They happen at any time there; what happens at any time to nodes has names of its own."""


@pytest.mark.parametrize("seeds", seed_chunks(CLUSTER), ids=str)
@pytest.mark.parametrize("name", WORKLOADS)
def test_nothing_is_lost_or_doubled_whatever_becomes_of_nodes(name: str, seeds: range) -> None:
    run_seeds(WORKLOADS[name], seeds, f"cluster/test_workloads.py -k {name}", CLUSTER)


def test_all_workloads_share_the_seeds() -> None:
    assert len(WORKLOADS) == CLUSTER.workloads


def test_the_same_seed_is_the_same_life() -> None:
    once, again = simulate(families, 11, stage=CLUSTER), simulate(families, 11, stage=CLUSTER)
    assert once == again
    assert once.events > 10


def test_every_fault_happens() -> None:
    seen: Counter[str] = Counter()
    for workload in (activities_and_timers, families, fan_out):
        for seed in range(16):
            seen.update(simulate(workload, seed, stage=CLUSTER).faults)
    expected = {fault.name for fault in ClusterFault} | {fault.name for fault in Fault if fault not in OF_A_LONE_SERVER}
    assert expected - set(seen) == set()
