"""GetWorkflowExecutionHistory and its reverse."""

from __future__ import annotations

from typing import Final

from temporalio.api.enums.v1 import HistoryEventFilterType
from temporalio.api.workflowservice.v1 import (
    GetWorkflowExecutionHistoryRequest,
    GetWorkflowExecutionHistoryResponse,
    GetWorkflowExecutionHistoryReverseRequest,
    GetWorkflowExecutionHistoryReverseResponse,
)

from perdure.server.core.records import WorkflowKey
from perdure.server.handlers.call import Call
from perdure.server.handlers.fields import check_execution
from perdure.server.handlers.long_poll import HISTORY_POLL_SECONDS, poll_deadline
from perdure.server.handlers.older_clients import as_continued
from perdure.server.handlers.server import Server

_CLOSE_EVENT: Final = HistoryEventFilterType.HISTORY_EVENT_FILTER_TYPE_CLOSE_EVENT
_PEOPLES_CLIENTS: Final = ("temporal-cli", "temporal-ui", "temporal-ui-server")


async def get_workflow_execution_history(
    server: Server, request: GetWorkflowExecutionHistoryRequest, call: Call
) -> GetWorkflowExecutionHistoryResponse | bytes:
    """Return a page of events; with `wait_new_event`, wait for the next ones or for the end of the run."""
    namespace = server.namespaces.resolve(request.namespace)
    check_execution(request.HasField("execution"), request.execution)
    request.maximum_page_size = _page_size(request.maximum_page_size, server)
    if not request.history_event_filter_type:
        request.history_event_filter_type = HistoryEventFilterType.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT
    key = WorkflowKey(namespace.namespace_id, request.execution.workflow_id)
    reply = await server.engine.read_history(
        key, request, poll_deadline(call, HISTORY_POLL_SECONDS), for_worker=call.client.name not in _PEOPLES_CLIENTS
    )
    if request.history_event_filter_type == _CLOSE_EVENT and not call.client.follows_runs:
        return as_continued(reply)
    return reply


async def get_workflow_execution_history_reverse(
    server: Server, request: GetWorkflowExecutionHistoryReverseRequest, call: Call
) -> GetWorkflowExecutionHistoryReverseResponse | bytes:
    """Return a page of events, newest first."""
    namespace = server.namespaces.resolve(request.namespace)
    check_execution(request.HasField("execution"), request.execution)
    request.maximum_page_size = _page_size(request.maximum_page_size, server)
    key = WorkflowKey(namespace.namespace_id, request.execution.workflow_id)
    return await server.engine.read_history_reverse(key, request)


def _page_size(asked: int, server: Server) -> int:
    most = server.limits.history_page_size
    return asked if 0 < asked <= most else most
