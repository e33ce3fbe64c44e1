"""Starts of children: which are refused, and how the workflow task then fails."""

from __future__ import annotations

import pytest
from google.protobuf.duration_pb2 import Duration
from temporalio.api.command.v1 import Command
from temporalio.api.common.v1 import Memo, Payload, Priority, RetryPolicy, SearchAttributes, WorkflowType
from temporalio.api.enums.v1 import WorkflowTaskFailedCause
from temporalio.api.history.v1 import StartChildWorkflowExecutionInitiatedEventAttributes
from temporalio.api.taskqueue.v1 import TaskQueue

from perdure.server.core.durations import duration_of
from tests.server.core.checks.test_external import failure_of, story_in_town
from tests.server.core.commands import SECOND, payload, start_child

_Cause = WorkflowTaskFailedCause
BAD = _Cause.WORKFLOW_TASK_FAILED_CAUSE_BAD_START_CHILD_EXECUTION_ATTRIBUTES
BAD_ATTRIBUTES = _Cause.WORKFLOW_TASK_FAILED_CAUSE_BAD_SEARCH_ATTRIBUTES


def changed(**fields: object) -> Command:
    """The start of a child in which some fields have other values."""
    command = start_child()
    attributes = command.start_child_workflow_execution_command_attributes
    for name in fields:
        attributes.ClearField(name)  # type: ignore[arg-type]  # the field name is data
    attributes.MergeFrom(type(attributes)(**fields))  # type: ignore[arg-type]  # fields are those of the message
    return command


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (changed(workflow_id=""), "Required field WorkflowId is not set"),
        (changed(workflow_type=WorkflowType()), "Required field WorkflowType is not set"),
        (changed(workflow_id="x" * 1001), "WorkflowId on StartChildWorkflowExecutionCommand exceeds length limit"),
        (changed(workflow_type=WorkflowType(name="x" * 1001)), "exceeds length limit"),
        (changed(workflow_id="a\0b"), "NUL"),
        (changed(namespace="elsewhere"), "cross namespace commands are not allowed"),
        (changed(workflow_run_timeout=Duration(seconds=-1)), "Invalid WorkflowRunTimeout"),
        (changed(retry_policy=RetryPolicy(backoff_coefficient=0.5)), "invalid WorkflowRetryPolicy"),
        (changed(cron_schedule="now and then"), "invalid CronSchedule"),
        (changed(priority=Priority(priority_key=-1)), "priority key can't be negative"),
        (changed(task_queue=TaskQueue(name="/_sys/x")), "reserved prefix"),
        (changed(task_queue=TaskQueue(name="temporal-sys-per-ns-tq")), "internal per-namespace task queue"),
        (changed(task_queue=TaskQueue(name="elsewhere"), inherit_build_id=True), "UseCompatibleVersion"),
    ],
)
def test_a_bad_start_fails_the_task(command: Command, message: str) -> None:
    cause, reason = failure_of(command)
    assert cause == BAD
    assert message in reason


@pytest.mark.parametrize("name", ["Taste", "RunId"])
def test_unknown_search_attributes_fail_the_task(name: str) -> None:
    attributes = SearchAttributes(indexed_fields={name: payload("x")})
    assert failure_of(start_child("child", search_attributes=attributes))[0] == BAD_ATTRIBUTES


@pytest.mark.parametrize(
    ("command", "limits"),
    [
        (start_child(), {"blob_size_error": 3}),
        (start_child("child", memo=Memo(fields={"note": payload("x" * 100)})), {"memo_size_error": 50}),
    ],
)
def test_too_large_parts_end_the_run(command: Command, limits: dict[str, int]) -> None:
    story = story_in_town(**limits)
    story.decide(command)
    assert story.names()[-1] == "WorkflowExecutionTerminated"


def test_timeouts_bound_each_other() -> None:
    story = story_in_town()
    command = start_child(
        "child", workflow_execution_timeout=duration_of(7 * SECOND), workflow_run_timeout=duration_of(60 * SECOND)
    )
    story.decide(command)
    initiated = story.last(StartChildWorkflowExecutionInitiatedEventAttributes)
    assert initiated.workflow_run_timeout == duration_of(7 * SECOND)
    assert initiated.workflow_task_timeout == duration_of(7 * SECOND)


def test_removals_are_dropped() -> None:
    nothing = Payload(metadata={"encoding": b"binary/null"})
    story = story_in_town()
    story.decide(
        start_child(
            "child",
            memo=Memo(fields={"note": nothing}),
            search_attributes=SearchAttributes(indexed_fields={"Colour": nothing}),
        )
    )
    initiated = story.last(StartChildWorkflowExecutionInitiatedEventAttributes)
    assert not initiated.HasField("memo")
    assert not initiated.HasField("search_attributes")
