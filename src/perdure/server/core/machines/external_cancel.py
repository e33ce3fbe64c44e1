"""A cancel request to another workflow, from the RequestCancelExternalWorkflowExecution command until it was heard.

The message is in the outbox as long as the request is pending. To ask for the cancellation of a closed run, or of one
where it was requested before, is a success: there is nothing left to ask for. To ask oneself fails at once.
"""

from __future__ import annotations

from enum import auto
from typing import Final

import msgspec
from temporalio.api.command.v1 import Command
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import CancelExternalWorkflowExecutionFailedCause, CommandType
from temporalio.api.history.v1 import (
    ExternalWorkflowExecutionCancelRequestedEventAttributes,
    RequestCancelExternalWorkflowExecutionFailedEventAttributes,
    RequestCancelExternalWorkflowExecutionInitiatedEventAttributes,
)

from perdure._machine import MachineState, Table, move
from perdure.server.core import registry
from perdure.server.core.checks import cancel_of_new_child, check_cancel_external, too_many_external_cancels
from perdure.server.core.command_batch import CommandBatch, metadata_of
from perdure.server.core.events import Event
from perdure.server.core.machines import workflow_task
from perdure.server.core.mail import mail_of, send
from perdure.server.core.messages import Answer, CancelMessage, Outcome
from perdure.server.core.records import WorkflowKey
from perdure.server.core.run import Run
from perdure.server.core.transition import Transition


class State(MachineState):
    """What has become of the request."""

    INITIATED = auto()
    REQUESTED = auto()
    FAILED = auto()


_Initiated = RequestCancelExternalWorkflowExecutionInitiatedEventAttributes
_Requested = ExternalWorkflowExecutionCancelRequestedEventAttributes
_Failed = RequestCancelExternalWorkflowExecutionFailedEventAttributes
_Cause = CancelExternalWorkflowExecutionFailedCause

TABLE: Final[Table[State]] = {
    (State.INITIATED, _Requested): State.REQUESTED,
    (State.INITIATED, _Failed): State.FAILED,
}

_NOT_FOUND: Final = _Cause.CANCEL_EXTERNAL_WORKFLOW_EXECUTION_FAILED_CAUSE_EXTERNAL_WORKFLOW_EXECUTION_NOT_FOUND
_CAUSES: Final = {
    Outcome.NAMESPACE_NOT_FOUND: _Cause.CANCEL_EXTERNAL_WORKFLOW_EXECUTION_FAILED_CAUSE_NAMESPACE_NOT_FOUND
}


class ExternalCancel(msgspec.Struct, gc=False):
    """A pending request; one whose fate is known is no longer in its run."""

    initiated_event_id: int
    attributes: RequestCancelExternalWorkflowExecutionInitiatedEventAttributes
    message: int = 0
    """The number of the message that carries it."""
    state: State = State.INITIATED


def new_external_cancel(event_id: int, initiated: _Initiated) -> ExternalCancel:
    """Make the state of a request from its Initiated event."""
    attributes = RequestCancelExternalWorkflowExecutionInitiatedEventAttributes()
    attributes.CopyFrom(initiated)
    return ExternalCancel(event_id, attributes)


def _check(batch: CommandBatch, command: Command) -> None:
    attributes = command.request_cancel_external_workflow_execution_command_attributes
    check_cancel_external(attributes, batch.facts, batch.limits)
    if attributes.workflow_id in batch.outgoing.new_children:
        raise cancel_of_new_child(attributes)
    if batch.outgoing.external_cancels >= batch.limits.pending_external_cancels:
        raise too_many_external_cancels(batch.outgoing.external_cancels, batch.limits)
    batch.outgoing.external_cancels += 1


def _record(t: Transition, command: Command) -> None:
    run, attributes = t.run, command.request_cancel_external_workflow_execution_command_attributes
    initiated = _Initiated(
        workflow_task_completed_event_id=run.last_task_completed_event_id,
        namespace=attributes.namespace,
        namespace_id=run.key.namespace_id,
        workflow_execution=WorkflowExecution(workflow_id=attributes.workflow_id, run_id=attributes.run_id),
        control=attributes.control,
        child_workflow_only=attributes.child_workflow_only,
        reason=attributes.reason,
    )
    event_id = t.record(initiated, user_metadata=metadata_of(command)).event_id
    pending = mail_of(run).external_cancels[event_id]
    receiver = WorkflowKey(run.key.namespace_id, attributes.workflow_id)
    if receiver == run.key:
        t.record_behind_commands(_failed(t, pending, _NOT_FOUND))
        return
    pending.message = send(t, receiver, CancelMessage(event_id, initiated.SerializeToString(), attributes.run_id))


registry.command(CommandType.COMMAND_TYPE_REQUEST_CANCEL_EXTERNAL_WORKFLOW_EXECUTION, check=_check, record=_record)


@registry.hears(CancelMessage)
def _hear(t: Transition, body: CancelMessage, answer: Answer) -> None:
    mail = t.run.mail
    pending = mail.external_cancels.get(body.initiated_event_id) if mail is not None else None
    if pending is None:
        return
    if answer.outcome is Outcome.DONE:
        t.record(_requested(t, pending))
    else:
        t.record(_failed(t, pending, _CAUSES.get(answer.outcome, _NOT_FOUND)))
    workflow_task.schedule(t)


def _requested(t: Transition, pending: ExternalCancel) -> _Requested:
    return _Requested(
        initiated_event_id=pending.initiated_event_id,
        namespace=t.world.namespace.name,
        namespace_id=pending.attributes.namespace_id,
        workflow_execution=pending.attributes.workflow_execution,
    )


def _failed(t: Transition, pending: ExternalCancel, cause: _Cause.ValueType) -> _Failed:
    return _Failed(
        cause=cause,
        initiated_event_id=pending.initiated_event_id,
        namespace=t.world.namespace.name,
        namespace_id=pending.attributes.namespace_id,
        workflow_execution=pending.attributes.workflow_execution,
    )


# --- events -----------------------------------------------------------------------------------------------------------


@registry.applies(_Initiated)
def _apply_initiated(run: Run, event: Event, attributes: _Initiated) -> None:
    mail_of(run).external_cancels[event.event_id] = new_external_cancel(event.event_id, attributes)


@registry.applies(_Requested)
def _apply_requested(run: Run, event: Event, attributes: _Requested) -> None:
    move(TABLE, mail_of(run).external_cancels.pop(attributes.initiated_event_id), _Requested)


@registry.applies(_Failed)
def _apply_failed(run: Run, event: Event, attributes: _Failed) -> None:
    move(TABLE, mail_of(run).external_cancels.pop(attributes.initiated_event_id), _Failed)
