"""The word of a child that it has closed: its closing event becomes one of its parent's."""

from __future__ import annotations

from typing import TypeVar

from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.history.v1 import (
    ChildWorkflowExecutionCanceledEventAttributes,
    ChildWorkflowExecutionCompletedEventAttributes,
    ChildWorkflowExecutionFailedEventAttributes,
    ChildWorkflowExecutionTerminatedEventAttributes,
    ChildWorkflowExecutionTimedOutEventAttributes,
    HistoryEvent,
)

from perdure.server.core import registry
from perdure.server.core.machines import child, workflow_task
from perdure.server.core.machines.child import Child
from perdure.server.core.messages import Answer, ChildClosedMessage, Message, Outcome
from perdure.server.core.transition import Transition

_Completed = ChildWorkflowExecutionCompletedEventAttributes
_Failed = ChildWorkflowExecutionFailedEventAttributes
_Canceled = ChildWorkflowExecutionCanceledEventAttributes
_TimedOut = ChildWorkflowExecutionTimedOutEventAttributes
_Terminated = ChildWorkflowExecutionTerminatedEventAttributes
_Closed = _Completed | _Failed | _Canceled | _TimedOut | _Terminated

_C = TypeVar("_C", _Completed, _Failed, _Canceled, _TimedOut, _Terminated)


@registry.delivers(ChildClosedMessage)
def _close(t: Transition, message: Message, body: ChildClosedMessage) -> Answer:
    run = t.run
    if not run.is_open:
        return Answer(Outcome.CLOSED)
    pending = child.pending_child(run, body.parent_initiated_event_id)
    if pending is None or pending.workflow_id != message.sender.workflow_id:
        return Answer(Outcome.NOT_FOUND)
    if pending.state is child.State.INITIATED:
        child.record_started(t, pending, body.first_run_id)
    elif pending.run_id != body.first_run_id:
        return Answer(Outcome.NOT_FOUND)
    event = HistoryEvent.FromString(body.closing_event)
    t.record(_closed(pending, message.sender_run_id, event))
    workflow_task.schedule(t)
    return Answer(Outcome.DONE, run.run_id)


def _closed(pending: Child, run_id: str, event: HistoryEvent) -> _Closed:
    """Return how the child ended; `run_id` is its last run."""
    match event.WhichOneof("attributes"):
        case "workflow_execution_completed_event_attributes":
            completed = _end(_Completed(), pending, run_id)
            done = event.workflow_execution_completed_event_attributes
            if done.HasField("result"):
                completed.result.CopyFrom(done.result)
            return completed
        case "workflow_execution_failed_event_attributes":
            failed = _end(_Failed(), pending, run_id)
            broken = event.workflow_execution_failed_event_attributes
            failed.failure.CopyFrom(broken.failure)
            failed.retry_state = broken.retry_state
            return failed
        case "workflow_execution_canceled_event_attributes":
            canceled = _end(_Canceled(), pending, run_id)
            if event.workflow_execution_canceled_event_attributes.HasField("details"):
                canceled.details.CopyFrom(event.workflow_execution_canceled_event_attributes.details)
            return canceled
        case "workflow_execution_timed_out_event_attributes":
            timed_out = _end(_TimedOut(), pending, run_id)
            timed_out.retry_state = event.workflow_execution_timed_out_event_attributes.retry_state
            return timed_out
        case _:
            # A run that was continued says nothing: the last one of its chain does.
            return _end(_Terminated(), pending, run_id)


def _end(attributes: _C, pending: Child, run_id: str) -> _C:
    attributes.initiated_event_id = pending.initiated_event_id
    attributes.started_event_id = pending.started_event_id
    attributes.namespace = pending.attributes.namespace
    attributes.namespace_id = pending.attributes.namespace_id
    attributes.workflow_execution.CopyFrom(WorkflowExecution(workflow_id=pending.workflow_id, run_id=run_id))
    attributes.workflow_type.CopyFrom(pending.attributes.workflow_type)
    return attributes
