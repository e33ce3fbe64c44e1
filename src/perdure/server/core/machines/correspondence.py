"""Messages of other workflows to a run: signals, cancel requests, and the word of a parent that has closed.

The same as a client's requests, with the sender named in the event. Whatever cannot be done is an answer; only what
passes soon by itself, a signal to a run that tries to close, is raised, and the message comes again.
"""

from __future__ import annotations

from typing import Final

from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import ParentClosePolicy
from temporalio.api.history.v1 import (
    RequestCancelExternalWorkflowExecutionInitiatedEventAttributes,
    SignalExternalWorkflowExecutionInitiatedEventAttributes,
    WorkflowExecutionCancelRequestedEventAttributes,
    WorkflowExecutionSignaledEventAttributes,
)

from perdure.server.core import registry
from perdure.server.core.machines import closure, signal, workflow_task
from perdure.server.core.messages import Answer, CancelMessage, Message, Outcome, ParentClosedMessage, SignalMessage
from perdure.server.core.run import Run
from perdure.server.core.transition import Transition

_TERMINATE: Final = ParentClosePolicy.PARENT_CLOSE_POLICY_TERMINATE
_ABANDON: Final = ParentClosePolicy.PARENT_CLOSE_POLICY_ABANDON


@registry.delivers(SignalMessage)
def _signal(t: Transition, message: Message, body: SignalMessage) -> Answer:
    run = t.run
    attributes = SignalExternalWorkflowExecutionInitiatedEventAttributes.FromString(body.attributes)
    if not run.is_open:
        return Answer(Outcome.CLOSED)
    if not signal.has_room(t):
        return Answer(Outcome.LIMIT_EXCEEDED)
    if attributes.child_workflow_only and not is_child_of(run, message):
        return Answer(Outcome.NOT_FOUND)
    signal.require_no_closing(t)
    signaled = WorkflowExecutionSignaledEventAttributes(
        signal_name=attributes.signal_name,
        identity=closure.SERVER_IDENTITY,
        external_workflow_execution=_sender(message),
    )
    if attributes.HasField("input"):
        signaled.input.CopyFrom(attributes.input)
    if attributes.HasField("header"):
        signaled.header.CopyFrom(attributes.header)
    t.record(signaled)
    workflow_task.schedule(t)
    return Answer(Outcome.DONE, run.run_id)


@registry.delivers(CancelMessage)
def _request_cancel(t: Transition, message: Message, body: CancelMessage) -> Answer:
    attributes = RequestCancelExternalWorkflowExecutionInitiatedEventAttributes.FromString(body.attributes)
    if t.run.is_open and attributes.child_workflow_only and not is_child_of(t.run, message):
        return Answer(Outcome.NOT_FOUND)
    requested = WorkflowExecutionCancelRequestedEventAttributes(
        cause=attributes.reason,
        identity=closure.SERVER_IDENTITY,
        external_initiated_event_id=body.initiated_event_id,
        external_workflow_execution=_sender(message),
    )
    return _cancel(t, requested)


@registry.delivers(ParentClosedMessage)
def _leave(t: Transition, message: Message, body: ParentClosedMessage) -> Answer:
    run = t.run
    if not run.is_open or not is_child_of(run, message):
        return Answer(Outcome.NOT_FOUND)
    if body.first_run_id and run.start.first_execution_run_id != body.first_run_id:
        return Answer(Outcome.NOT_FOUND)
    if body.policy == _ABANDON:
        return Answer(Outcome.DONE, run.run_id)
    if body.policy == _TERMINATE:
        closure.terminate(t, reason="by parent close policy")
        return Answer(Outcome.DONE, run.run_id)
    requested = WorkflowExecutionCancelRequestedEventAttributes(
        identity=closure.SERVER_IDENTITY, external_workflow_execution=_sender(message)
    )
    return _cancel(t, requested)


def _cancel(t: Transition, requested: WorkflowExecutionCancelRequestedEventAttributes) -> Answer:
    """Request the cancellation, unless there is nothing to cancel any more: that is a success too."""
    if t.run.is_open and not t.run.cancel_requested:
        t.record(requested)
        workflow_task.schedule(t)
    return Answer(Outcome.DONE, t.run.run_id)


def is_child_of(run: Run, message: Message) -> bool:
    """Return whether the run is a child of the very run that sent the message."""
    parent = run.start.parent_workflow_execution
    return (parent.workflow_id, parent.run_id) == (message.sender.workflow_id, message.sender_run_id)


def _sender(message: Message) -> WorkflowExecution:
    return WorkflowExecution(workflow_id=message.sender.workflow_id, run_id=message.sender_run_id)
