"""The failures the server itself puts in the place of payloads that are too large."""

from __future__ import annotations

from typing import Final

from temporalio.api.failure.v1 import Failure

RESULT_TOO_LARGE: Final = "Complete result exceeds size limit."
FAILURE_TOO_LARGE: Final = "Failure exceeds size limit."
CANCEL_DETAILS_TOO_LARGE: Final = "Cancel details exceed size limit."
HEARTBEAT_TOO_LARGE: Final = "Heartbeat details exceed size limit."

_DEPTH_MAX: Final = 20
_FIELD_OVERHEAD: Final = 4


def server_failure(message: str, *, cause: Failure | None = None) -> Failure:
    """Make a failure of the server's own, which is never retried."""
    failure = Failure(message=message)
    failure.server_failure_info.non_retryable = True
    if cause is not None:
        failure.cause.CopyFrom(cause)
    return failure


def truncated(failure: Failure, size_bytes: int) -> Failure:
    """Return what is most telling of a failure in at most about that many bytes: types, messages, then stack traces."""
    return _truncated(failure, size_bytes, _DEPTH_MAX)


def _truncated(failure: Failure, room: int, depth: int) -> Failure:
    short = Failure()
    if failure.HasField("application_failure_info"):
        info = short.application_failure_info
        info.non_retryable = failure.application_failure_info.non_retryable
        info.type, room = _cut(failure.application_failure_info.type, room - 2 * _FIELD_OVERHEAD)
    elif failure.HasField("server_failure_info"):
        short.server_failure_info.non_retryable = failure.server_failure_info.non_retryable
        room -= _FIELD_OVERHEAD
    short.source, room = _cut(failure.source, room)
    short.message, room = _cut(failure.message, room)
    short.stack_trace, room = _cut(failure.stack_trace, room)
    if failure.HasField("cause") and room > _FIELD_OVERHEAD and depth > 0:
        short.cause.CopyFrom(_truncated(failure.cause, room - _FIELD_OVERHEAD, depth - 1))
    return short


def _cut(text: str, room: int) -> tuple[str, int]:
    data = text.encode()[: max(room, 0)]
    if not data:
        return "", room
    return data.decode(errors="ignore"), room - len(data) - _FIELD_OVERHEAD
