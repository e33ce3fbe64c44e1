"""An asyncio event loop without real time: when nothing can run, its clock jumps to the next timer.

Tests and the simulator run production code on it unchanged. A minute of waiting costs microseconds, and the same
program takes the same steps at the same times, every time.

    @in_virtual_time
    async def test_an_hour_passes() -> None:
        await asyncio.sleep(3600)

It fails loudly where a test on a real loop would hang:

- `Deadlock`: every task waits, and no timer is armed that could ever wake one. It lists where each task waits.
- `TimeStandsStill`: callbacks follow one another for ever without time passing.
- `TimeRanOut`: the clock passed the limit of the run, as happens when only periodic work is left.

The loop must never wait for anything outside itself, or a run would depend on the machine: it has no sockets, no
signals, no subprocesses and no threads, and using one raises.
"""

from __future__ import annotations

import asyncio
import functools
import io
import math
from collections.abc import Awaitable, Callable, Coroutine
from typing import NoReturn, ParamSpec, TypeVar, cast

T = TypeVar("T")
P = ParamSpec("P")

DAY_SECONDS = 86_400.0
DEFAULT_LIMIT_SECONDS = 30 * DAY_SECONDS
MAX_STEPS_PER_INSTANT = 1_000_000

EPOCH_NS = 1_767_225_600_000_000_000
"""What `VirtualClock` shows at loop time 0: 2026-01-01T00:00:00Z."""


class Deadlock(Exception):
    """Every task waits for another one, and no timer is armed."""


class TimeStandsStill(Exception):
    """So many loop iterations went by without time passing that the program must be going in circles."""


class TimeRanOut(Exception):
    """The next timer lies beyond the limit of the run."""


class VirtualTimeLoop(asyncio.BaseEventLoop):
    """The loop. `time()` starts at 0.0 and moves only when nothing is ready to run, exactly to the next timer.

    Timers due at the same time fire in an order that is always the same, though not always that of their making.

    Args:
        limit_seconds: The loop time the run may not pass.
    """

    def __init__(self, *, limit_seconds: float = DEFAULT_LIMIT_SECONDS) -> None:
        super().__init__()
        self._now = 0.0
        self._limit = limit_seconds
        self._steps_at_this_instant = 0
        self._settling: list[asyncio.Future[None]] = []
        self._selector = self

    def time(self) -> float:
        return self._now

    async def settle(self) -> None:
        """Wait until everything else that can run without time passing has run."""
        waiter = self.create_future()
        self._settling.append(waiter)
        await waiter

    # --- what BaseEventLoop asks of a selector --------------------------------------------------------------------

    def select(self, timeout: float | None) -> list[object]:
        """Stand in for the selector: instead of waiting, let the time pass that would have to."""
        self._steps_at_this_instant += 1
        if self._steps_at_this_instant > MAX_STEPS_PER_INSTANT:
            self._steps_at_this_instant = 0
            raise TimeStandsStill(f"{MAX_STEPS_PER_INSTANT} steps at loop time {self._now}; {self._describe_tasks()}")
        if timeout == 0:
            return []
        if self._settling:
            self._wake_settling()
        elif timeout is None:
            raise Deadlock(f"nothing can wake anything any more at loop time {self._now}; {self._describe_tasks()}")
        else:
            self._jump()
        return []

    def _process_events(self, event_list: list[object]) -> None:
        """There never are any."""

    def _wake_settling(self) -> None:
        settling, self._settling = self._settling, []
        for waiter in settling:
            if not waiter.done():
                waiter.set_result(None)

    def _jump(self) -> None:
        timers = cast("list[asyncio.TimerHandle]", self._scheduled)  # type: ignore[attr-defined]  # BaseEventLoop's own
        when = timers[0].when()
        if when > self._limit:
            raise TimeRanOut(f"the next timer is at {when} s, the limit at {self._limit} s; {self._describe_tasks()}")
        if when > self._now:
            self._now = when
            self._steps_at_this_instant = 0
        # The loop runs timers that are due before now plus this: so exactly those that are due, at any distance.
        self._clock_resolution = math.ulp(self._now)

    def _describe_tasks(self) -> str:
        tasks = sorted(asyncio.all_tasks(self), key=lambda task: task.get_name())
        text = io.StringIO()
        for task in tasks[:20]:
            task.print_stack(limit=3, file=text)
        return f"{len(tasks)} tasks are not done:\n{text.getvalue()}"

    # --- what a deterministic loop cannot have --------------------------------------------------------------------

    def _write_to_self(self) -> None:
        """Nothing to wake: the loop never sleeps. A call from another thread is seen late and never waited for."""

    def run_in_executor(self, *args: object, **kwargs: object) -> NoReturn:
        """Refuse: the loop cannot know when a thread will be done."""
        raise NotImplementedError("a loop in virtual time cannot wait for threads; use the in-memory implementation")


class VirtualClock:
    """The wall clock that goes with a loop: nanoseconds since the Unix epoch, in whole microseconds.

    Args:
        loop: Whose time it shows; the running loop by default.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._loop = loop or asyncio.get_running_loop()

    def now(self) -> int:
        """Return the time in nanoseconds since the epoch."""
        return EPOCH_NS + round(self._loop.time() * 1_000_000) * 1_000

    def uptime(self) -> float:
        """Return seconds on a clock that nobody sets."""
        return self._loop.time()


def run(
    main: Coroutine[object, object, T],
    *,
    limit_seconds: float = DEFAULT_LIMIT_SECONDS,
    loop_class: type[VirtualTimeLoop] = VirtualTimeLoop,
) -> T:
    """Run a coroutine to its end in virtual time and return its result; `asyncio.run` with the clock replaced.

    Tasks it leaves behind are cancelled.

    Args:
        main: What to run.
        limit_seconds: The loop time after which the run fails, 30 days by default.
        loop_class: The loop it runs on.

    Raises:
        Deadlock: Everything waits on nothing.
        TimeStandsStill: The program goes in circles.
        TimeRanOut: The limit was passed.
    """
    with asyncio.Runner(loop_factory=lambda: loop_class(limit_seconds=limit_seconds)) as runner:
        return runner.run(main)


def in_virtual_time(test: Callable[P, Coroutine[object, object, T]]) -> Callable[P, T]:
    """Make an async test function a plain one that runs in virtual time."""

    @functools.wraps(test)
    def run_test(*args: P.args, **kwargs: P.kwargs) -> T:
        return run(test(*args, **kwargs))

    return run_test


async def settle() -> None:
    """Wait until everything else that can run without time passing has run. For use in virtual time only."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop), "settle() needs a loop in virtual time"
    await loop.settle()


async def elapsed(work: Awaitable[object]) -> float:
    """Await something and return how many seconds of loop time it took."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    await work
    return loop.time() - started
