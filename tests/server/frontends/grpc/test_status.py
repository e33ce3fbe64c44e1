"""Errors of the engine as gRPC statuses."""

from __future__ import annotations

from urllib.parse import quote

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]  # published without type hints
from temporalio.api.errordetails.v1 import (
    NotFoundFailure,
    PermissionDeniedFailure,
    QueryFailedFailure,
    ResourceExhaustedFailure,
    WorkflowExecutionAlreadyStartedFailure,
)
from temporalio.api.failure.v1 import Failure

from perdure.server.core.errors import (
    Aborted,
    AlreadyExists,
    DataLoss,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    ServerError,
    Unavailable,
    Unimplemented,
)
from perdure.server.core.replies import StaleTask
from perdure.server.frontends.grpc.codes import StatusCode
from perdure.server.frontends.grpc.status import status_of


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidArgument("m"), StatusCode.INVALID_ARGUMENT),
        (NotFound("m"), StatusCode.NOT_FOUND),
        (AlreadyExists("m"), StatusCode.ALREADY_EXISTS),
        (FailedPrecondition("m"), StatusCode.FAILED_PRECONDITION),
        (PermissionDenied("m"), StatusCode.PERMISSION_DENIED),
        (ResourceExhausted("m"), StatusCode.RESOURCE_EXHAUSTED),
        (Unimplemented("m"), StatusCode.UNIMPLEMENTED),
        (Unavailable("m"), StatusCode.UNAVAILABLE),
        (Aborted("m"), StatusCode.ABORTED),
        (DeadlineExceeded("m"), StatusCode.DEADLINE_EXCEEDED),
        (DataLoss("m"), StatusCode.DATA_LOSS),
        (StaleTask("m"), StatusCode.FAILED_PRECONDITION),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, ServerError) else "",
)
def test_every_error_has_its_code(error: ServerError, code: StatusCode) -> None:
    status = status_of(error)
    assert (status.code, status.message) == (code, "m")


def detail_of(data: bytes, detail_class: type[Message]) -> Message:
    detail = detail_class()
    assert Status.FromString(data).details[0].Unpack(detail)
    return detail


def test_a_named_detail_is_packed_with_code_and_message() -> None:
    detail = WorkflowExecutionAlreadyStartedFailure(start_request_id="r", run_id="run")
    status = status_of(AlreadyExists("already", detail=detail))
    packed = Status.FromString(status.details)
    assert (packed.code, packed.message) == (6, "already")
    assert packed.details[0].type_url == (
        "type.googleapis.com/temporal.api.errordetails.v1.WorkflowExecutionAlreadyStartedFailure"
    )
    assert detail_of(status.details, WorkflowExecutionAlreadyStartedFailure) == detail


@pytest.mark.parametrize(
    ("error", "detail_class"),
    [
        (NotFound("m"), NotFoundFailure),
        (PermissionDenied("m"), PermissionDeniedFailure),
        (ResourceExhausted("m"), ResourceExhaustedFailure),
    ],
)
def test_some_codes_carry_a_detail_always(error: ServerError, detail_class: type[Message]) -> None:
    assert detail_of(status_of(error).details, detail_class) == detail_class()


def test_other_codes_carry_none() -> None:
    assert status_of(InvalidArgument("m")).details == b""


@pytest.mark.parametrize(
    "text", ["x" * 20_000, "ü" * 20_000, "語" * 20_000, "line\n" * 4_000], ids=["x", "ü", "語", "n"]
)
def test_trailers_stay_below_what_clients_refuse(text: str) -> None:
    detail = QueryFailedFailure(failure=Failure(message=text, stack_trace=text))
    status = status_of(InvalidArgument(text, detail=detail))
    assert text.startswith(status.message.removesuffix(" [cut]"))
    assert len(status.message) > 250
    assert len(quote(status.message)) + len(status.details) * 4 / 3 < 8000
    assert detail_of(status.details, QueryFailedFailure) == QueryFailedFailure()


def test_a_failure_of_usual_size_is_whole() -> None:
    detail = QueryFailedFailure(failure=Failure(message="no", stack_trace="frame\n" * 300))
    assert detail_of(status_of(InvalidArgument("no", detail=detail)).details, QueryFailedFailure) == detail


def test_the_codes_are_those_of_grpc() -> None:
    assert {code.name: code.value for code in StatusCode} == {code.name: code.value[0] for code in grpc.StatusCode}
