"""What all benchmarks share: the server under test seen from outside, a stopwatch on its processes, and the figures.

A server is measured as an operator would see it: its address, and what the kernel says of its processes. This module
must never reach into a server, so that every subject is measured in the same way.
"""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

_MEGABYTE = 1024 * 1024

_SETTLED_USAGE = 0.08
"""A server that uses less than this part of one core has finished what it does after it answered."""
_SETTLE_WINDOW_SECONDS = 0.3
_SETTLE_LIMIT_SECONDS = 8.0

Figures = Mapping[str, float | str]
"""Measured numbers by row key. A string says in words why there is no number."""

NOT_BUILT = "not built"
NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Subject:
    """A running server.

    Args:
        name: The column it is printed in.
        address: Host and port of its gRPC endpoint.
        process_ids: The processes whose CPU and memory are its own; empty where they are not known.
        seconds_to_first_answer: From the start of its process to its first answer; None where it ran already.
        database_process_id: The process whose children serve its database; None where there is none or it is not known.
    """

    name: str
    address: str
    process_ids: tuple[int, ...] = ()
    seconds_to_first_answer: float | None = None
    database_process_id: int | None = None

    def database_cpu_seconds(self) -> float | None:
        """Return the CPU time that its database has used so far, ended connections included."""
        try:
            return None if self.database_process_id is None else _family_cpu_seconds(self.database_process_id)
        except psutil.Error:
            return None

    def cpu_seconds(self) -> float | None:
        """Return the CPU time used so far by all threads, user and system, or None where it cannot be read."""
        try:
            return sum(map(_process_cpu_seconds, self.process_ids)) if self.process_ids else None
        except psutil.Error:
            return None

    def resident_megabytes(self) -> float | None:
        """Return the resident memory in MiB, or None where it cannot be read."""
        try:
            return sum(map(_process_resident_megabytes, self.process_ids)) if self.process_ids else None
        except psutil.Error:
            return None


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Args:
        key: The name of the figure.
        label: What is measured.
        unit: Its unit.
        target: What the design asks for, in the row's unit, as text.
        more_is_better: Whether a larger number is the better one.
        digits: How many digits after the point are printed.
    """

    key: str
    label: str
    unit: str
    target: str = ""
    more_is_better: bool = False
    digits: int = 2


@dataclass(frozen=True)
class Conditions:
    """Under which conditions the figures are taken.

    Args:
        directory: Where databases are made: the disk that is measured.
        quick: Whether a look is enough, with a tenth of the load and rough figures.
        postgres: The URL of a PostgreSQL server in which databases are made instead; None for SQLite files.
    """

    directory: Path
    quick: bool = False
    postgres: str | None = None

    def count(self, full: int, *, at_least: int = 10) -> int:
        """Return how many items to run where a full run takes `full`."""
        return max(at_least, full // 10) if self.quick else full


@dataclass(frozen=True)
class Benchmark:
    """A benchmark of a running server.

    Args:
        name: What `--only` calls it.
        rows: The lines it fills.
        measure: Takes the figures of one round.
        needs_fresh_server: Whether every round wants a server that has done nothing yet. A peer is whatever runs at
            its address.
        alone: Whether it measures Perdure without a server; its subject is then only a name.
    """

    name: str
    rows: Sequence[Row]
    measure: Callable[[Subject, Conditions], Awaitable[Figures]]
    needs_fresh_server: bool = False
    alone: bool = False


@dataclass
class Span:
    """What a piece of work cost the server, filled in when its block ends."""

    seconds: float = math.nan
    cpu_seconds: float | None = None
    peak_megabytes: float | None = None
    database_cpu_seconds: float | None = None
    _samples: list[float] = field(default_factory=list)

    def cpu_milliseconds_per(self, count: int) -> float | str:
        """Return the server's CPU time per item."""
        return NOT_MEASURED if self.cpu_seconds is None else self.cpu_seconds * 1000 / count

    def database_milliseconds_per(self, count: int) -> float | str:
        """Return the database's CPU time per item, where it is a process of its own."""
        return NOT_MEASURED if self.database_cpu_seconds is None else self.database_cpu_seconds * 1000 / count


@asynccontextmanager
async def span(subject: Subject) -> AsyncIterator[Span]:
    """Measure a block: its wall time, and the server's CPU and peak memory until the server has settled again."""
    taken = Span()
    sampler = asyncio.create_task(_sample_memory(subject, taken))
    cpu_before = subject.cpu_seconds()
    database_before = subject.database_cpu_seconds()
    began = time.perf_counter()
    try:
        yield taken
    finally:
        taken.seconds = time.perf_counter() - began
        cpu_after = await settle(subject)
        sampler.cancel()
    if cpu_before is not None and cpu_after is not None:
        taken.cpu_seconds = cpu_after - cpu_before
    database_after = subject.database_cpu_seconds()
    if database_before is not None and database_after is not None:
        taken.database_cpu_seconds = database_after - database_before
    if (last := subject.resident_megabytes()) is not None:
        taken.peak_megabytes = max([*taken._samples, last])


async def settle(subject: Subject) -> float | None:
    """Wait until the server has stopped working: what it does after it answered is part of the cost.

    Returns:
        Its CPU time when it stopped, so that the time it then idled is not counted. None where it cannot be read.
    """
    deadline = time.perf_counter() + _SETTLE_LIMIT_SECONDS
    while True:
        before = subject.cpu_seconds()
        await asyncio.sleep(_SETTLE_WINDOW_SECONDS)
        after = subject.cpu_seconds()
        if before is None or after is None:
            return None
        if after - before < _SETTLED_USAGE * _SETTLE_WINDOW_SECONDS or time.perf_counter() > deadline:
            return before


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the value below which `percent` of the values lie (nearest rank). Raises ValueError for no values."""
    if not values:
        raise ValueError("a percentile of nothing was asked for")
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def syncs_per_second(directory: Path, seconds: float = 1.0) -> float:
    """Return how often per second one small append to a file in `directory` can be made durable."""
    probe = directory / "sync-probe"
    count = 0
    with probe.open("wb") as file:
        began = time.perf_counter()
        while time.perf_counter() - began < seconds:
            file.write(b"x" * 4096)
            file.flush()
            os.fdatasync(file.fileno())
            count += 1
        elapsed = time.perf_counter() - began
    probe.unlink()
    return count / elapsed


async def _sample_memory(subject: Subject, taken: Span) -> None:
    while (resident := subject.resident_megabytes()) is not None:
        taken._samples.append(resident)
        await asyncio.sleep(0.25)


def _process_cpu_seconds(process_id: int) -> float:
    times = psutil.Process(process_id).cpu_times()
    return times.user + times.system


def _family_cpu_seconds(process_id: int) -> float:
    """Return the CPU time of a process, of its children that live, and of those that have ended."""
    parent = psutil.Process(process_id)
    times = parent.cpu_times()
    total = times.user + times.system + times.children_user + times.children_system
    for child in parent.children():
        with suppress(psutil.NoSuchProcess):
            total += _process_cpu_seconds(child.pid)
    return total


def _process_resident_megabytes(process_id: int) -> float:
    return psutil.Process(process_id).memory_info().rss / _MEGABYTE
