"""Signal, cancel, terminate, delete, describe: what clients do to a workflow that exists."""

from __future__ import annotations

from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import (
    DeleteWorkflowExecutionRequest,
    DeleteWorkflowExecutionResponse,
    DescribeWorkflowExecutionRequest,
    DescribeWorkflowExecutionResponse,
    RequestCancelWorkflowExecutionRequest,
    RequestCancelWorkflowExecutionResponse,
    SignalWorkflowExecutionRequest,
    SignalWorkflowExecutionResponse,
    TerminateWorkflowExecutionRequest,
    TerminateWorkflowExecutionResponse,
)

from perdure.server.core.inputs import Delete, Describe, RequestCancel, Signal, Terminate
from perdure.server.core.records import WorkflowKey
from perdure.server.handlers.call import Call
from perdure.server.handlers.fields import (
    check_blob_size,
    check_execution,
    check_links,
    check_signal_name,
    check_text,
)
from perdure.server.handlers.server import Server

_TERMINATE_REASON = "terminated by user via frontend"
_TERMINATE_IDENTITY = "frontend-service"


async def signal_workflow_execution(
    server: Server, request: SignalWorkflowExecutionRequest, call: Call
) -> SignalWorkflowExecutionResponse:
    """Send a signal to a running workflow."""
    namespace = server.namespaces.resolve(request.namespace)
    execution = request.workflow_execution
    check_execution(request.HasField("workflow_execution"), execution)
    check_signal_name(request.signal_name, server.limits)
    check_text("RequestId", request.request_id, server.limits)
    check_links(request.links, server.limits)
    check_blob_size(request.input, server.limits)
    key = WorkflowKey(namespace.namespace_id, execution.workflow_id)
    await server.engine.submit(key, Signal(execution.run_id, request))
    return SignalWorkflowExecutionResponse()


async def request_cancel_workflow_execution(
    server: Server, request: RequestCancelWorkflowExecutionRequest, call: Call
) -> RequestCancelWorkflowExecutionResponse:
    """Ask a workflow to cancel itself. That it is closed already is no error."""
    namespace = server.namespaces.resolve(request.namespace)
    execution = request.workflow_execution
    check_execution(request.HasField("workflow_execution"), execution)
    check_text("RequestId", request.request_id, server.limits)
    check_links(request.links, server.limits)
    key = WorkflowKey(namespace.namespace_id, execution.workflow_id)
    await server.engine.submit(key, RequestCancel(_run_meant(execution, request.first_execution_run_id), request))
    return RequestCancelWorkflowExecutionResponse()


async def terminate_workflow_execution(
    server: Server, request: TerminateWorkflowExecutionRequest, call: Call
) -> TerminateWorkflowExecutionResponse:
    """Close a running workflow at once, without asking it."""
    namespace = server.namespaces.resolve(request.namespace)
    execution = request.workflow_execution
    check_execution(request.HasField("workflow_execution"), execution)
    check_links(request.links, server.limits)
    check_blob_size(request.details, server.limits)
    # So that people can tell a user's terminate from one of the server's own.
    if not request.reason:
        request.reason = _TERMINATE_REASON
    if not request.identity:
        request.identity = _TERMINATE_IDENTITY
    key = WorkflowKey(namespace.namespace_id, execution.workflow_id)
    await server.engine.submit(key, Terminate(_run_meant(execution, request.first_execution_run_id), request))
    return TerminateWorkflowExecutionResponse()


async def delete_workflow_execution(
    server: Server, request: DeleteWorkflowExecutionRequest, call: Call
) -> DeleteWorkflowExecutionResponse:
    """Remove a run and all that is stored of it; an open one is terminated first."""
    namespace = server.namespaces.resolve(request.namespace)
    execution = request.workflow_execution
    check_execution(request.HasField("workflow_execution"), execution)
    key = WorkflowKey(namespace.namespace_id, execution.workflow_id)
    await server.engine.submit(key, Delete(execution.run_id))
    return DeleteWorkflowExecutionResponse()


async def describe_workflow_execution(
    server: Server, request: DescribeWorkflowExecutionRequest, call: Call
) -> DescribeWorkflowExecutionResponse:
    """Tell what a run is doing: its state, counts and everything pending."""
    namespace = server.namespaces.resolve(request.namespace)
    execution = request.execution
    check_execution(request.HasField("execution"), execution)
    key = WorkflowKey(namespace.namespace_id, execution.workflow_id)
    reply = await server.engine.submit(key, Describe(execution.run_id))
    assert isinstance(reply, DescribeWorkflowExecutionResponse)
    return reply


def _run_meant(execution: WorkflowExecution, first_run_id: str) -> str:
    """Return the id of the run that a request is about, empty for the current one.

    That is the current one of a chain of runs where the chain is named by its first run, whichever run is named beside.
    """
    return "" if first_run_id else execution.run_id
