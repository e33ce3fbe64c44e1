"""StartWorkflowExecution.

The order of the checks is Temporal's, so that of two faults the same one is named.
"""

from __future__ import annotations

from temporalio.api.common.v1 import Link
from temporalio.api.enums.v1 import EventType, WorkflowIdConflictPolicy
from temporalio.api.workflowservice.v1 import StartWorkflowExecutionRequest, StartWorkflowExecutionResponse

from perdure.server.core.checks.names import check_priority
from perdure.server.core.errors import InvalidArgument, Unimplemented
from perdure.server.core.inputs import Start
from perdure.server.core.records import NamespaceRecord, WorkflowKey
from perdure.server.core.replies import StartReply
from perdure.server.handlers.call import Call
from perdure.server.handlers.fields import (
    check_links,
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

_STARTED = EventType.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED
_OPTIONS_UPDATED = EventType.EVENT_TYPE_WORKFLOW_EXECUTION_OPTIONS_UPDATED
_FAIL = WorkflowIdConflictPolicy.WORKFLOW_ID_CONFLICT_POLICY_FAIL


async def start_workflow_execution(
    server: Server, request: StartWorkflowExecutionRequest, call: Call
) -> StartWorkflowExecutionResponse:
    """Start a run, or answer with the one that is there where the id policies say so."""
    namespace = server.namespaces.resolve_registered(request.namespace)
    prepare(server, namespace, request)
    key = WorkflowKey(namespace.namespace_id, request.workflow_id)
    reply = await server.engine.submit(key, Start("", request))
    assert isinstance(reply, StartReply)
    response = StartWorkflowExecutionResponse(run_id=reply.run_id, started=reply.started)
    response.status = reply.status  # type: ignore[assignment]  # the core keeps protocol enums as plain integers
    response.link.CopyFrom(_link_to_start(namespace, request, reply))
    if reply.eager_task is not None:
        response.eager_workflow_task.CopyFrom(await server.engine.with_history(reply.eager_task))
    return response


def prepare(server: Server, namespace: NamespaceRecord, request: StartWorkflowExecutionRequest) -> None:
    """Check a start request and fill in its defaults, in place.

    Raises:
        InvalidArgument: With the first field that is wrong.
        Unimplemented: It asks for something this server does not have.
    """
    limits = server.limits
    check_built(request)
    fill_id_policies(request, _FAIL)
    check_workflow_id(request.workflow_id, limits)
    check_retry_policy(request)
    check_start_delay(request)
    check_cron(request, server.engine.clock.now())
    check_workflow_type(request.workflow_type, limits)
    check_user_task_queue(request.HasField("task_queue"), request.task_queue, limits)
    check_timeouts(request)
    request.request_id = request_id_or_new(request.request_id, limits)
    check_id_policies(request)
    _check_conflict_options(request)
    fill_search_attributes(request, namespace, limits)
    check_priority(request.priority, limits)
    check_links(request.links, limits)
    fill_timeouts(request, limits)
    check_start_sizes(request, limits)


def _check_conflict_options(request: StartWorkflowExecutionRequest) -> None:
    if request.completion_callbacks:
        raise Unimplemented("completion_callbacks is not implemented by this server.")
    if not request.HasField("on_conflict_options"):
        return
    options = request.on_conflict_options
    if options.attach_completion_callbacks and not options.attach_request_id:
        raise InvalidArgument("attaching request ID is required for attaching completion callbacks")


def _link_to_start(namespace: NamespaceRecord, request: StartWorkflowExecutionRequest, reply: StartReply) -> Link:
    event = Link.WorkflowEvent(namespace=namespace.name, workflow_id=request.workflow_id, run_id=reply.run_id)
    if not reply.started and request.on_conflict_options.attach_request_id:
        # The event that attached the request has no id while it is buffered, so it is named by the request.
        event.request_id_ref.request_id = request.request_id
        event.request_id_ref.event_type = _OPTIONS_UPDATED
    else:
        event.event_ref.event_id = 1
        event.event_ref.event_type = _STARTED
    return Link(workflow_event=event)
