"""Signals and cancel requests to other workflows: which are refused, and how the workflow task then fails."""

from __future__ import annotations

import pytest
from temporalio.api.command.v1 import Command
from temporalio.api.enums.v1 import WorkflowTaskFailedCause
from temporalio.api.history.v1 import WorkflowTaskFailedEventAttributes

from tests.server.core.commands import cancel_external, signal_external, start_child
from tests.server.core.story import Story
from tests.server.core.town import Town

_Cause = WorkflowTaskFailedCause
BAD_SIGNAL = _Cause.WORKFLOW_TASK_FAILED_CAUSE_BAD_SIGNAL_WORKFLOW_EXECUTION_ATTRIBUTES
BAD_CANCEL = _Cause.WORKFLOW_TASK_FAILED_CAUSE_BAD_REQUEST_CANCEL_EXTERNAL_WORKFLOW_EXECUTION_ATTRIBUTES
MANY_SIGNALS = _Cause.WORKFLOW_TASK_FAILED_CAUSE_PENDING_SIGNALS_LIMIT_EXCEEDED
MANY_CANCELS = _Cause.WORKFLOW_TASK_FAILED_CAUSE_PENDING_REQUEST_CANCEL_LIMIT_EXCEEDED
MANY_CHILDREN = _Cause.WORKFLOW_TASK_FAILED_CAUSE_PENDING_CHILD_WORKFLOWS_LIMIT_EXCEEDED


def failure_of(*commands: Command, **limits: int) -> tuple[int, str]:
    """Return the cause and the message with which a workflow task fails that has these commands."""
    story = story_in_town(**limits)
    story.decide(*commands)
    failed = story.last(WorkflowTaskFailedEventAttributes)
    assert story.rows.outbox() == []
    return failed.cause, failed.failure.message


def story_in_town(**limits: int) -> Story:
    """Return a run under these limits that was just started."""
    story = Town()["me"]
    story.limits = story.limits.__class__(**limits)
    story.start()
    return story


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (signal_external(""), "WorkflowId is not set"),
        (signal_external(name=""), "SignalName is not set"),
        (signal_external(run_id="7"), "Invalid RunId set"),
        (signal_external(namespace="elsewhere"), "cross namespace commands are not allowed"),
        (signal_external("x" * 1001), "exceeds length limit"),
        (signal_external("a\0b"), "NUL"),
    ],
)
def test_a_bad_signal_fails_the_task(command: Command, message: str) -> None:
    cause, reason = failure_of(command)
    assert cause == BAD_SIGNAL
    assert message in reason


def test_a_signal_names_a_run_of_some_workflow() -> None:
    command = signal_external()
    command.signal_external_workflow_execution_command_attributes.ClearField("execution")
    assert failure_of(command)[0] == BAD_SIGNAL


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (cancel_external(""), "WorkflowId is not set"),
        (cancel_external(run_id="7"), "Invalid RunId set"),
        (cancel_external(namespace="elsewhere"), "cross namespace commands are not allowed"),
        (cancel_external("x" * 1001), "exceeds length limit"),
    ],
)
def test_a_bad_cancel_request_fails_the_task(command: Command, message: str) -> None:
    cause, reason = failure_of(command)
    assert cause == BAD_CANCEL
    assert message in reason


def test_ones_own_namespace_may_be_named() -> None:
    story = story_in_town()
    story.decide(signal_external(namespace="default"), cancel_external(namespace="default"))
    assert len(story.rows.outbox()) == 2


def test_too_much_input_ends_the_run() -> None:
    story = story_in_town(blob_size_error=1_000)
    story.decide(signal_external(size=2_000))
    assert story.names()[-1] == "WorkflowExecutionTerminated"


@pytest.mark.parametrize(
    ("command", "limit", "cause"),
    [
        (signal_external(), "pending_external_signals", MANY_SIGNALS),
        (cancel_external(), "pending_external_cancels", MANY_CANCELS),
        (start_child(), "pending_child_workflows", MANY_CHILDREN),
    ],
)
def test_what_is_pending_is_limited_together_with_what_is_new(command: Command, limit: str, cause: int) -> None:
    assert failure_of(command, command, command, **{limit: 2})[0] == cause
    story = story_in_town(**{limit: 2})
    story.decide(command)
    story.signal()
    story.decide(command, command)
    failed = story.last(WorkflowTaskFailedEventAttributes)
    assert failed.cause == cause
    assert "2, has reached the per-workflow limit of 2" in failed.failure.message
