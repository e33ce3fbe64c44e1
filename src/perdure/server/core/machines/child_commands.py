"""The command of a workflow to start a child. Nobody else may have its id, not even the parent itself."""

from __future__ import annotations

from typing import Final

from temporalio.api.command.v1 import Command
from temporalio.api.common.v1 import Priority
from temporalio.api.enums.v1 import CommandType
from temporalio.api.history.v1 import StartChildWorkflowExecutionInitiatedEventAttributes

from perdure.server.core import registry
from perdure.server.core.checks import normalize_start_child, too_many_children
from perdure.server.core.command_batch import CommandBatch, metadata_of
from perdure.server.core.machines import child
from perdure.server.core.mail import mail_of, send
from perdure.server.core.messages import StartChildMessage
from perdure.server.core.records import WorkflowKey
from perdure.server.core.run import Run
from perdure.server.core.transition import Transition

_Initiated = StartChildWorkflowExecutionInitiatedEventAttributes

_OPTIONAL: Final = (
    "header",
    "input",
    "workflow_execution_timeout",
    "retry_policy",
    "memo",
    "search_attributes",
    "priority",
)
"""What an event has only where the command has it."""


def _check(batch: CommandBatch, command: Command) -> None:
    attributes = command.start_child_workflow_execution_command_attributes
    attributes.CopyFrom(normalize_start_child(attributes, batch.facts, batch.limits, batch.now))
    outgoing = batch.outgoing
    if outgoing.children >= batch.limits.pending_child_workflows:
        raise too_many_children(outgoing.children, batch.limits)
    outgoing.children += 1
    outgoing.new_children.add(attributes.workflow_id)


def _record(t: Transition, command: Command) -> None:
    run, attributes = t.run, command.start_child_workflow_execution_command_attributes
    initiated = _initiated(run, command)
    event = t.record(initiated, user_metadata=metadata_of(command))
    pending = mail_of(run).children[event.event_id]
    receiver = WorkflowKey(run.key.namespace_id, attributes.workflow_id)
    if receiver == run.key:
        t.record_behind_commands(child.start_failed(t, pending))
        return
    root = run.start.root_workflow_execution if run.start.HasField("root_workflow_execution") else None
    body = StartChildMessage(
        event.event_id,
        initiated.SerializeToString(),
        t.world.namespace.name,
        run.key.workflow_id if root is None else root.workflow_id,
        run.run_id if root is None else root.run_id,
        command.user_metadata.SerializeToString(),
        _priority(run, initiated).SerializeToString(),
    )
    pending.message = send(t, receiver, body)


def _initiated(run: Run, command: Command) -> _Initiated:
    attributes = command.start_child_workflow_execution_command_attributes
    initiated = _Initiated(
        workflow_task_completed_event_id=run.last_task_completed_event_id,
        namespace=attributes.namespace,
        namespace_id=run.key.namespace_id,
        workflow_id=attributes.workflow_id,
        workflow_type=attributes.workflow_type,
        task_queue=attributes.task_queue,
        workflow_run_timeout=attributes.workflow_run_timeout,
        workflow_task_timeout=attributes.workflow_task_timeout,
        control=attributes.control,
        workflow_id_reuse_policy=attributes.workflow_id_reuse_policy,
        cron_schedule=attributes.cron_schedule,
        parent_close_policy=attributes.parent_close_policy,
        inherit_build_id=attributes.inherit_build_id,
    )
    for name in _OPTIONAL:
        if attributes.HasField(name):
            getattr(initiated, name).CopyFrom(getattr(attributes, name))
    return initiated


def _priority(run: Run, initiated: _Initiated) -> Priority:
    """Return the child's priority: what it leaves at 0 or empty is its parent's."""
    priority = Priority()
    priority.CopyFrom(run.start.priority)
    priority.MergeFrom(initiated.priority)
    return priority


registry.command(CommandType.COMMAND_TYPE_START_CHILD_WORKFLOW_EXECUTION, check=_check, record=_record)
