"""What clients are told that do not go on to the next run by themselves."""

from __future__ import annotations

import pytest
from temporalio.api.common.v1 import Payload, Payloads, WorkflowExecution
from temporalio.api.enums.v1 import EventType, HistoryEventFilterType, TimeoutType
from temporalio.api.failure.v1 import Failure
from temporalio.api.history.v1 import (
    History,
    HistoryEvent,
    WorkflowExecutionCanceledEventAttributes,
    WorkflowExecutionCompletedEventAttributes,
    WorkflowExecutionFailedEventAttributes,
    WorkflowExecutionTimedOutEventAttributes,
)
from temporalio.api.workflowservice.v1 import GetWorkflowExecutionHistoryRequest, GetWorkflowExecutionHistoryResponse

from perdure.server.engine.client_software import ClientSoftware
from perdure.server.handlers.call import DirectCall
from perdure.server.handlers.history import get_workflow_execution_history
from tests.server.handlers.serving import serve

RESULT = Payloads(payloads=[Payload(data=b"result")])
FAILURE = Failure(message="once more")
FOLLOWS = ClientSoftware("temporal-go", "1.0.0", "other,follows-next-run-id")
DOES_NOT = ClientSoftware("temporal-java", "1.0.0", "other")
CLOSE, ALL = (
    HistoryEventFilterType.HISTORY_EVENT_FILTER_TYPE_CLOSE_EVENT,
    HistoryEventFilterType.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT,
)

COMPLETED = HistoryEvent(
    event_id=9,
    event_type=EventType.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED,
    workflow_execution_completed_event_attributes=WorkflowExecutionCompletedEventAttributes(
        result=RESULT, new_execution_run_id="next"
    ),
)
FAILED = HistoryEvent(
    event_id=9,
    event_type=EventType.EVENT_TYPE_WORKFLOW_EXECUTION_FAILED,
    workflow_execution_failed_event_attributes=WorkflowExecutionFailedEventAttributes(
        failure=FAILURE, new_execution_run_id="next"
    ),
)
TIMED_OUT = HistoryEvent(
    event_id=9,
    event_type=EventType.EVENT_TYPE_WORKFLOW_EXECUTION_TIMED_OUT,
    workflow_execution_timed_out_event_attributes=WorkflowExecutionTimedOutEventAttributes(new_execution_run_id="next"),
)
LAST_FAILED = HistoryEvent(
    event_id=9,
    event_type=EventType.EVENT_TYPE_WORKFLOW_EXECUTION_FAILED,
    workflow_execution_failed_event_attributes=WorkflowExecutionFailedEventAttributes(failure=FAILURE),
)
CANCELED = HistoryEvent(
    event_id=9,
    event_type=EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CANCELED,
    workflow_execution_canceled_event_attributes=WorkflowExecutionCanceledEventAttributes(details=RESULT),
)


async def _told(
    event: HistoryEvent, client: ClientSoftware, filter_type: HistoryEventFilterType.ValueType
) -> HistoryEvent:
    """Return what a client is told that waits for the end of a run, or reads all of it."""
    served = await serve()
    served.engine.history = GetWorkflowExecutionHistoryResponse(history=History(events=[event])).SerializeToString()
    request = GetWorkflowExecutionHistoryRequest(
        namespace="default", execution=WorkflowExecution(workflow_id="w"), history_event_filter_type=filter_type
    )
    reply = await get_workflow_execution_history(served.server, request, DirectCall(None, client))
    if isinstance(reply, bytes):
        reply = GetWorkflowExecutionHistoryResponse.FromString(reply)
    [told] = reply.history.events
    return told


@pytest.mark.parametrize("event", [COMPLETED, FAILED, TIMED_OUT])
async def test_a_run_that_another_one_follows_has_continued_as_new(event: HistoryEvent) -> None:
    told = await _told(event, DOES_NOT, CLOSE)
    assert (told.event_id, told.event_type) == (9, EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CONTINUED_AS_NEW)
    continued = told.workflow_execution_continued_as_new_event_attributes
    assert continued.new_execution_run_id == "next"
    if event is COMPLETED:
        assert continued.last_completion_result == RESULT
    elif event is FAILED:
        assert continued.failure == FAILURE
    else:
        timeout = continued.failure.timeout_failure_info
        assert timeout.timeout_type == TimeoutType.TIMEOUT_TYPE_START_TO_CLOSE


@pytest.mark.parametrize("event", [LAST_FAILED, CANCELED])
async def test_the_end_of_the_last_run_is_told_as_it_is(event: HistoryEvent) -> None:
    assert await _told(event, DOES_NOT, CLOSE) == event


async def test_a_client_that_follows_runs_is_told_how_each_one_ended() -> None:
    assert await _told(FAILED, FOLLOWS, CLOSE) == FAILED


async def test_who_reads_a_history_is_told_what_is_in_it() -> None:
    assert await _told(FAILED, DOES_NOT, ALL) == FAILED
