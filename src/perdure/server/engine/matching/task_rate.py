"""Tasks per second over the last half minute, as DescribeTaskQueue reports them. Pure: loop times are passed in."""

from __future__ import annotations

WINDOW_SECONDS = 30.0
"""Temporal's: its documentation promises the average of the last 30 seconds."""

_BUCKET_SECONDS = 5.0
_BUCKETS = int(WINDOW_SECONDS / _BUCKET_SECONDS) + 1


class TaskRate:
    """Counts in buckets of five seconds; the present one and the last six are averaged.

    Args:
        now: The loop time from which it counts.
    """

    __slots__ = ("_bucket_began_at", "_counts", "_position", "_since")

    def __init__(self, now: float) -> None:
        self._since = now
        self._bucket_began_at = now
        self._counts = [0] * _BUCKETS
        self._position = 0

    def count(self, now: float) -> None:
        """Count one task."""
        if now - self._bucket_began_at >= _BUCKET_SECONDS:
            self._advance(now)
        self._counts[self._position] += 1

    def per_second(self, now: float) -> float:
        """Return the average over the last half minute, or since the counting began, but over a second at least."""
        if now - self._bucket_began_at >= _BUCKET_SECONDS:
            self._advance(now)
        seconds = min(now - self._bucket_began_at + WINDOW_SECONDS, now - self._since)
        return sum(self._counts) / max(seconds, 1.0)

    def _advance(self, now: float) -> None:
        buckets = int((now - self._bucket_began_at) / _BUCKET_SECONDS)
        for _ in range(min(buckets, _BUCKETS)):
            self._position = (self._position + 1) % _BUCKETS
            self._counts[self._position] = 0
        self._bucket_began_at += buckets * _BUCKET_SECONDS
