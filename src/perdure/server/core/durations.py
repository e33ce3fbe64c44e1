"""Durations and times of the protocol as integer nanoseconds and back. Must never know a clock."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

_SECOND = 1_000_000_000

MAX_DURATION = 100 * 365 * 24 * 3600 * _SECOND
"""100 years. Longer durations mean "for ever" and are cut to this, so that no sum leaves the range of a timestamp."""


def nanos_of(duration: Duration) -> int:
    """Return a duration in nanoseconds; an unset one is 0."""
    return duration.seconds * _SECOND + duration.nanos


def duration_of(nanoseconds: int) -> Duration:
    """Return the protocol's form of a duration in nanoseconds that is not negative."""
    seconds, nanos = divmod(nanoseconds, _SECOND)
    return Duration(seconds=seconds, nanos=nanos)


def set_duration(duration: Duration, nanoseconds: int) -> None:
    """Change a duration in place; one inside a message is then set there, also where it is zero."""
    seconds, nanos = divmod(nanoseconds, _SECOND)
    duration.seconds = seconds
    if nanos or duration.nanos:
        duration.nanos = nanos


def time_of(timestamp: Timestamp) -> int:
    """Return a time in nanoseconds since the epoch; an unset one is 0."""
    return timestamp.seconds * _SECOND + timestamp.nanos


def timestamp_of(nanoseconds: int) -> Timestamp:
    """Return the protocol's form of a time in nanoseconds since the epoch."""
    seconds, nanos = divmod(nanoseconds, _SECOND)
    return Timestamp(seconds=seconds, nanos=nanos)


def set_time(timestamp: Timestamp, nanoseconds: int) -> None:
    """Change a time in place, given in nanoseconds since the epoch."""
    timestamp.seconds, timestamp.nanos = divmod(nanoseconds, _SECOND)


def duration_fault(duration: Duration) -> str | None:
    """Say what is wrong with a duration a caller sent, None if nothing is. An unset one is right, it is 0."""
    seconds, nanos = duration.seconds, duration.nanos
    if seconds >= 0 and nanos >= 0:
        return None
    if seconds > 0 or nanos > 0:
        return "duration has seconds and nanos with different signs"
    return "negative duration"


def cap_duration(duration: Duration) -> None:
    """Cut a duration to `MAX_DURATION`, in place."""
    if nanos_of(duration) > MAX_DURATION:
        duration.CopyFrom(duration_of(MAX_DURATION))
