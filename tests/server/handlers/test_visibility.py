"""List and count workflow executions."""

from __future__ import annotations

import msgspec
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from temporalio.api.common.v1 import Memo, Payload
from temporalio.api.enums.v1 import WorkflowExecutionStatus
from temporalio.api.filter.v1 import StartTimeFilter, StatusFilter, WorkflowExecutionFilter, WorkflowTypeFilter
from temporalio.api.workflowservice.v1 import (
    CountWorkflowExecutionsRequest,
    ListClosedWorkflowExecutionsRequest,
    ListOpenWorkflowExecutionsRequest,
    ListWorkflowExecutionsRequest,
)

from perdure.server.core.errors import InvalidArgument
from perdure.server.core.records import RunRecord
from perdure.server.handlers.call import DirectCall
from perdure.server.handlers.visibility import (
    count_workflow_executions,
    list_closed_workflow_executions,
    list_open_workflow_executions,
    list_workflow_executions,
)
from perdure.server.store.interface import CountGroup, ListPosition
from perdure.server.store.visibility.filter import Filter, matches
from tests.server.handlers.serving import NOW, Served, serve

CALL = DirectCall()
SECOND = 1_000_000_000
RUNNING = WorkflowExecutionStatus.WORKFLOW_EXECUTION_STATUS_RUNNING
COMPLETED = WorkflowExecutionStatus.WORKFLOW_EXECUTION_STATUS_COMPLETED
TIMED_OUT = WorkflowExecutionStatus.WORKFLOW_EXECUTION_STATUS_TIMED_OUT


def run(workflow_id: str, *, age: int, status: int = RUNNING, workflow_type: str = "T") -> RunRecord:
    started_at = NOW - age * SECOND
    return RunRecord(
        namespace_id="default-id",
        workflow_id=workflow_id,
        run_id=f"run-of-{workflow_id}",
        stored_version=1,
        version=1,
        is_current=True,
        status=status,
        workflow_type=workflow_type,
        task_queue="q",
        started_at=started_at,
        execution_at=started_at + SECOND,
        closed_at=None if status == RUNNING else started_at + 3 * SECOND,
        next_event_id=12,
        history_size_bytes=345,
        transition_count=7,
        alarm_at=None,
        task_state="none",
        task_attempt=1,
        task_scheduled_at=None,
        task_started_at=None,
        task_ready_queue=None,
        task_ready_at=None,
        memo=Memo(fields={"m": Payload(data=b"1")}).SerializeToString(),
        search_attributes=b"",
        state=b"",
    )


class Rows:
    """The visibility reads of a store, over a list of runs, newest first."""

    def __init__(self, *runs: RunRecord) -> None:
        self.runs = runs

    async def list_runs(
        self, namespace_id: str, filter: Filter, limit: int, after: ListPosition | None
    ) -> list[RunRecord]:
        found = [each for each in self.runs if each.namespace_id == namespace_id and matches(filter, each)]
        if after is not None:
            found = [each for each in found if (each.started_at, each.run_id) < after]
        return found[:limit]

    async def count_runs(self, namespace_id: str, filter: Filter) -> int:
        return len(await self.list_runs(namespace_id, filter, 1000, None))

    async def count_runs_by_status(self, namespace_id: str, filter: Filter) -> list[CountGroup]:
        found = [each.status for each in await self.list_runs(namespace_id, filter, 1000, None)]
        return [CountGroup(status, found.count(status)) for status in sorted(set(found))]


async def serve_runs() -> Served:
    served = await serve()
    served.engine.rows = Rows(
        run("a", age=1),
        run("b", age=2, status=COMPLETED),
        run("c", age=3, workflow_type="U"),
        run("d", age=4, status=TIMED_OUT),
    )
    return served


async def test_a_run_is_listed_with_all_that_is_known() -> None:
    served = await serve_runs()
    request = ListWorkflowExecutionsRequest(namespace="default", query="WorkflowId = 'b'")
    (info,) = (await list_workflow_executions(served.server, request, CALL)).executions
    assert (info.execution.workflow_id, info.execution.run_id) == ("b", "run-of-b")
    assert (info.type.name, info.task_queue, info.status) == ("T", "q", COMPLETED)
    assert (info.history_length, info.history_size_bytes, info.state_transition_count) == (11, 345, 7)
    assert info.close_time.ToNanoseconds() - info.start_time.ToNanoseconds() == 3 * SECOND
    assert info.execution_time.ToNanoseconds() - info.start_time.ToNanoseconds() == SECOND
    assert info.execution_duration.ToNanoseconds() == 2 * SECOND
    assert info.memo.fields["m"].data == b"1"
    assert info.root_execution == info.execution
    assert not info.first_run_id, "as in Temporal, only a description tells it"


async def test_an_open_run_has_no_close_time() -> None:
    served = await serve_runs()
    request = ListWorkflowExecutionsRequest(namespace="default", query="WorkflowId = 'a'")
    (info,) = (await list_workflow_executions(served.server, request, CALL)).executions
    assert not info.HasField("close_time")
    assert not info.HasField("execution_duration")


async def test_a_list_goes_on_where_its_page_ended() -> None:
    served = await serve_runs()
    pages: list[list[str]] = []
    token = b""
    while not pages or token:
        request = ListWorkflowExecutionsRequest(namespace="default", page_size=3, next_page_token=token)
        response = await list_workflow_executions(served.server, request, CALL)
        pages.append([info.execution.workflow_id for info in response.executions])
        token = response.next_page_token
    assert pages == [["a", "b", "c"], ["d"]]


@pytest.mark.parametrize("token", [b"\xc1forged", msgspec.msgpack.encode((2**63, "x"))])
async def test_a_forged_page_token_is_refused(token: bytes) -> None:
    served = await serve_runs()
    request = ListWorkflowExecutionsRequest(namespace="default", next_page_token=token)
    with pytest.raises(InvalidArgument, match=r"Invalid NextPageToken\."):
        await list_workflow_executions(served.server, request, CALL)


async def test_a_list_has_no_groups() -> None:
    served = await serve_runs()
    request = ListWorkflowExecutionsRequest(namespace="default", query="GROUP BY ExecutionStatus")
    with pytest.raises(InvalidArgument, match="GROUP BY"):
        await list_workflow_executions(served.server, request, CALL)


async def test_a_count_counts_what_matches() -> None:
    served = await serve_runs()
    request = CountWorkflowExecutionsRequest(namespace="default", query="WorkflowType = 'T'")
    response = await count_workflow_executions(served.server, request, CALL)
    assert (response.count, len(response.groups)) == (3, 0)


async def test_a_count_in_groups_names_the_status() -> None:
    served = await serve_runs()
    request = CountWorkflowExecutionsRequest(namespace="default", query="GROUP BY ExecutionStatus")
    response = await count_workflow_executions(served.server, request, CALL)
    assert response.count == 4
    assert {group.group_values[0].data: group.count for group in response.groups} == {
        b'"Running"': 2,
        b'"Completed"': 1,
        b'"TimedOut"': 1,
    }
    assert dict(response.groups[0].group_values[0].metadata) == {"encoding": b"json/plain", "type": b"Keyword"}


def at(age: int) -> Timestamp:
    return Timestamp(seconds=NOW // SECOND - age)


@pytest.mark.parametrize(
    ("request_", "found"),
    [
        (ListOpenWorkflowExecutionsRequest(), ["a", "c"]),
        (ListOpenWorkflowExecutionsRequest(type_filter=WorkflowTypeFilter(name="U")), ["c"]),
        (ListOpenWorkflowExecutionsRequest(execution_filter=WorkflowExecutionFilter(workflow_id="a")), ["a"]),
        (ListOpenWorkflowExecutionsRequest(execution_filter=WorkflowExecutionFilter(workflow_id="x' OR ''='")), []),
        (ListOpenWorkflowExecutionsRequest(start_time_filter=StartTimeFilter(earliest_time=at(2))), ["a"]),
        (ListOpenWorkflowExecutionsRequest(start_time_filter=StartTimeFilter(latest_time=at(2))), ["c"]),
    ],
)
async def test_open_runs_are_found(request_: ListOpenWorkflowExecutionsRequest, found: list[str]) -> None:
    served = await serve_runs()
    request_.namespace = "default"
    response = await list_open_workflow_executions(served.server, request_, CALL)
    assert [info.execution.workflow_id for info in response.executions] == found


@pytest.mark.parametrize(
    ("request_", "found"),
    [
        (ListClosedWorkflowExecutionsRequest(), ["b", "d"]),
        (ListClosedWorkflowExecutionsRequest(status_filter=StatusFilter(status=TIMED_OUT)), ["d"]),
        (ListClosedWorkflowExecutionsRequest(type_filter=WorkflowTypeFilter(name="U")), []),
        (ListClosedWorkflowExecutionsRequest(start_time_filter=StartTimeFilter(latest_time=at(1))), ["d"]),
    ],
)
async def test_closed_runs_are_found_by_when_they_closed(
    request_: ListClosedWorkflowExecutionsRequest, found: list[str]
) -> None:
    served = await serve_runs()
    request_.namespace = "default"
    response = await list_closed_workflow_executions(served.server, request_, CALL)
    assert [info.execution.workflow_id for info in response.executions] == found


async def test_faulty_filters_are_refused() -> None:
    served = await serve_runs()
    running = ListClosedWorkflowExecutionsRequest(namespace="default", status_filter=StatusFilter(status=RUNNING))
    with pytest.raises(InvalidArgument, match="must be not Running"):
        await list_closed_workflow_executions(served.server, running, CALL)
    backwards = ListOpenWorkflowExecutionsRequest(
        namespace="default", start_time_filter=StartTimeFilter(earliest_time=at(1), latest_time=at(2))
    )
    with pytest.raises(InvalidArgument, match="EarliestTime"):
        await list_open_workflow_executions(served.server, backwards, CALL)
