"""QueryWorkflow, and a worker's answer to a query that was not attached to a workflow task."""

from __future__ import annotations

from temporalio.api.enums.v1 import QueryRejectCondition, QueryResultType
from temporalio.api.query.v1 import WorkflowQueryResult
from temporalio.api.workflowservice.v1 import (
    QueryWorkflowRequest,
    QueryWorkflowResponse,
    RespondQueryTaskCompletedRequest,
    RespondQueryTaskCompletedResponse,
)

from perdure.server.core.errors import InvalidArgument
from perdure.server.core.inputs import AnswerQuery
from perdure.server.core.records import WorkflowKey
from perdure.server.core.tokens import decode_query
from perdure.server.handlers.call import Call
from perdure.server.handlers.fields import check_blob_size, check_execution, is_blob_too_large
from perdure.server.handlers.long_poll import QUERY_SECONDS, poll_deadline
from perdure.server.handlers.server import Server
from perdure.server.handlers.task_tokens import check_token_namespace, check_token_set


async def query_workflow(server: Server, request: QueryWorkflowRequest, call: Call) -> QueryWorkflowResponse | bytes:
    """Ask a workflow a question and wait for a worker's answer."""
    namespace = server.namespaces.resolve(request.namespace)
    check_execution(request.HasField("execution"), request.execution)
    if not request.HasField("query"):
        raise InvalidArgument("WorkflowQuery is not set on request.")
    if not request.query.query_type:
        raise InvalidArgument("QueryType is not set on request.")
    if not request.query_reject_condition:
        request.query_reject_condition = QueryRejectCondition.QUERY_REJECT_CONDITION_NONE
    check_blob_size(request.query.query_args, server.limits)
    return await server.engine.query(namespace.namespace_id, request, poll_deadline(call, QUERY_SECONDS))


async def respond_query_task_completed(
    server: Server, request: RespondQueryTaskCompletedRequest, call: Call
) -> RespondQueryTaskCompletedResponse:
    """Take a worker's answer to a direct query."""
    check_token_set(server, request.task_token, request.namespace)
    token = decode_query(request.task_token)
    check_token_namespace(server, token.namespace_id, request.namespace)
    if is_blob_too_large(request.query_result, server.limits):
        result = WorkflowQueryResult(
            result_type=QueryResultType.QUERY_RESULT_TYPE_FAILED, error_message="Blob data size exceeds limit."
        )
    else:
        result = WorkflowQueryResult(result_type=request.completed_type, error_message=request.error_message)
        if request.HasField("query_result"):
            result.answer.CopyFrom(request.query_result)
        if request.HasField("failure"):
            result.failure.CopyFrom(request.failure)
    key = WorkflowKey(token.namespace_id, token.workflow_id)
    await server.engine.submit(key, AnswerQuery(token.run_id, token.query_id, result))
    return RespondQueryTaskCompletedResponse()
