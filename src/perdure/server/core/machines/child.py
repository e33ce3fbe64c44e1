"""One child workflow as its parent sees it, from the start command until its last run has closed.

Two messages decide: the answer to the parent's start, and the child's word that it has closed. They travel apart. A
child may have closed before the parent hears that it started: then its word says both, Started is recorded first, and
the late answer finds nothing pending. A start is refused where the id is taken. The child is known by the id of its
first run, whatever runs follow.
"""

from __future__ import annotations

from enum import auto
from typing import Final

import msgspec
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import StartChildWorkflowExecutionFailedCause
from temporalio.api.history.v1 import (
    ChildWorkflowExecutionCanceledEventAttributes,
    ChildWorkflowExecutionCompletedEventAttributes,
    ChildWorkflowExecutionFailedEventAttributes,
    ChildWorkflowExecutionStartedEventAttributes,
    ChildWorkflowExecutionTerminatedEventAttributes,
    ChildWorkflowExecutionTimedOutEventAttributes,
    StartChildWorkflowExecutionFailedEventAttributes,
    StartChildWorkflowExecutionInitiatedEventAttributes,
)

from perdure._machine import MachineState, Table, move
from perdure.server.core import registry
from perdure.server.core.events import Event
from perdure.server.core.machines import workflow_task
from perdure.server.core.mail import mail_of
from perdure.server.core.messages import Answer, Outcome, StartChildMessage
from perdure.server.core.records import ChildRecord
from perdure.server.core.run import Run
from perdure.server.core.transition import Transition


class State(MachineState):
    """What the parent knows of a pending child."""

    INITIATED = auto()
    STARTED = auto()
    CLOSED = auto()


_Initiated = StartChildWorkflowExecutionInitiatedEventAttributes
_StartFailed = StartChildWorkflowExecutionFailedEventAttributes
_Started = ChildWorkflowExecutionStartedEventAttributes
_Completed = ChildWorkflowExecutionCompletedEventAttributes
_Failed = ChildWorkflowExecutionFailedEventAttributes
_Canceled = ChildWorkflowExecutionCanceledEventAttributes
_TimedOut = ChildWorkflowExecutionTimedOutEventAttributes
_Terminated = ChildWorkflowExecutionTerminatedEventAttributes
_Cause = StartChildWorkflowExecutionFailedCause

TABLE: Final[Table[State]] = {
    (State.INITIATED, _Started): State.STARTED,
    (State.INITIATED, _StartFailed): State.CLOSED,
    (State.STARTED, _Completed): State.CLOSED,
    (State.STARTED, _Failed): State.CLOSED,
    (State.STARTED, _Canceled): State.CLOSED,
    (State.STARTED, _TimedOut): State.CLOSED,
    (State.STARTED, _Terminated): State.CLOSED,
}

_ALREADY_EXISTS: Final = _Cause.START_CHILD_WORKFLOW_EXECUTION_FAILED_CAUSE_WORKFLOW_ALREADY_EXISTS
_CAUSES: Final = {Outcome.NAMESPACE_NOT_FOUND: _Cause.START_CHILD_WORKFLOW_EXECUTION_FAILED_CAUSE_NAMESPACE_NOT_FOUND}


class Child(msgspec.Struct, gc=False):
    """A pending child; one that has closed, or could not be started, is no longer in its run."""

    initiated_event_id: int
    initiated_at: int
    attributes: StartChildWorkflowExecutionInitiatedEventAttributes
    """Without the input, the memo and the search attributes, which are in the message."""
    state: State = State.INITIATED
    message: int = 0
    """The number of the message that starts it; 0 once it has started."""
    run_id: str = ""
    """Its first run, once it is known to have started."""
    started_event_id: int = 0
    """0 also while that event is buffered."""

    @property
    def workflow_id(self) -> str:
        """The child's own id."""
        return self.attributes.workflow_id


def new_child(event_id: int, at: int, initiated: _Initiated) -> Child:
    """Make the state of a child from its Initiated event."""
    attributes = StartChildWorkflowExecutionInitiatedEventAttributes()
    attributes.CopyFrom(initiated)
    for name in ("input", "memo", "search_attributes"):
        attributes.ClearField(name)
    return Child(event_id, at, attributes)


def restored(record: ChildRecord, initiated: _Initiated) -> Child:
    """Make the state of a child from its row and its Initiated event."""
    child = new_child(record.initiated_event_id, record.initiated_at, initiated)
    if record.child_run_id is not None:
        move(TABLE, child, _Started)
        child.run_id = record.child_run_id
        child.started_event_id = record.started_event_id
    return child


def pending_child(run: Run, initiated_event_id: int) -> Child | None:
    """Return a child that is still pending."""
    return None if run.mail is None else run.mail.children.get(initiated_event_id)


@registry.hears(StartChildMessage)
def _hear(t: Transition, body: StartChildMessage, answer: Answer) -> None:
    child = pending_child(t.run, body.initiated_event_id)
    if child is None or child.state is not State.INITIATED:
        return
    if answer.outcome is Outcome.DONE:
        record_started(t, child, answer.run_id)
    else:
        t.record(start_failed(t, child, _CAUSES.get(answer.outcome, _ALREADY_EXISTS)))
    workflow_task.schedule(t)


def record_started(t: Transition, child: Child, run_id: str) -> None:
    """Record that the child runs."""
    attributes = child.attributes
    started = _Started(
        initiated_event_id=child.initiated_event_id,
        namespace=attributes.namespace,
        namespace_id=attributes.namespace_id,
        workflow_execution=WorkflowExecution(workflow_id=child.workflow_id, run_id=run_id),
        workflow_type=attributes.workflow_type,
    )
    if attributes.HasField("header"):
        started.header.CopyFrom(attributes.header)
    t.record(started)


def start_failed(t: Transition, child: Child, cause: _Cause.ValueType = _ALREADY_EXISTS) -> _StartFailed:
    """Return the fact that the child could not be started."""
    attributes = child.attributes
    return _StartFailed(
        initiated_event_id=child.initiated_event_id,
        namespace=attributes.namespace,
        namespace_id=attributes.namespace_id,
        workflow_id=attributes.workflow_id,
        workflow_type=attributes.workflow_type,
        control=attributes.control,
        cause=cause,
    )


# --- events -----------------------------------------------------------------------------------------------------------


@registry.applies(_Initiated)
def _apply_initiated(run: Run, event: Event, attributes: _Initiated) -> None:
    mail = mail_of(run)
    mail.children[event.event_id] = new_child(event.event_id, event.at, attributes)
    mail.changed_children.add(event.event_id)


@registry.applies(_Started)
def _apply_started(run: Run, event: Event, attributes: _Started) -> None:
    mail = mail_of(run)
    child = mail.children[attributes.initiated_event_id]
    move(TABLE, child, _Started)
    child.message = 0
    child.run_id = attributes.workflow_execution.run_id
    child.started_event_id = event.event_id
    mail.changed_children.add(child.initiated_event_id)


@registry.applies(_StartFailed)
def _apply_start_failed(run: Run, event: Event, attributes: _StartFailed) -> None:
    _remove(run, attributes.initiated_event_id, _StartFailed)


@registry.applies(_Completed)
def _apply_completed(run: Run, event: Event, attributes: _Completed) -> None:
    _remove(run, attributes.initiated_event_id, _Completed)


@registry.applies(_Failed)
def _apply_failed(run: Run, event: Event, attributes: _Failed) -> None:
    _remove(run, attributes.initiated_event_id, _Failed)


@registry.applies(_Canceled)
def _apply_canceled(run: Run, event: Event, attributes: _Canceled) -> None:
    _remove(run, attributes.initiated_event_id, _Canceled)


@registry.applies(_TimedOut)
def _apply_timed_out(run: Run, event: Event, attributes: _TimedOut) -> None:
    _remove(run, attributes.initiated_event_id, _TimedOut)


@registry.applies(_Terminated)
def _apply_terminated(run: Run, event: Event, attributes: _Terminated) -> None:
    _remove(run, attributes.initiated_event_id, _Terminated)


def _remove(run: Run, initiated_event_id: int, closing: type) -> None:
    mail = mail_of(run)
    move(TABLE, mail.children.pop(initiated_event_id), closing)
    mail.changed_children.add(initiated_event_id)
