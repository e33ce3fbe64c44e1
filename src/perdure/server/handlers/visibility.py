"""List and count workflow executions. A started workflow is listed the moment its start was answered.

The two older calls, for open and for closed workflows, are filters of their own over the same listing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
from temporalio.api.common.v1 import Memo, Payload, SearchAttributes
from temporalio.api.enums.v1 import WorkflowExecutionStatus
from temporalio.api.workflow.v1 import WorkflowExecutionInfo
from temporalio.api.workflowservice.v1 import (
    CountWorkflowExecutionsRequest,
    CountWorkflowExecutionsResponse,
    ListClosedWorkflowExecutionsRequest,
    ListClosedWorkflowExecutionsResponse,
    ListOpenWorkflowExecutionsRequest,
    ListOpenWorkflowExecutionsResponse,
    ListWorkflowExecutionsRequest,
    ListWorkflowExecutionsResponse,
)

from perdure.server.core.durations import duration_of, set_time, time_of
from perdure.server.core.errors import InvalidArgument
from perdure.server.core.stored import listed_relatives
from perdure.server.handlers.call import Call
from perdure.server.handlers.server import Server
from perdure.server.store.interface import ListPosition
from perdure.server.store.visibility.filter import And, Attribute, Comparison, Filter, Operator
from perdure.server.store.visibility.parse import parse_list_query
from perdure.server.store.visibility.precision import to_the_microsecond, truncated

if TYPE_CHECKING:
    from temporalio.api.filter.v1 import StartTimeFilter

    from perdure.server.core.records import Relatives, RunRecord

_PAGE_SIZE_MAX: Final = 1000
_RUNNING: Final = WorkflowExecutionStatus.WORKFLOW_EXECUTION_STATUS_RUNNING
_UNSPECIFIED: Final = WorkflowExecutionStatus.WORKFLOW_EXECUTION_STATUS_UNSPECIFIED

_TIME_END: Final = 2**63
"""Where the times end that a store can hold."""

_position_decoder = msgspec.msgpack.Decoder(ListPosition)
_position_encoder = msgspec.msgpack.Encoder()


async def list_workflow_executions(
    server: Server, request: ListWorkflowExecutionsRequest, call: Call
) -> ListWorkflowExecutionsResponse:
    """Return the runs that match a query, newest start first."""
    namespace = server.namespaces.resolve(request.namespace)
    query = parse_list_query(request.query)
    if query.group_by_status:
        raise InvalidArgument("invalid query: operation is not supported: 'GROUP BY' clause")
    runs, token = await _page(server, namespace.namespace_id, query.filter, request.page_size, request.next_page_token)
    return ListWorkflowExecutionsResponse(executions=runs, next_page_token=token)


async def count_workflow_executions(
    server: Server, request: CountWorkflowExecutionsRequest, call: Call
) -> CountWorkflowExecutionsResponse:
    """Count the runs that match a query, in groups by status where it says so."""
    namespace = server.namespaces.resolve(request.namespace)
    query = parse_list_query(request.query)
    store = server.engine.store
    if not query.group_by_status:
        return CountWorkflowExecutionsResponse(count=await store.count_runs(namespace.namespace_id, query.filter))
    groups = await store.count_runs_by_status(namespace.namespace_id, query.filter)
    return CountWorkflowExecutionsResponse(
        count=sum(group.count for group in groups),
        groups=[
            CountWorkflowExecutionsResponse.AggregationGroup(
                group_values=[_status_payload(group.value)], count=group.count
            )
            for group in groups
        ],
    )


async def list_open_workflow_executions(
    server: Server, request: ListOpenWorkflowExecutionsRequest, call: Call
) -> ListOpenWorkflowExecutionsResponse:
    """Return the running workflows, optionally of one id or type and by when they started."""
    namespace = server.namespaces.resolve(request.namespace)
    filters: list[Filter] = [Comparison(Attribute.EXECUTION_STATUS, Operator.EQUAL, (_RUNNING,))]
    filters += _time_filter(Attribute.START_TIME, request.start_time_filter)
    match request.WhichOneof("filters"):
        case "execution_filter":
            filters.append(_equal(Attribute.WORKFLOW_ID, request.execution_filter.workflow_id))
        case "type_filter":
            filters.append(_equal(Attribute.WORKFLOW_TYPE, request.type_filter.name))
    runs, token = await _page(
        server, namespace.namespace_id, And(tuple(filters)), request.maximum_page_size, request.next_page_token
    )
    return ListOpenWorkflowExecutionsResponse(executions=runs, next_page_token=token)


async def list_closed_workflow_executions(
    server: Server, request: ListClosedWorkflowExecutionsRequest, call: Call
) -> ListClosedWorkflowExecutionsResponse:
    """Return the closed workflows, optionally of one id, type or status and by when they closed."""
    namespace = server.namespaces.resolve(request.namespace)
    filters: list[Filter] = [Comparison(Attribute.EXECUTION_STATUS, Operator.NOT_EQUAL, (_RUNNING,))]
    filters += _time_filter(Attribute.CLOSE_TIME, request.start_time_filter)
    match request.WhichOneof("filters"):
        case "execution_filter":
            filters.append(_equal(Attribute.WORKFLOW_ID, request.execution_filter.workflow_id))
        case "type_filter":
            filters.append(_equal(Attribute.WORKFLOW_TYPE, request.type_filter.name))
        case "status_filter":
            status = request.status_filter.status
            if status in (_UNSPECIFIED, _RUNNING):
                raise InvalidArgument("StatusFilter must be specified and must be not Running.")
            filters.append(Comparison(Attribute.EXECUTION_STATUS, Operator.EQUAL, (status,)))
    runs, token = await _page(
        server, namespace.namespace_id, And(tuple(filters)), request.maximum_page_size, request.next_page_token
    )
    return ListClosedWorkflowExecutionsResponse(executions=runs, next_page_token=token)


def _equal(attribute: Attribute, value: str) -> Filter:
    return Comparison(attribute, Operator.EQUAL, (value,))


def _time_filter(attribute: Attribute, times: StartTimeFilter) -> list[Filter]:
    earliest = time_of(times.earliest_time) if times.HasField("earliest_time") else None
    latest = time_of(times.latest_time) if times.HasField("latest_time") else None
    if earliest is not None and latest is not None and earliest > latest:
        raise InvalidArgument("EarliestTime in StartTimeFilter should not be larger than LatestTime.")
    filters: list[Filter] = []
    if earliest is not None:
        filters.append(to_the_microsecond(Comparison(attribute, Operator.GREATER_OR_EQUAL, (earliest,))))
    if latest is not None:
        filters.append(to_the_microsecond(Comparison(attribute, Operator.LESS_OR_EQUAL, (latest,))))
    return filters


async def _page(
    server: Server, namespace_id: str, filter: Filter, asked_size: int, page_token: bytes
) -> tuple[list[WorkflowExecutionInfo], bytes]:
    size = asked_size if 0 < asked_size <= _PAGE_SIZE_MAX else _PAGE_SIZE_MAX
    after = _position(page_token)
    runs = await server.engine.store.list_runs(namespace_id, filter, size, after)
    # A full page may be the last one; the next call then finds nothing, as SDKs expect may happen.
    token = b""
    if len(runs) == size:
        token = _position_encoder.encode(ListPosition(runs[-1].started_at, runs[-1].run_id))
    return [_listed(run) for run in runs], token


def _position(page_token: bytes) -> ListPosition | None:
    if not page_token:
        return None
    try:
        position = _position_decoder.decode(page_token)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise InvalidArgument("Invalid NextPageToken.") from error
    if not 0 <= position.started_at < _TIME_END:
        raise InvalidArgument("Invalid NextPageToken.")
    return position


def _listed(run: RunRecord) -> WorkflowExecutionInfo:
    info = WorkflowExecutionInfo(
        status=WorkflowExecutionStatus.ValueType(run.status),
        task_queue=run.task_queue,
        history_length=run.next_event_id - 1,
        history_size_bytes=run.history_size_bytes,
        state_transition_count=run.transition_count,
        memo=Memo.FromString(run.memo),
        search_attributes=SearchAttributes.FromString(run.search_attributes),
    )
    info.execution.workflow_id = run.workflow_id
    info.execution.run_id = run.run_id
    _name_relatives(info, listed_relatives(run))
    info.type.name = run.workflow_type
    set_time(info.start_time, truncated(run.started_at))
    set_time(info.execution_time, truncated(run.execution_at))
    if run.closed_at is not None:
        set_time(info.close_time, truncated(run.closed_at))
        info.execution_duration.CopyFrom(duration_of(max(0, run.closed_at - run.execution_at)))
    return info


def _name_relatives(info: WorkflowExecutionInfo, relatives: Relatives | None) -> None:
    if relatives is None:
        info.root_execution.CopyFrom(info.execution)
        return
    info.parent_namespace_id = relatives.parent_namespace_id
    info.parent_execution.workflow_id = relatives.parent_workflow_id
    info.parent_execution.run_id = relatives.parent_run_id
    info.root_execution.workflow_id = relatives.root_workflow_id
    info.root_execution.run_id = relatives.root_run_id


def _status_payload(status: int) -> Payload:
    name = WorkflowExecutionStatus.Name(WorkflowExecutionStatus.ValueType(status))
    shown = name.removeprefix("WORKFLOW_EXECUTION_STATUS_").title().replace("_", "")
    return Payload(metadata={"encoding": b"json/plain", "type": b"Keyword"}, data=f'"{shown}"'.encode())
