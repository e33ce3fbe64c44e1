"""Which RPC is answered by which function: one table, and the service descriptors as the list of what there could be.

A method of a served service without a row answers UNIMPLEMENTED. Every front end serves what `methods` returns, so that
gRPC, HTTP and the in-process transport offer the same calls.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, TypeAlias, TypeVar, cast

import msgspec
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from temporalio.api.operatorservice.v1 import service_pb2 as operator_service
from temporalio.api.workflowservice.v1 import service_pb2 as workflow_service

from perdure.server.core.errors import Unimplemented
from perdure.server.handlers import (
    activities,
    activities_by_id,
    cluster_service,
    delete_namespace,
    history,
    namespaces,
    nexus_tasks,
    queries,
    search_attributes,
    signal_with_start,
    start_workflow,
    system,
    task_queues,
    visibility,
    workers,
    workflow_tasks,
    workflows,
)
from perdure.server.handlers.call import Call
from perdure.server.handlers.server import Server

Reply: TypeAlias = Message | bytes
"""A reply message, or its serialised form where it was put together from stored bytes."""
Handler: TypeAlias = Callable[[Server, Message, Call], Awaitable[Reply]]

_Request = TypeVar("_Request", bound=Message)
_ReplyT = TypeVar("_ReplyT", bound=Reply)

SERVICES: Final[Sequence[ServiceDescriptor]] = (
    workflow_service.DESCRIPTOR.services_by_name["WorkflowService"],
    operator_service.DESCRIPTOR.services_by_name["OperatorService"],
    cluster_service.SERVICE,
)
WORKFLOW_SERVICE: Final = SERVICES[0].full_name
OPERATOR_SERVICE: Final = SERVICES[1].full_name
CLUSTER_SERVICE: Final = SERVICES[2].full_name


class Method(msgspec.Struct, frozen=True):
    """One RPC as a front end serves it."""

    service: str
    """The full name of its service."""
    name: str
    request_class: type[Message]
    handler: Handler
    built: bool
    """Whether there is more to the handler than saying that there is none."""

    @property
    def path(self) -> str:
        """How a gRPC call names it."""
        return f"/{self.service}/{self.name}"


def _row(handler: Callable[[Server, _Request, Call], Awaitable[_ReplyT]]) -> Handler:
    # The table forgets each handler's own request type. A test compares it with the descriptor's.
    return cast(Handler, handler)


HANDLERS: Final[Mapping[str, Mapping[str, Handler]]] = {
    WORKFLOW_SERVICE: {
        "RegisterNamespace": _row(namespaces.register_namespace),
        "DescribeNamespace": _row(namespaces.describe_namespace),
        "ListNamespaces": _row(namespaces.list_namespaces),
        "UpdateNamespace": _row(namespaces.update_namespace),
        "DeprecateNamespace": _row(namespaces.deprecate_namespace),
        "GetSystemInfo": _row(system.get_system_info),
        "GetClusterInfo": _row(system.get_cluster_info),
        "StartWorkflowExecution": _row(start_workflow.start_workflow_execution),
        "SignalWithStartWorkflowExecution": _row(signal_with_start.signal_with_start_workflow_execution),
        "SignalWorkflowExecution": _row(workflows.signal_workflow_execution),
        "RequestCancelWorkflowExecution": _row(workflows.request_cancel_workflow_execution),
        "TerminateWorkflowExecution": _row(workflows.terminate_workflow_execution),
        "DeleteWorkflowExecution": _row(workflows.delete_workflow_execution),
        "DescribeWorkflowExecution": _row(workflows.describe_workflow_execution),
        "GetWorkflowExecutionHistory": _row(history.get_workflow_execution_history),
        "GetWorkflowExecutionHistoryReverse": _row(history.get_workflow_execution_history_reverse),
        "QueryWorkflow": _row(queries.query_workflow),
        "RespondQueryTaskCompleted": _row(queries.respond_query_task_completed),
        "PollWorkflowTaskQueue": _row(workflow_tasks.poll_workflow_task_queue),
        "RespondWorkflowTaskCompleted": _row(workflow_tasks.respond_workflow_task_completed),
        "RespondWorkflowTaskFailed": _row(workflow_tasks.respond_workflow_task_failed),
        "ResetStickyTaskQueue": _row(workflow_tasks.reset_sticky_task_queue),
        "PollActivityTaskQueue": _row(activities.poll_activity_task_queue),
        "PollNexusTaskQueue": _row(nexus_tasks.poll_nexus_task_queue),
        "RecordActivityTaskHeartbeat": _row(activities.record_activity_task_heartbeat),
        "RespondActivityTaskCompleted": _row(activities.respond_activity_task_completed),
        "RespondActivityTaskFailed": _row(activities.respond_activity_task_failed),
        "RespondActivityTaskCanceled": _row(activities.respond_activity_task_canceled),
        "RecordActivityTaskHeartbeatById": _row(activities_by_id.record_activity_task_heartbeat_by_id),
        "RespondActivityTaskCompletedById": _row(activities_by_id.respond_activity_task_completed_by_id),
        "RespondActivityTaskFailedById": _row(activities_by_id.respond_activity_task_failed_by_id),
        "RespondActivityTaskCanceledById": _row(activities_by_id.respond_activity_task_canceled_by_id),
        "DescribeTaskQueue": _row(task_queues.describe_task_queue),
        "ShutdownWorker": _row(workers.shutdown_worker),
        "ListWorkflowExecutions": _row(visibility.list_workflow_executions),
        "CountWorkflowExecutions": _row(visibility.count_workflow_executions),
        "ListOpenWorkflowExecutions": _row(visibility.list_open_workflow_executions),
        "ListClosedWorkflowExecutions": _row(visibility.list_closed_workflow_executions),
    },
    OPERATOR_SERVICE: {
        "DeleteNamespace": _row(delete_namespace.delete_namespace),
        "AddSearchAttributes": _row(search_attributes.add_search_attributes),
        "RemoveSearchAttributes": _row(search_attributes.remove_search_attributes),
        "ListSearchAttributes": _row(search_attributes.list_search_attributes),
        "ListClusters": _row(system.list_clusters),
    },
    CLUSTER_SERVICE: {
        "DescribeCluster": _row(cluster_service.describe_cluster),
    },
}


def methods() -> list[Method]:
    """Return every method of the served services, built or not, in the order of the descriptors."""
    return [_method(service, method) for service in SERVICES for method in service.methods]


def _method(service: ServiceDescriptor, method: MethodDescriptor) -> Method:
    handler = HANDLERS[service.full_name].get(method.name)
    return Method(
        service=service.full_name,
        name=method.name,
        request_class=GetMessageClass(method.input_type),
        handler=handler or _unimplemented(method),
        built=handler is not None,
    )


def _unimplemented(method: MethodDescriptor) -> Handler:
    async def refuse(server: Server, request: Message, call: Call) -> Reply:
        raise Unimplemented(f"{method.name} is not implemented by this server.")

    return refuse
