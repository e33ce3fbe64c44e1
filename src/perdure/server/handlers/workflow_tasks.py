"""What workflow workers call: poll for a task, complete it, fail it, give up the sticky queue."""

from __future__ import annotations

from temporalio.api.workflowservice.v1 import (
    PollWorkflowTaskQueueRequest,
    PollWorkflowTaskQueueResponse,
    ResetStickyTaskQueueRequest,
    ResetStickyTaskQueueResponse,
    RespondWorkflowTaskCompletedRequest,
    RespondWorkflowTaskCompletedResponse,
    RespondWorkflowTaskFailedRequest,
    RespondWorkflowTaskFailedResponse,
)

from perdure.server.core.inputs import FailWorkflowTask, ResetStickiness
from perdure.server.core.records import WorkflowKey
from perdure.server.core.tokens import decode_workflow_task
from perdure.server.handlers.call import Call
from perdure.server.handlers.failures import FAILURE_TOO_LARGE, server_failure, truncated
from perdure.server.handlers.fields import check_execution, check_task_queue, check_text, is_blob_too_large
from perdure.server.handlers.long_poll import TASK_POLL_SECONDS, poll_deadline
from perdure.server.handlers.server import Server
from perdure.server.handlers.task_tokens import check_token_namespace, check_token_set
from perdure.server.handlers.worker_versions import check_worker_version


async def poll_workflow_task_queue(
    server: Server, request: PollWorkflowTaskQueueRequest, call: Call
) -> PollWorkflowTaskQueueResponse | bytes:
    """Wait for a workflow task; an empty reply means there was none in time."""
    namespace = server.namespaces.resolve(request.namespace)
    check_text("Identity", request.identity, server.limits)
    check_worker_version(request.worker_version_capabilities, request.deployment_options, request.task_queue)
    check_task_queue(request.HasField("task_queue"), request.task_queue, server.limits)
    deadline = poll_deadline(call, TASK_POLL_SECONDS)
    return await server.engine.poll_workflow_task(namespace.namespace_id, request, deadline)


async def respond_workflow_task_completed(
    server: Server, request: RespondWorkflowTaskCompletedRequest, call: Call
) -> RespondWorkflowTaskCompletedResponse | bytes:
    """Take the commands a worker decided on; the reply may carry the next task."""
    check_token_set(server, request.task_token, request.namespace)
    token = decode_workflow_task(request.task_token)
    check_token_namespace(server, token.namespace_id, request.namespace)
    check_text("Identity", request.identity, server.limits)
    sticky_queue = request.sticky_attributes.worker_task_queue
    check_worker_version(request.worker_version_stamp, request.deployment_options, sticky_queue)
    return await server.engine.complete_workflow_task(token, request)


async def respond_workflow_task_failed(
    server: Server, request: RespondWorkflowTaskFailedRequest, call: Call
) -> RespondWorkflowTaskFailedResponse:
    """Take a worker's word that it cannot work on the task; the task is tried again."""
    check_token_set(server, request.task_token, request.namespace)
    token = decode_workflow_task(request.task_token)
    check_token_namespace(server, token.namespace_id, request.namespace)
    check_text("Identity", request.identity, server.limits)
    if is_blob_too_large(request.failure, server.limits):
        cause = truncated(request.failure, server.limits.blob_size_warn)
        request.failure.CopyFrom(server_failure(FAILURE_TOO_LARGE, cause=cause))
    key = WorkflowKey(token.namespace_id, token.workflow_id)
    await server.engine.submit(key, FailWorkflowTask(token.run_id, token, request))
    return RespondWorkflowTaskFailedResponse()


async def reset_sticky_task_queue(
    server: Server, request: ResetStickyTaskQueueRequest, call: Call
) -> ResetStickyTaskQueueResponse:
    """Let the run's next workflow task go to any worker of its own queue."""
    namespace = server.namespaces.resolve(request.namespace)
    check_execution(request.HasField("execution"), request.execution)
    key = WorkflowKey(namespace.namespace_id, request.execution.workflow_id)
    await server.engine.submit(key, ResetStickiness(request.execution.run_id))
    return ResetStickyTaskQueueResponse()
