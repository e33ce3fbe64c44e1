"""What went wrong, as a gRPC status: the one place where errors of the engine become status codes.

SDKs retry INTERNAL, UNKNOWN, UNAVAILABLE, ABORTED and RESOURCE_EXHAUSTED for about ten seconds a call, so a code of
these must never stand for something a retry cannot mend. The one exception is DATA_LOSS, which some SDKs retry too: no
other code tells an operator that stored data is damaged, and Temporal uses it for that.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final, NamedTuple
from urllib.parse import quote

from google.protobuf.message import DecodeError, Message
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]  # published without type hints
from temporalio.api.errordetails.v1 import NotFoundFailure, PermissionDeniedFailure, ResourceExhaustedFailure

from perdure.server.core.errors import (
    Aborted,
    AlreadyExists,
    DataLoss,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Refusal,
    ResourceExhausted,
    Retryable,
    ServerError,
    Unavailable,
    Unimplemented,
)
from perdure.server.frontends.grpc.codes import StatusCode
from perdure.server.store.interface import StoreUnavailable

logger = logging.getLogger(__name__)

DETAILS_KEY: Final = "grpc-status-details-bin"

_TRAILER_BYTES_MAX: Final = 7000
"""gRPC clients begin to refuse trailers at 8 KiB. A longer message is cut, details that do not fit are emptied."""

_CODES: Final[Mapping[type[ServerError], StatusCode]] = {
    InvalidArgument: StatusCode.INVALID_ARGUMENT,
    NotFound: StatusCode.NOT_FOUND,
    AlreadyExists: StatusCode.ALREADY_EXISTS,
    FailedPrecondition: StatusCode.FAILED_PRECONDITION,
    PermissionDenied: StatusCode.PERMISSION_DENIED,
    ResourceExhausted: StatusCode.RESOURCE_EXHAUSTED,
    Unimplemented: StatusCode.UNIMPLEMENTED,
    Unavailable: StatusCode.UNAVAILABLE,
    Aborted: StatusCode.ABORTED,
    DeadlineExceeded: StatusCode.DEADLINE_EXCEEDED,
    DataLoss: StatusCode.DATA_LOSS,
    Refusal: StatusCode.FAILED_PRECONDITION,
    Retryable: StatusCode.UNAVAILABLE,
    ServerError: StatusCode.INTERNAL,
}

_DEFAULT_DETAILS: Final[Mapping[type[ServerError], type[Message]]] = {
    NotFound: NotFoundFailure,
    PermissionDenied: PermissionDeniedFailure,
    ResourceExhausted: ResourceExhaustedFailure,
}
"""Some codes carry a detail even where the error names none; SDKs tell kinds of errors by it."""


class CallStatus(NamedTuple):
    """How a failed call ends."""

    code: StatusCode
    message: str
    details: bytes
    """A serialised `google.rpc.Status` for the trailers, empty for none."""


class CallFailed(Exception):
    """Ends a call with a status, in the services that are this front end's own."""

    def __init__(self, code: StatusCode, message: str) -> None:
        super().__init__(message)
        self.status = CallStatus(code, message, b"")


def status_of_failure(error: Exception, method: str) -> CallStatus:
    """Return the status for whatever a call of a method failed with; what nobody foresaw is logged."""
    match error:
        case ServerError():
            return status_of(error)
        case CallFailed():
            return error.status
        case DecodeError():
            return status_of(InvalidArgument(f"the request of {method} cannot be read: {error}"))
        case StoreUnavailable():
            return status_of(Unavailable("the store is not available, try again"))
        case _:
            logger.error("%s failed", method, exc_info=error)
            return CallStatus(StatusCode.INTERNAL, f"internal error in {method}, see the server's log", b"")


def status_of(error: ServerError) -> CallStatus:
    """Return the status that tells a client about an error."""
    kind = next(base for base in type(error).__mro__ if base in _CODES)
    code = _CODES[kind]
    message = fitting(error.message)
    detail = error.detail
    if detail is None and kind in _DEFAULT_DETAILS:
        detail = _DEFAULT_DETAILS[kind]()
    if detail is None:
        return CallStatus(code, message, b"")
    details = _packed(code, message, detail)
    if not _fits(message, details):
        details = _packed(code, "", type(detail)())
    return CallStatus(code, message, details)


def _packed(code: StatusCode, message: str, detail: Message) -> bytes:
    status = Status(code=code.value, message=message)
    status.details.add().Pack(detail)
    data: bytes = status.SerializeToString()
    return data


def _fits(message: str, details: bytes) -> bool:
    # On the wire a message is percent-encoded and details are base64.
    return len(quote(message, safe=" ")) + len(details) * 4 // 3 <= _TRAILER_BYTES_MAX


def fitting(message: str) -> str:
    """Return a message, cut where it is longer than trailers may be."""
    room = _TRAILER_BYTES_MAX // 2
    if len(message) * 3 <= room or len(quote(message, safe=" ")) <= room:
        return message
    return message[: room // 12] + " [cut]" if not message.isascii() else message[: room // 3] + " [cut]"
