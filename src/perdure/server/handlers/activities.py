"""What activity workers call, with the task token of the attempt: poll, heartbeat, complete, fail, cancel.

Payloads that are too large never reach a run: the attempt fails instead, for a reason that says so, and is not retried.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from temporalio.api.failure.v1 import Failure
from temporalio.api.workflowservice.v1 import (
    PollActivityTaskQueueRequest,
    PollActivityTaskQueueResponse,
    RecordActivityTaskHeartbeatRequest,
    RecordActivityTaskHeartbeatResponse,
    RespondActivityTaskCanceledRequest,
    RespondActivityTaskCanceledResponse,
    RespondActivityTaskCompletedRequest,
    RespondActivityTaskCompletedResponse,
    RespondActivityTaskFailedRequest,
    RespondActivityTaskFailedResponse,
)

from perdure.server.core.errors import InvalidArgument
from perdure.server.core.inputs import CancelActivity, CompleteActivity, FailActivity, HeartbeatActivity
from perdure.server.core.records import WorkflowKey
from perdure.server.core.replies import HeartbeatReply
from perdure.server.core.tokens import ActivityToken, decode_activity
from perdure.server.handlers.call import Call
from perdure.server.handlers.failures import (
    CANCEL_DETAILS_TOO_LARGE,
    FAILURE_TOO_LARGE,
    HEARTBEAT_TOO_LARGE,
    RESULT_TOO_LARGE,
    server_failure,
    truncated,
)
from perdure.server.handlers.fields import check_task_queue, check_text, is_blob_too_large
from perdure.server.handlers.long_poll import TASK_POLL_SECONDS, poll_deadline
from perdure.server.handlers.server import Server
from perdure.server.handlers.task_tokens import check_token_namespace, check_token_set
from perdure.server.handlers.worker_versions import check_worker_version

if TYPE_CHECKING:
    from temporalio.api.common.v1 import Payloads


async def poll_activity_task_queue(
    server: Server, request: PollActivityTaskQueueRequest, call: Call
) -> PollActivityTaskQueueResponse | bytes:
    """Wait for an activity task; an empty reply means there was none in time."""
    namespace = server.namespaces.resolve(request.namespace)
    check_task_queue(request.HasField("task_queue"), request.task_queue, server.limits)
    check_text("Identity", request.identity, server.limits)
    check_worker_version(request.worker_version_capabilities, request.deployment_options, request.task_queue)
    deadline = poll_deadline(call, TASK_POLL_SECONDS)
    return await server.engine.poll_activity_task(namespace.namespace_id, request, deadline)


async def record_activity_task_heartbeat(
    server: Server, request: RecordActivityTaskHeartbeatRequest, call: Call
) -> RecordActivityTaskHeartbeatResponse:
    """Note that an attempt is alive; the reply says whether it should stop."""
    token = _own_token(server, request.task_token, request.namespace)
    reply = await heartbeat(server, token, request.details, request.identity)
    return RecordActivityTaskHeartbeatResponse(
        cancel_requested=reply.cancel_requested, activity_paused=reply.paused, activity_reset=reply.reset
    )


async def respond_activity_task_completed(
    server: Server, request: RespondActivityTaskCompletedRequest, call: Call
) -> RespondActivityTaskCompletedResponse:
    """Take an attempt's result."""
    token = _own_token(server, request.task_token, request.namespace)
    await complete(server, token, request)
    return RespondActivityTaskCompletedResponse()


async def respond_activity_task_failed(
    server: Server, request: RespondActivityTaskFailedRequest, call: Call
) -> RespondActivityTaskFailedResponse:
    """Take an attempt's failure; the activity may be tried again."""
    token = _own_token(server, request.task_token, request.namespace)
    if request.HasField("failure") and not request.failure.HasField("application_failure_info"):
        raise InvalidArgument("Failure must have ApplicationFailureInfo.")
    return RespondActivityTaskFailedResponse(failures=await fail(server, token, request))


async def respond_activity_task_canceled(
    server: Server, request: RespondActivityTaskCanceledRequest, call: Call
) -> RespondActivityTaskCanceledResponse:
    """Take an attempt's word that it has stopped as it was asked to."""
    token = _own_token(server, request.task_token, request.namespace)
    await cancel(server, token, request)
    return RespondActivityTaskCanceledResponse()


def _own_token(server: Server, task_token: bytes, namespace: str) -> ActivityToken:
    check_token_set(server, task_token, namespace)
    token = decode_activity(task_token)
    check_token_namespace(server, token.namespace_id, namespace)
    return token


# --- shared with the calls by id --------------------------------------------------------------------------------------


async def heartbeat(server: Server, token: ActivityToken, details: Payloads, identity: str) -> HeartbeatReply:
    """Submit a heartbeat. With details that are too large the attempt fails and is told to stop."""
    if is_blob_too_large(details, server.limits):
        await _fail_for(server, token, HEARTBEAT_TOO_LARGE, identity)
        return HeartbeatReply(cancel_requested=True)
    key = WorkflowKey(token.namespace_id, token.workflow_id)
    data = details.SerializeToString()
    reply = await server.engine.submit(key, HeartbeatActivity(token.run_id, token, data, identity))
    assert isinstance(reply, HeartbeatReply)
    return reply


async def complete(server: Server, token: ActivityToken, request: RespondActivityTaskCompletedRequest) -> None:
    """Submit a result."""
    check_text("Identity", request.identity, server.limits)
    if is_blob_too_large(request.result, server.limits):
        await _fail_for(server, token, RESULT_TOO_LARGE, request.identity)
        return
    key = WorkflowKey(token.namespace_id, token.workflow_id)
    await server.engine.submit(key, CompleteActivity(token.run_id, token, request))


async def fail(server: Server, token: ActivityToken, request: RespondActivityTaskFailedRequest) -> list[Failure]:
    """Submit a failure. Return what was cut off it, as failures for the worker's log."""
    check_text("Identity", request.identity, server.limits)
    complaints: list[Failure] = []
    if is_blob_too_large(request.last_heartbeat_details, server.limits):
        complaints.append(server_failure(HEARTBEAT_TOO_LARGE))
        request.ClearField("last_heartbeat_details")
    if is_blob_too_large(request.failure, server.limits):
        cause = truncated(request.failure, server.limits.blob_size_warn)
        request.failure.CopyFrom(server_failure(FAILURE_TOO_LARGE, cause=cause))
        complaints.append(request.failure)
    key = WorkflowKey(token.namespace_id, token.workflow_id)
    await server.engine.submit(key, FailActivity(token.run_id, token, request))
    return complaints


async def cancel(server: Server, token: ActivityToken, request: RespondActivityTaskCanceledRequest) -> None:
    """Submit a cancellation."""
    check_text("Identity", request.identity, server.limits)
    if is_blob_too_large(request.details, server.limits):
        await _fail_for(server, token, CANCEL_DETAILS_TOO_LARGE, request.identity)
        return
    key = WorkflowKey(token.namespace_id, token.workflow_id)
    await server.engine.submit(key, CancelActivity(token.run_id, token, request))


async def _fail_for(server: Server, token: ActivityToken, reason: str, identity: str) -> None:
    request = RespondActivityTaskFailedRequest(failure=server_failure(reason), identity=identity)
    key = WorkflowKey(token.namespace_id, token.workflow_id)
    await server.engine.submit(key, FailActivity(token.run_id, token, request))
