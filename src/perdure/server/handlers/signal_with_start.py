"""SignalWithStartWorkflowExecution: a signal that starts its workflow where none runs."""

from __future__ import annotations

from temporalio.api.enums.v1 import WorkflowIdConflictPolicy
from temporalio.api.workflowservice.v1 import (
    SignalWithStartWorkflowExecutionRequest,
    SignalWithStartWorkflowExecutionResponse,
)

from perdure.server.core.checks.names import check_priority
from perdure.server.core.errors import InvalidArgument
from perdure.server.core.inputs import SignalWithStart
from perdure.server.core.records import NamespaceRecord, WorkflowKey
from perdure.server.core.replies import StartReply
from perdure.server.handlers.call import Call
from perdure.server.handlers.fields import (
    check_blob_size,
    check_links,
    check_signal_name,
    check_user_task_queue,
    check_workflow_id,
    check_workflow_type,
    request_id_or_new,
)
from perdure.server.handlers.server import Server
from perdure.server.handlers.start_fields import (
    check_built,
    check_cron,
    check_id_policies,
    check_retry_policy,
    check_start_delay,
    check_start_sizes,
    check_timeouts,
    fill_id_policies,
    fill_search_attributes,
    fill_timeouts,
)

_FAIL = WorkflowIdConflictPolicy.WORKFLOW_ID_CONFLICT_POLICY_FAIL
_USE_EXISTING = WorkflowIdConflictPolicy.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING


async def signal_with_start_workflow_execution(
    server: Server, request: SignalWithStartWorkflowExecutionRequest, call: Call
) -> SignalWithStartWorkflowExecutionResponse:
    """Signal the running workflow of that id, or start one with the signal in its history."""
    namespace = server.namespaces.resolve_registered(request.namespace)
    _prepare(server, namespace, request)
    key = WorkflowKey(namespace.namespace_id, request.workflow_id)
    reply = await server.engine.submit(key, SignalWithStart("", request))
    assert isinstance(reply, StartReply)
    return SignalWithStartWorkflowExecutionResponse(run_id=reply.run_id, started=reply.started)


def _prepare(server: Server, namespace: NamespaceRecord, request: SignalWithStartWorkflowExecutionRequest) -> None:
    limits = server.limits
    check_built(request)
    fill_id_policies(request, _USE_EXISTING)
    check_workflow_id(request.workflow_id, limits)
    check_signal_name(request.signal_name, limits)
    check_workflow_type(request.workflow_type, limits)
    check_user_task_queue(request.HasField("task_queue"), request.task_queue, limits)
    request.request_id = request_id_or_new(request.request_id, limits)
    check_timeouts(request)
    check_retry_policy(request)
    check_start_delay(request)
    check_id_policies(request)
    if request.workflow_id_conflict_policy == _FAIL:
        raise InvalidArgument(
            "Invalid WorkflowIDConflictPolicy: WORKFLOW_ID_CONFLICT_POLICY_FAIL is not supported for this operation."
        )
    check_cron(request, server.engine.clock.now())
    fill_search_attributes(request, namespace, limits)
    check_priority(request.priority, limits)
    check_links(request.links, limits)
    fill_timeouts(request, limits)
    check_start_sizes(request, limits)
    check_blob_size(request.signal_input, limits)
