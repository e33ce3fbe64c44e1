"""What holds for commands of every type."""

from __future__ import annotations

import pytest
from temporalio.api.command.v1 import (
    CancelTimerCommandAttributes,
    Command,
    CompleteWorkflowExecutionCommandAttributes,
    StartTimerCommandAttributes,
)
from temporalio.api.enums.v1 import CommandType, WorkflowTaskFailedCause

from perdure.server.core.checks import BadCommand, check_attributes_set, check_command_sequence
from perdure.server.core.errors import InvalidArgument

TIMER = Command(command_type=CommandType.COMMAND_TYPE_START_TIMER)
CLOSING = [
    CommandType.COMMAND_TYPE_COMPLETE_WORKFLOW_EXECUTION,
    CommandType.COMMAND_TYPE_FAIL_WORKFLOW_EXECUTION,
    CommandType.COMMAND_TYPE_CANCEL_WORKFLOW_EXECUTION,
    CommandType.COMMAND_TYPE_CONTINUE_AS_NEW_WORKFLOW_EXECUTION,
]


@pytest.mark.parametrize("closing", CLOSING)
def test_nothing_follows_a_closing_command(closing: CommandType.ValueType) -> None:
    check_command_sequence([TIMER, TIMER, Command(command_type=closing)])
    with pytest.raises(InvalidArgument, match="must be the last command"):
        check_command_sequence([Command(command_type=closing), TIMER])
    with pytest.raises(InvalidArgument, match="must be the last command"):
        check_command_sequence([Command(command_type=closing)] * 2)


def test_a_wrong_sequence_is_told_in_temporals_words() -> None:
    commands = [
        Command(command_type=CommandType.COMMAND_TYPE_COMPLETE_WORKFLOW_EXECUTION),
        Command(command_type=CommandType.COMMAND_TYPE_SCHEDULE_ACTIVITY_TASK),
    ]
    with pytest.raises(InvalidArgument) as refusal:
        check_command_sequence(commands)
    assert refusal.value.message == (
        "invalid command sequence: [CompleteWorkflowExecution, ScheduleActivityTask], "
        "command CompleteWorkflowExecution must be the last command."
    )


@pytest.mark.parametrize(("command_type", "name"), [(0, "Unspecified"), (99, "99")])
def test_an_unknown_command_is_refused(command_type: int, name: str) -> None:
    command = Command()
    command.ParseFromString(b"\x08" + bytes([command_type]))
    with pytest.raises(InvalidArgument, match=f"^unknown command type: {name}$"):
        check_command_sequence([command])


def test_commands_of_every_known_type_may_come_alone() -> None:
    known = [value for value in CommandType.values() if value]
    for command_type in known:
        check_command_sequence([Command(command_type=command_type)])


def test_a_task_without_commands_is_right() -> None:
    check_command_sequence([])


@pytest.mark.parametrize(
    "command",
    [
        Command(command_type=CommandType.COMMAND_TYPE_START_TIMER),
        Command(
            command_type=CommandType.COMMAND_TYPE_START_TIMER,
            cancel_timer_command_attributes=CancelTimerCommandAttributes(timer_id="t"),
        ),
    ],
)
def test_a_command_needs_the_attributes_of_its_type(command: Command) -> None:
    with pytest.raises(BadCommand) as caught:
        check_attributes_set(command)
    assert caught.value.cause == WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_BAD_START_TIMER_ATTRIBUTES
    assert caught.value.message == (
        "BadStartTimerAttributes: StartTimerCommandAttributes is not set on StartTimerCommand."
    )


@pytest.mark.parametrize(
    ("command_type", "message"),
    [
        (
            CommandType.COMMAND_TYPE_SCHEDULE_ACTIVITY_TASK,
            "BadScheduleActivityAttributes: "
            "ScheduleActivityTaskCommandAttributes is not set on ScheduleActivityTaskCommand.",
        ),
        (
            CommandType.COMMAND_TYPE_COMPLETE_WORKFLOW_EXECUTION,
            "BadCompleteWorkflowExecutionAttributes: "
            "CompleteWorkflowExecutionCommandAttributes is not set on CompleteWorkflowExecutionCommand.",
        ),
        (
            CommandType.COMMAND_TYPE_UPSERT_WORKFLOW_SEARCH_ATTRIBUTES,
            "BadSearchAttributes: UpsertWorkflowSearchAttributesCommandAttributes is not set on "
            "UpsertWorkflowSearchAttributesCommand.",
        ),
        (
            CommandType.COMMAND_TYPE_CONTINUE_AS_NEW_WORKFLOW_EXECUTION,
            "BadContinueAsNewAttributes: ContinueAsNewWorkflowExecutionCommandAttributes is not set on "
            "ContinueAsNewWorkflowExecutionCommand.",
        ),
    ],
)
def test_missing_attributes_are_told_in_temporals_words(command_type: CommandType.ValueType, message: str) -> None:
    with pytest.raises(BadCommand) as caught:
        check_attributes_set(Command(command_type=command_type))
    assert caught.value.message == message


def test_empty_attributes_are_attributes() -> None:
    check_attributes_set(
        Command(
            command_type=CommandType.COMMAND_TYPE_COMPLETE_WORKFLOW_EXECUTION,
            complete_workflow_execution_command_attributes=CompleteWorkflowExecutionCommandAttributes(),
        )
    )
    check_attributes_set(
        Command(
            command_type=CommandType.COMMAND_TYPE_START_TIMER,
            start_timer_command_attributes=StartTimerCommandAttributes(),
        )
    )


def test_a_bad_command_without_a_reason_is_told_by_its_cause() -> None:
    bad = BadCommand(WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_UNHANDLED_COMMAND)
    assert bad.message == str(bad) == "UnhandledCommand"
