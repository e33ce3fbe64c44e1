"""What holds for commands of every type: which may come together, and that their attributes are there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from temporalio.api.command.v1 import Command
from temporalio.api.enums.v1 import CommandType, WorkflowTaskFailedCause

from perdure.server.core.checks.bad_command import BadCommand
from perdure.server.core.errors import InvalidArgument

CLOSING_COMMANDS: Final = frozenset(
    (
        CommandType.COMMAND_TYPE_COMPLETE_WORKFLOW_EXECUTION,
        CommandType.COMMAND_TYPE_FAIL_WORKFLOW_EXECUTION,
        CommandType.COMMAND_TYPE_CANCEL_WORKFLOW_EXECUTION,
        CommandType.COMMAND_TYPE_CONTINUE_AS_NEW_WORKFLOW_EXECUTION,
    )
)
_CAUSES: Final = {
    CommandType.Value(f"COMMAND_TYPE_{command}"): WorkflowTaskFailedCause.Value(
        f"WORKFLOW_TASK_FAILED_CAUSE_BAD_{cause}"
    )
    for command, cause in (
        ("SCHEDULE_ACTIVITY_TASK", "SCHEDULE_ACTIVITY_ATTRIBUTES"),
        ("REQUEST_CANCEL_ACTIVITY_TASK", "REQUEST_CANCEL_ACTIVITY_ATTRIBUTES"),
        ("START_TIMER", "START_TIMER_ATTRIBUTES"),
        ("CANCEL_TIMER", "CANCEL_TIMER_ATTRIBUTES"),
        ("RECORD_MARKER", "RECORD_MARKER_ATTRIBUTES"),
        ("START_CHILD_WORKFLOW_EXECUTION", "START_CHILD_EXECUTION_ATTRIBUTES"),
        ("SIGNAL_EXTERNAL_WORKFLOW_EXECUTION", "SIGNAL_WORKFLOW_EXECUTION_ATTRIBUTES"),
        ("REQUEST_CANCEL_EXTERNAL_WORKFLOW_EXECUTION", "REQUEST_CANCEL_EXTERNAL_WORKFLOW_EXECUTION_ATTRIBUTES"),
        ("UPSERT_WORKFLOW_SEARCH_ATTRIBUTES", "SEARCH_ATTRIBUTES"),
        ("MODIFY_WORKFLOW_PROPERTIES", "MODIFY_WORKFLOW_PROPERTIES_ATTRIBUTES"),
        ("COMPLETE_WORKFLOW_EXECUTION", "COMPLETE_WORKFLOW_EXECUTION_ATTRIBUTES"),
        ("FAIL_WORKFLOW_EXECUTION", "FAIL_WORKFLOW_EXECUTION_ATTRIBUTES"),
        ("CANCEL_WORKFLOW_EXECUTION", "CANCEL_WORKFLOW_EXECUTION_ATTRIBUTES"),
        ("CONTINUE_AS_NEW_WORKFLOW_EXECUTION", "CONTINUE_AS_NEW_ATTRIBUTES"),
    )
}
_FIELDS: Final = {
    command_type: name.removeprefix("COMMAND_TYPE_").lower() + "_command_attributes"
    for name, command_type in CommandType.items()
}
_KNOWN: Final = frozenset(CommandType.values()) - {CommandType.COMMAND_TYPE_UNSPECIFIED}


def check_command_sequence(commands: Sequence[Command]) -> None:
    """Refuse commands of an unknown type, and commands after one that closes the run.

    Such an answer says that the worker speaks another protocol: it is refused as a whole, and the task stays started.

    Raises:
        InvalidArgument: With the names of the commands.
    """
    closing: CommandType.ValueType | None = None
    for command in commands:
        command_type = command.command_type
        if closing is not None:
            names = ", ".join(_name(each.command_type) for each in commands)
            raise InvalidArgument(
                f"invalid command sequence: [{names}], command {_name(closing)} must be the last command."
            )
        if command_type not in _KNOWN:
            raise InvalidArgument(f"unknown command type: {_name(command_type)}")
        if command_type in CLOSING_COMMANDS:
            closing = command_type


def check_attributes_set(command: Command) -> None:
    """Refuse a command that carries no attributes, or those of another type. Raises BadCommand."""
    command_type = command.command_type
    cause = _CAUSES.get(command_type)
    if cause is None:
        return
    if command.WhichOneof("attributes") != _FIELDS[command_type]:
        name = _name(command_type)
        raise BadCommand(cause, f"{name}CommandAttributes is not set on {name}Command.")


def _name(command_type: CommandType.ValueType) -> str:
    try:
        words = CommandType.Name(command_type).removeprefix("COMMAND_TYPE_").split("_")
    except ValueError:
        return str(command_type)
    return "".join(word.capitalize() for word in words)
