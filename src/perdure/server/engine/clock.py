"""Time and fresh ids, from outside the core: real ones here, made-up ones in tests and in the simulator."""

from __future__ import annotations

import os
import time
import uuid
from typing import Final, Protocol

_RANDOM_BLOCK_BYTES: Final = 4096
_UPTIME_CLOCK: Final[int | None] = getattr(time, "CLOCK_BOOTTIME", None)


class Clock(Protocol):
    """What the engine asks of the world."""

    def now(self) -> int:
        """Return the time in nanoseconds since the epoch."""

    def uptime(self) -> float:
        """Return seconds on a clock that nobody sets and that goes on while the machine or process is suspended."""

    def new_run_id(self) -> str:
        """Return a fresh UUID. Its order means nothing but to a database, which may want it to rise or not to."""

    def new_nonce(self) -> str:
        """Return a fresh string that nobody can guess."""


class SystemClock:
    """The machine's clock and randomness.

    Random bytes are read in blocks: for a few of them, the call into the system costs more than the bytes.

    Args:
        run_ids_rise: Whether run ids sort by the time of their start, which keeps the inserts of one index together; or
            are random, for a database that would leave all the work to the server with the highest keys.
    """

    def __init__(self, *, run_ids_rise: bool = True) -> None:
        self._run_ids_rise = run_ids_rise
        self._random = ""
        self._random_used = 0

    def now(self) -> int:
        """Return the time in nanoseconds since the epoch."""
        return time.time_ns()

    def uptime(self) -> float:
        """Return seconds on a clock that goes on through suspension; where a system has none, on its steady clock."""
        return time.clock_gettime(_UPTIME_CLOCK) if _UPTIME_CLOCK is not None else time.monotonic()

    def new_run_id(self) -> str:
        """Return a fresh UUID of version 7, or of version 4 where they are not to rise."""
        if self._run_ids_rise:
            return uuid7(time.time_ns() // 1_000_000, int(self._random_digits(20), 16) >> 6)
        return str(uuid.UUID(self._random_digits(32), version=4))

    def new_nonce(self) -> str:
        """Return 96 random bits as text."""
        return self._random_digits(24)

    def _random_digits(self, count: int) -> str:
        """Return so many hexadecimal digits."""
        end = self._random_used + count
        if end > len(self._random):
            self._random = os.urandom(_RANDOM_BLOCK_BYTES).hex()
            end = count
        self._random_used = end
        return self._random[end - count : end]


def uuid7(milliseconds: int, random_bits: int) -> str:
    """Format a UUID of version 7 (RFC 9562).

    Args:
        milliseconds: Since the epoch; its low 48 bits are used.
        random_bits: 74 random bits.
    """
    high = (milliseconds & 0xFFFFFFFFFFFF) << 16 | 0x7000 | random_bits >> 62
    low = 0x2 << 62 | random_bits & 0x3FFFFFFFFFFFFFFF
    text = f"{high:016x}{low:016x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
