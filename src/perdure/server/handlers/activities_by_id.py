"""The activity calls that name an activity by its ids, made by whoever completes it from outside a worker.

They mean the activity's present attempt, whoever runs it, so their token carries no nonce.
"""

from __future__ import annotations

from typing import Protocol

from temporalio.api.workflowservice.v1 import (
    RecordActivityTaskHeartbeatByIdRequest,
    RecordActivityTaskHeartbeatByIdResponse,
    RespondActivityTaskCanceledByIdRequest,
    RespondActivityTaskCanceledByIdResponse,
    RespondActivityTaskCanceledRequest,
    RespondActivityTaskCompletedByIdRequest,
    RespondActivityTaskCompletedByIdResponse,
    RespondActivityTaskCompletedRequest,
    RespondActivityTaskFailedByIdRequest,
    RespondActivityTaskFailedByIdResponse,
    RespondActivityTaskFailedRequest,
)

from perdure.server.core.errors import InvalidArgument
from perdure.server.core.tokens import ActivityToken
from perdure.server.handlers.activities import cancel, complete, fail, heartbeat
from perdure.server.handlers.call import Call
from perdure.server.handlers.fields import check_run_id, check_text
from perdure.server.handlers.server import Server


class ActivityIds(Protocol):
    """What every request by id names."""

    @property
    def namespace(self) -> str:
        """The namespace."""

    @property
    def workflow_id(self) -> str:
        """The workflow that scheduled the activity."""

    @property
    def run_id(self) -> str:
        """Its run; empty the current one."""

    @property
    def activity_id(self) -> str:
        """The activity."""

    @property
    def identity(self) -> str:
        """Who calls."""


async def record_activity_task_heartbeat_by_id(
    server: Server, request: RecordActivityTaskHeartbeatByIdRequest, call: Call
) -> RecordActivityTaskHeartbeatByIdResponse:
    """Note that an activity is alive; the reply says whether it should stop."""
    token = _token(server, request)
    reply = await heartbeat(server, token, request.details, request.identity)
    return RecordActivityTaskHeartbeatByIdResponse(
        cancel_requested=reply.cancel_requested, activity_paused=reply.paused, activity_reset=reply.reset
    )


async def respond_activity_task_completed_by_id(
    server: Server, request: RespondActivityTaskCompletedByIdRequest, call: Call
) -> RespondActivityTaskCompletedByIdResponse:
    """Take an activity's result."""
    token = _token(server, request)
    by_token = RespondActivityTaskCompletedRequest(identity=request.identity)
    if request.HasField("result"):
        by_token.result.CopyFrom(request.result)
    await complete(server, token, by_token)
    return RespondActivityTaskCompletedByIdResponse()


async def respond_activity_task_failed_by_id(
    server: Server, request: RespondActivityTaskFailedByIdRequest, call: Call
) -> RespondActivityTaskFailedByIdResponse:
    """Take an activity's failure; it may be tried again."""
    token = _token(server, request)
    by_token = RespondActivityTaskFailedRequest(identity=request.identity)
    if request.HasField("failure"):
        by_token.failure.CopyFrom(request.failure)
    if request.HasField("last_heartbeat_details"):
        by_token.last_heartbeat_details.CopyFrom(request.last_heartbeat_details)
    return RespondActivityTaskFailedByIdResponse(failures=await fail(server, token, by_token))


async def respond_activity_task_canceled_by_id(
    server: Server, request: RespondActivityTaskCanceledByIdRequest, call: Call
) -> RespondActivityTaskCanceledByIdResponse:
    """Take the word that an activity has stopped as it was asked to."""
    token = _token(server, request)
    by_token = RespondActivityTaskCanceledRequest(identity=request.identity)
    if request.HasField("details"):
        by_token.details.CopyFrom(request.details)
    await cancel(server, token, by_token)
    return RespondActivityTaskCanceledByIdResponse()


def _token(server: Server, request: ActivityIds) -> ActivityToken:
    namespace = server.namespaces.resolve(request.namespace)
    if not request.activity_id:
        raise InvalidArgument("ActivityId is not set on request.")
    if not request.workflow_id:
        raise InvalidArgument("WorkflowId is not set on request.")
    check_text("ActivityId", request.activity_id, server.limits)
    check_text("WorkflowId", request.workflow_id, server.limits)
    check_run_id(request.run_id)
    return ActivityToken(namespace.namespace_id, request.workflow_id, request.run_id, 0, request.activity_id, 0, "")
