"""A signal to another workflow, from the SignalExternalWorkflowExecution command until its fate is known.

The message is in the outbox as long as the signal is pending. To oneself there is no message: it fails at once. A run
that closes does not take its signals back; only nobody hears what became of them.
"""

from __future__ import annotations

from enum import auto
from typing import Final

import msgspec
from temporalio.api.command.v1 import Command
from temporalio.api.enums.v1 import CommandType, SignalExternalWorkflowExecutionFailedCause
from temporalio.api.history.v1 import (
    ExternalWorkflowExecutionSignaledEventAttributes,
    SignalExternalWorkflowExecutionFailedEventAttributes,
    SignalExternalWorkflowExecutionInitiatedEventAttributes,
)

from perdure._machine import MachineState, Table, move
from perdure.server.core import registry
from perdure.server.core.checks import check_signal_external, too_many_external_signals
from perdure.server.core.command_batch import CommandBatch, metadata_of
from perdure.server.core.events import Event
from perdure.server.core.machines import workflow_task
from perdure.server.core.mail import mail_of, send
from perdure.server.core.messages import Answer, Outcome, SignalMessage
from perdure.server.core.records import WorkflowKey
from perdure.server.core.run import Run
from perdure.server.core.transition import Transition


class State(MachineState):
    """What has become of the signal."""

    INITIATED = auto()
    SIGNALED = auto()
    FAILED = auto()


_Initiated = SignalExternalWorkflowExecutionInitiatedEventAttributes
_Signaled = ExternalWorkflowExecutionSignaledEventAttributes
_Failed = SignalExternalWorkflowExecutionFailedEventAttributes
_Cause = SignalExternalWorkflowExecutionFailedCause

TABLE: Final[Table[State]] = {
    (State.INITIATED, _Signaled): State.SIGNALED,
    (State.INITIATED, _Failed): State.FAILED,
}

_NOT_FOUND: Final = _Cause.SIGNAL_EXTERNAL_WORKFLOW_EXECUTION_FAILED_CAUSE_EXTERNAL_WORKFLOW_EXECUTION_NOT_FOUND
_CAUSES: Final = {
    Outcome.LIMIT_EXCEEDED: _Cause.SIGNAL_EXTERNAL_WORKFLOW_EXECUTION_FAILED_CAUSE_SIGNAL_COUNT_LIMIT_EXCEEDED,
    Outcome.NAMESPACE_NOT_FOUND: _Cause.SIGNAL_EXTERNAL_WORKFLOW_EXECUTION_FAILED_CAUSE_NAMESPACE_NOT_FOUND,
}


class ExternalSignal(msgspec.Struct, gc=False):
    """A pending signal; one whose fate is known is no longer in its run."""

    initiated_event_id: int
    attributes: SignalExternalWorkflowExecutionInitiatedEventAttributes
    """Without the input and the header, which are in the message."""
    message: int = 0
    """The number of the message that carries it."""
    state: State = State.INITIATED


def new_external_signal(event_id: int, initiated: _Initiated) -> ExternalSignal:
    """Make the state of a signal from its Initiated event."""
    attributes = SignalExternalWorkflowExecutionInitiatedEventAttributes()
    attributes.CopyFrom(initiated)
    attributes.ClearField("input")
    attributes.ClearField("header")
    return ExternalSignal(event_id, attributes)


def _check(batch: CommandBatch, command: Command) -> None:
    check_signal_external(command.signal_external_workflow_execution_command_attributes, batch.facts, batch.limits)
    if batch.outgoing.external_signals >= batch.limits.pending_external_signals:
        raise too_many_external_signals(batch.outgoing.external_signals, batch.limits)
    batch.outgoing.external_signals += 1


def _record(t: Transition, command: Command) -> None:
    run, attributes = t.run, command.signal_external_workflow_execution_command_attributes
    initiated = _Initiated(
        workflow_task_completed_event_id=run.last_task_completed_event_id,
        namespace=attributes.namespace,
        namespace_id=run.key.namespace_id,
        workflow_execution=attributes.execution,
        signal_name=attributes.signal_name,
        control=attributes.control,
        child_workflow_only=attributes.child_workflow_only,
    )
    if attributes.HasField("input"):
        initiated.input.CopyFrom(attributes.input)
    if attributes.HasField("header"):
        initiated.header.CopyFrom(attributes.header)
    event_id = t.record(initiated, user_metadata=metadata_of(command)).event_id
    pending = mail_of(run).external_signals[event_id]
    receiver = WorkflowKey(run.key.namespace_id, attributes.execution.workflow_id)
    if receiver == run.key:
        t.record_behind_commands(_failed(t, pending, _NOT_FOUND))
        return
    body = SignalMessage(event_id, initiated.SerializeToString(), attributes.execution.run_id)
    pending.message = send(t, receiver, body)


registry.command(CommandType.COMMAND_TYPE_SIGNAL_EXTERNAL_WORKFLOW_EXECUTION, check=_check, record=_record)


@registry.hears(SignalMessage)
def _hear(t: Transition, body: SignalMessage, answer: Answer) -> None:
    mail = t.run.mail
    pending = mail.external_signals.get(body.initiated_event_id) if mail is not None else None
    if pending is None:
        return
    if answer.outcome is Outcome.DONE:
        t.record(_signaled(t, pending))
    else:
        t.record(_failed(t, pending, _CAUSES.get(answer.outcome, _NOT_FOUND)))
    workflow_task.schedule(t)


def _signaled(t: Transition, pending: ExternalSignal) -> _Signaled:
    return _Signaled(
        initiated_event_id=pending.initiated_event_id,
        namespace=t.world.namespace.name,
        namespace_id=pending.attributes.namespace_id,
        workflow_execution=pending.attributes.workflow_execution,
        control=pending.attributes.control,
    )


def _failed(t: Transition, pending: ExternalSignal, cause: _Cause.ValueType) -> _Failed:
    return _Failed(
        cause=cause,
        initiated_event_id=pending.initiated_event_id,
        namespace=t.world.namespace.name,
        namespace_id=pending.attributes.namespace_id,
        workflow_execution=pending.attributes.workflow_execution,
        control=pending.attributes.control,
    )


# --- events -----------------------------------------------------------------------------------------------------------


@registry.applies(_Initiated)
def _apply_initiated(run: Run, event: Event, attributes: _Initiated) -> None:
    mail_of(run).external_signals[event.event_id] = new_external_signal(event.event_id, attributes)


@registry.applies(_Signaled)
def _apply_signaled(run: Run, event: Event, attributes: _Signaled) -> None:
    move(TABLE, mail_of(run).external_signals.pop(attributes.initiated_event_id), _Signaled)


@registry.applies(_Failed)
def _apply_failed(run: Run, event: Event, attributes: _Failed) -> None:
    move(TABLE, mail_of(run).external_signals.pop(attributes.initiated_event_id), _Failed)
