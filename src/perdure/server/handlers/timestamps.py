"""Timestamps of the protocol as integer nanoseconds since the epoch and back."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp

_SECOND = 1_000_000_000


def nanos_of_time(time: Timestamp) -> int:
    """Return a timestamp in nanoseconds."""
    return time.seconds * _SECOND + time.nanos


def set_time(field: Timestamp, nanoseconds: int) -> None:
    """Write a time in nanoseconds into a field."""
    field.seconds, field.nanos = divmod(nanoseconds, _SECOND)
