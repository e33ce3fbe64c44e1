"""Print the table of docs/performance.md, measured now: `python -m benchmarks --help`.

Perdure is started here, on SQLite files or PostgreSQL databases that are removed afterwards. A peer is a server you
started yourself; it is named by its address. Subjects take turns, round by round, so that a disturbance of the machine
meets all of them.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import sys
import tempfile
import traceback
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from temporalio.client import Client

from benchmarks import (
    engine_alone,
    footprint,
    latency,
    messages,
    nodes,
    official_bench,
    sleeping,
    start,
    steps,
    unbuilt,
)
from benchmarks._measure import Benchmark, Conditions, Figures, Subject, syncs_per_second
from benchmarks._perdure import NAME, perdure_server
from benchmarks._table import Rounds, header, lines

_BENCHMARKS = (
    engine_alone.BENCHMARK,
    official_bench.BENCHMARK,
    start.BENCHMARK,
    latency.BENCHMARK,
    steps.BENCHMARK,
    messages.BENCHMARK,
    footprint.IDLE,
    footprint.AFTER_WORK,
    nodes.BENCHMARK,
)
_FAILED = "failed"


@dataclass(frozen=True)
class _Options:
    peers: tuple[Subject, ...]
    only: frozenset[str]
    conditions: Conditions
    rounds: int
    sleeping: int


def _options(arguments: Sequence[str]) -> _Options:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--peer", action="append", default=[], metavar="HOST:PORT", help="a server to compare with")
    parser.add_argument(
        "--peer-pid",
        action="append",
        default=[],
        metavar="PID[,PID]",
        help="its process ids, in the order of --peer; without them its CPU and memory are not measured",
    )
    names = sorted(benchmark.name for benchmark in _BENCHMARKS)
    parser.add_argument("--only", nargs="+", default=[], choices=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--quick", action="store_true", help="one round with a tenth of the load: rough figures")
    parser.add_argument("--rounds", type=int, help="how often each figure is taken (default 3, quick 1)")
    parser.add_argument("--directory", type=Path, default=Path(tempfile.gettempdir()), help="where databases are made")
    parser.add_argument("--db", metavar="URL", help="a PostgreSQL server for Perdure's databases, instead of files")
    parser.add_argument(
        "--sleeping", type=int, default=0, metavar="COUNT", help="also put COUNT workflows to sleep; takes long"
    )
    given = parser.parse_args(arguments)
    if len(given.peer_pid) > len(given.peer):
        parser.error("there are more --peer-pid than --peer")
    pids = [*given.peer_pid, *[""] * len(given.peer)]
    peers = tuple(
        Subject(address, address, tuple(int(pid) for pid in own.split(",") if pid))
        for address, own in zip(given.peer, pids, strict=False)
    )
    conditions = Conditions(given.directory, given.quick, given.db)
    rounds = given.rounds or (1 if given.quick else 3)
    return _Options(peers, frozenset(given.only), conditions, rounds, given.sleeping)


async def _run(options: _Options) -> bool:
    """Print the table row by row as the figures come in. Return whether every benchmark ran to its end."""
    for peer in options.peers:
        await Client.connect(peer.address)
    peers = [peer.name for peer in options.peers]
    _print(_machine(options))
    _print(header(peers))
    complete = True
    for benchmark in _BENCHMARKS:
        if options.only and benchmark.name not in options.only:
            continue
        rounds = await _rounds(benchmark, options)
        for line in lines(benchmark.rows, rounds, peers):
            _print(line)
        complete &= not any(_FAILED in figures.values() for taken in rounds.values() for figures in taken)
    if options.sleeping or not options.only:
        await _sleep(options, peers)
    if not options.only:
        for line in lines(unbuilt.ROWS, {NAME: [unbuilt.FIGURES]}, peers):
            _print(line)
    return complete


async def _sleep(options: _Options, peers: Sequence[str]) -> None:
    sleep = sleeping.benchmark(options.sleeping)
    rounds: Rounds = await _rounds(sleep, options, rounds=1) if options.sleeping else {NAME: [sleeping.NOT_RUN]}
    for line in lines(sleep.rows, rounds, peers):
        _print(line)


async def _rounds(benchmark: Benchmark, options: _Options, rounds: int | None = None) -> dict[str, list[Figures]]:
    taken: dict[str, list[Figures]] = {name: [] for name in [NAME, *(peer.name for peer in options.peers)]}
    if benchmark.alone:
        for _ in range(rounds or options.rounds):
            taken[NAME].append(await _one(benchmark, Subject(NAME, ""), options.conditions))
        return taken
    async with _turns(benchmark, options) as subjects:
        for number in range(rounds or options.rounds):
            for subject in subjects if number % 2 == 0 else reversed(subjects):
                taken[subject.name].append(await _turn(benchmark, subject, options))
    return taken


@asynccontextmanager
async def _turns(benchmark: Benchmark, options: _Options) -> AsyncIterator[list[Subject]]:
    """Give the subjects in the order of the first round. Where each round wants a fresh server, ours is a promise."""
    if benchmark.needs_fresh_server:
        yield [Subject(NAME, ""), *options.peers]
        return
    async with perdure_server(options.conditions) as ours:
        yield [ours, *options.peers]


async def _turn(benchmark: Benchmark, subject: Subject, options: _Options) -> Figures:
    if subject.address:
        return await _one(benchmark, subject, options.conditions)
    async with perdure_server(options.conditions) as ours:
        return await _one(benchmark, ours, options.conditions)


async def _one(benchmark: Benchmark, subject: Subject, conditions: Conditions) -> Figures:
    """Take one round. One that fails says so in its rows and does not stop the others."""
    try:
        return await benchmark.measure(subject, conditions)
    except Exception:  # noqa: BLE001 - whatever it is, it is printed, and the other figures are still wanted
        print(f"\n{benchmark.name} on {subject.name} failed:\n{traceback.format_exc(limit=-2)}", file=sys.stderr)
        return {row.key: _FAILED for row in benchmark.rows}


def _machine(options: _Options) -> str:
    """Say what the figures were taken on."""
    directory = options.conditions.directory
    syncs = syncs_per_second(directory)
    roughly = ", a tenth of the load: rough figures" if options.conditions.quick else ""
    return (
        f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}; {directory} makes {syncs:,.0f} appends durable per second\n"
        f"medians of {options.rounds} round(s){roughly}\n"
    )


def _print(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(0 if asyncio.run(_run(_options(sys.argv[1:]))) else 1)
