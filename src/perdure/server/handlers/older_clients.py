"""What is told differently to clients that lack what newer ones can do, as Temporal tells it."""

from __future__ import annotations

from typing import Final

from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent, WorkflowExecutionContinuedAsNewEventAttributes
from temporalio.api.workflowservice.v1 import GetWorkflowExecutionHistoryResponse

from perdure.server.core.failures import run_timeout_failure

_COMPLETED: Final = EventType.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED
_FAILED: Final = EventType.EVENT_TYPE_WORKFLOW_EXECUTION_FAILED
_TIMED_OUT: Final = EventType.EVENT_TYPE_WORKFLOW_EXECUTION_TIMED_OUT


def as_continued(reply: GetWorkflowExecutionHistoryResponse | bytes) -> GetWorkflowExecutionHistoryResponse:
    """Return a close event as one that continues as new where another run has followed, by a retry or a cron schedule.

    Every client waits for the next run after that event; only some do after the others. The Java SDK is one that does
    not, and would take the failure that is being retried for the result.

    Args:
        reply: With the close event alone, or without any.
    """
    if isinstance(reply, bytes):
        reply = GetWorkflowExecutionHistoryResponse.FromString(reply)
    for event in reply.history.events:
        continued = _continued(event)
        if continued.new_execution_run_id:
            event.event_type = EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CONTINUED_AS_NEW
            event.workflow_execution_continued_as_new_event_attributes.CopyFrom(continued)
    return reply


def _continued(event: HistoryEvent) -> WorkflowExecutionContinuedAsNewEventAttributes:
    """Return what an event says of the run that follows it, with the outcome of its own run."""
    continued = WorkflowExecutionContinuedAsNewEventAttributes()
    if event.event_type == _COMPLETED:
        completed = event.workflow_execution_completed_event_attributes
        continued.new_execution_run_id = completed.new_execution_run_id
        continued.last_completion_result.CopyFrom(completed.result)
    elif event.event_type == _FAILED:
        failed = event.workflow_execution_failed_event_attributes
        continued.new_execution_run_id = failed.new_execution_run_id
        continued.failure.CopyFrom(failed.failure)
    elif event.event_type == _TIMED_OUT:
        timed_out = event.workflow_execution_timed_out_event_attributes
        continued.new_execution_run_id = timed_out.new_execution_run_id
        continued.failure.CopyFrom(run_timeout_failure())
    return continued
