"""Who polled a task queue lately: what DescribeTaskQueue shows, and how a sticky worker is known to be gone.

It remembers workers, not polls, and forgets at once one that was shut down. Pure: times are passed in.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

import msgspec
from temporalio.api.common.v1 import WorkerVersionCapabilities
from temporalio.api.deployment.v1 import WorkerDeploymentOptions

DEFAULT_RATE_PER_SECOND = 100_000.0
"""What Temporal shows for a poller that asks for no limit."""


class Poller(msgspec.Struct):
    """Who polls: what the request says about the worker."""

    identity: str
    worker_instance_key: str = ""
    """Unique to one worker object of a process; empty with SDKs that do not send it."""
    sticky: bool = False
    """Whether the queue is a sticky one, which only this worker polls."""
    rate_per_second: float = DEFAULT_RATE_PER_SECOND
    """The most tasks per second the worker wants this queue to hand out."""
    worker_version_capabilities: WorkerVersionCapabilities | None = None
    deployment_options: WorkerDeploymentOptions | None = None


class PollerInfo(NamedTuple):
    """A poller and when it last polled, in nanoseconds since the epoch."""

    poller: Poller
    last_access_at: int


class _Seen(msgspec.Struct):
    poller: Poller
    seen_at: float
    last_access_at: int


class PollerHistory:
    """The pollers of one queue, the latest last.

    Args:
        seconds: How long a poller is remembered after its last poll.
        limit: How many are remembered; beyond it the one seen longest ago is forgotten.
    """

    def __init__(self, *, seconds: float, limit: int) -> None:
        self._seconds = seconds
        self._limit = limit
        self._seen: OrderedDict[tuple[str, str], _Seen] = OrderedDict()

    def see(self, poller: Poller, now: float, wall_now: int) -> None:
        """Note that a poll has begun, or has ended without being cancelled."""
        key = (poller.identity, poller.worker_instance_key)
        self._seen[key] = _Seen(poller, now, wall_now)
        self._seen.move_to_end(key)
        if len(self._seen) > self._limit:
            self._seen.popitem(last=False)

    def seen_since(self, time: float) -> bool:
        """Return whether any poller was seen at that loop time or later."""
        if not self._seen:
            return False
        return next(reversed(self._seen.values())).seen_at >= time

    def infos(self, now: float) -> list[PollerInfo]:
        """Return one entry per identity, the latest first."""
        latest: dict[str, PollerInfo] = {}
        for seen in reversed(self._seen.values()):
            if seen.seen_at >= now - self._seconds:
                latest.setdefault(seen.poller.identity, PollerInfo(seen.poller, seen.last_access_at))
        return list(latest.values())

    def forget_worker(self, worker_instance_key: str) -> None:
        """Forget a worker instance that was shut down."""
        for key in [key for key in self._seen if key[1] == worker_instance_key]:
            del self._seen[key]

    def forget_all(self) -> None:
        """Forget everyone."""
        self._seen.clear()

    def forget_old(self, now: float) -> None:
        """Forget those whose time is over."""
        while self._seen and next(iter(self._seen.values())).seen_at < now - self._seconds:
            self._seen.popitem(last=False)
