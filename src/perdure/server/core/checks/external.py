"""Checks of SignalExternalWorkflowExecution and RequestCancelExternalWorkflowExecution."""

from __future__ import annotations

import re
from typing import Final

from temporalio.api.command.v1 import (
    RequestCancelExternalWorkflowExecutionCommandAttributes,
    SignalExternalWorkflowExecutionCommandAttributes,
)
from temporalio.api.enums.v1 import WorkflowTaskFailedCause

from perdure.server.core.checks.bad_command import BadCommand
from perdure.server.core.checks.facts import RunFacts
from perdure.server.core.checks.names import byte_length, has_nul, is_too_long
from perdure.server.core.limits import Limits

_BAD_SIGNAL: Final = WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_BAD_SIGNAL_WORKFLOW_EXECUTION_ATTRIBUTES
_BAD_CANCEL: Final = (
    WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_BAD_REQUEST_CANCEL_EXTERNAL_WORKFLOW_EXECUTION_ATTRIBUTES
)
_MANY_SIGNALS: Final = WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_PENDING_SIGNALS_LIMIT_EXCEEDED
_MANY_CANCELS: Final = WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_PENDING_REQUEST_CANCEL_LIMIT_EXCEEDED

_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")

_SIGNAL: Final = "SignalExternalWorkflowExecutionCommand"
_CANCEL: Final = "RequestCancelExternalWorkflowExecutionCommand"


def check_signal_external(
    attributes: SignalExternalWorkflowExecutionCommandAttributes, facts: RunFacts, limits: Limits
) -> None:
    """Refuse a signal without a proper target or name; one with too much input ends the run. Raises BadCommand."""
    if not attributes.HasField("execution"):
        raise BadCommand(_BAD_SIGNAL, f"Execution is not set on {_SIGNAL}.")
    namespace, run_id = attributes.namespace, attributes.execution.run_id
    where = f"Namespace={namespace} RunId={run_id} SignalName={attributes.signal_name}"
    workflow_id = attributes.execution.workflow_id
    check_same_namespace(namespace, facts, _BAD_SIGNAL)
    _check_target(workflow_id, run_id, _SIGNAL, _BAD_SIGNAL, where, limits)
    if not attributes.signal_name:
        raise BadCommand(
            _BAD_SIGNAL,
            f"SignalName is not set on {_SIGNAL}. WorkflowId={workflow_id} Namespace={namespace} RunId={run_id}",
        )
    if attributes.input.ByteSize() > limits.blob_size_error:
        raise BadCommand(
            _BAD_SIGNAL,
            "SignalExternalWorkflowExecutionCommandAttributes.Input exceeds size limit.",
            terminate=True,
        )


def check_cancel_external(
    attributes: RequestCancelExternalWorkflowExecutionCommandAttributes, facts: RunFacts, limits: Limits
) -> None:
    """Refuse a cancel request without a proper target. Raises BadCommand."""
    namespace, run_id = attributes.namespace, attributes.run_id
    check_same_namespace(namespace, facts, _BAD_CANCEL)
    _check_target(attributes.workflow_id, run_id, _CANCEL, _BAD_CANCEL, f"Namespace={namespace} RunId={run_id}", limits)


def check_same_namespace(namespace: str, facts: RunFacts, cause: WorkflowTaskFailedCause.ValueType) -> None:
    """Refuse a command for another namespace. Raises BadCommand."""
    if namespace not in ("", facts.namespace):
        raise BadCommand(cause, "cross namespace commands are not allowed")


def cancel_of_new_child(attributes: RequestCancelExternalWorkflowExecutionCommandAttributes) -> BadCommand:
    """Return the refusal to cancel a child in the task that starts it."""
    return BadCommand(
        _BAD_CANCEL,
        "Start and RequestCancel for child workflow is not allowed in same workflow task. "
        f"WorkflowId={attributes.workflow_id} RunId={attributes.run_id} Namespace={attributes.namespace}",
    )


def too_many_external_signals(pending: int, limits: Limits) -> BadCommand:
    """Return the refusal of one more pending signal."""
    return BadCommand(
        _MANY_SIGNALS, _too_many("pending signals to external workflows", pending, limits.pending_external_signals)
    )


def too_many_external_cancels(pending: int, limits: Limits) -> BadCommand:
    """Return the refusal of one more pending cancel request."""
    what = "pending requests to cancel external workflows"
    return BadCommand(_MANY_CANCELS, _too_many(what, pending, limits.pending_external_cancels))


def _too_many(what: str, pending: int, limit: int) -> str:
    return f"the number of {what}, {pending}, has reached the per-workflow limit of {limit}"


def _check_target(
    workflow_id: str,
    run_id: str,
    command: str,
    cause: WorkflowTaskFailedCause.ValueType,
    where: str,
    limits: Limits,
) -> None:
    if not workflow_id:
        raise BadCommand(cause, f"WorkflowId is not set on {command}. {where}")
    if is_too_long(workflow_id, limits):
        raise BadCommand(
            cause,
            f"WorkflowId on {command} exceeds length limit. WorkflowId={workflow_id} "
            f"Length={byte_length(workflow_id)} Limit={limits.id_length} {where}",
        )
    if has_nul(workflow_id):
        raise BadCommand(cause, f"WorkflowId on {command} contains a NUL character.")
    if run_id and not _UUID.fullmatch(run_id):
        raise BadCommand(cause, f"Invalid RunId set on {command}. WorkflowId={workflow_id} {where}")
