"""Failures that the server itself reports, in the shape in which SDKs know them."""

from __future__ import annotations

from temporalio.api.enums.v1 import TimeoutType
from temporalio.api.failure.v1 import Failure, TimeoutFailureInfo


def timeout_failure(message: str, timeout_type: TimeoutType.ValueType) -> Failure:
    """Return a timeout as a failure."""
    return Failure(message=message, source="Server", timeout_failure_info=TimeoutFailureInfo(timeout_type=timeout_type))


def run_timeout_failure() -> Failure:
    """Return the timeout of a run as a failure."""
    return timeout_failure("workflow timeout", TimeoutType.TIMEOUT_TYPE_START_TO_CLOSE)
