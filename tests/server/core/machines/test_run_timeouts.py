"""The timeouts of a whole run and of its chain of runs."""

from __future__ import annotations

import pytest
from temporalio.api.enums.v1 import RetryState, WorkflowExecutionStatus
from temporalio.api.history.v1 import (
    WorkflowExecutionStartedEventAttributes,
    WorkflowExecutionTimedOutEventAttributes,
)

from perdure.server.core.durations import duration_of, time_of
from tests.server.core.commands import SECOND, retry_policy, start_timer
from tests.server.core.story import NOW, Story

TIMED_OUT = WorkflowExecutionStatus.WORKFLOW_EXECUTION_STATUS_TIMED_OUT
MINUTE = 60 * SECOND


def started(story: Story) -> WorkflowExecutionStartedEventAttributes:
    return story.last(WorkflowExecutionStartedEventAttributes)


def test_a_run_times_out() -> None:
    story = Story()
    story.start(workflow_run_timeout=duration_of(30 * SECOND))
    story.decide(start_timer("t", 60))
    story.wait(30)
    assert story.names()[5:] == ["WorkflowExecutionTimedOut"]
    attributes = story.last(WorkflowExecutionTimedOutEventAttributes)
    assert attributes.retry_state == RetryState.RETRY_STATE_RETRY_POLICY_NOT_SET
    assert not attributes.new_execution_run_id
    assert story.run.closed_at == NOW + 30 * SECOND
    assert not story.run.timers


def test_a_run_that_times_out_fails_its_started_task_first() -> None:
    story = Story()
    story.start(workflow_run_timeout=duration_of(5 * SECOND))
    story.poll()
    story.signal()
    story.wait(5)
    assert story.names()[2:] == [
        "WorkflowTaskStarted",
        "WorkflowTaskFailed",
        "WorkflowExecutionSignaled",
        "WorkflowExecutionTimedOut",
    ]


def test_a_run_that_times_out_is_retried() -> None:
    story = Story()
    first = story.start(workflow_run_timeout=duration_of(5 * SECOND), retry_policy=retry_policy()).run_id
    story.wait(5)
    attributes = story.last(WorkflowExecutionTimedOutEventAttributes, first)
    assert attributes.retry_state == RetryState.RETRY_STATE_IN_PROGRESS
    assert attributes.new_execution_run_id == story.run.run_id != first
    assert started(story).continued_failure.message == "workflow timeout"


def test_the_execution_timeout_spans_all_runs_and_is_not_retried() -> None:
    story = Story()
    timeouts = {
        "workflow_run_timeout": duration_of(10 * SECOND),
        "workflow_execution_timeout": duration_of(25 * SECOND),
    }
    story.start(retry_policy=retry_policy(initial=2, coefficient=1), **timeouts)
    assert time_of(started(story).workflow_execution_expiration_time) == NOW + 25 * SECOND
    story.wait(12)
    assert started(story).attempt == 2
    assert time_of(started(story).workflow_execution_expiration_time) == NOW + 25 * SECOND
    story.wait(12)
    assert started(story).attempt == 3
    story.wait(1)
    assert started(story).attempt == 3
    assert story.run.status == TIMED_OUT
    assert story.run.closed_at == NOW + 25 * SECOND
    attributes = story.last(WorkflowExecutionTimedOutEventAttributes)
    assert attributes.retry_state == RetryState.RETRY_STATE_TIMEOUT


def test_the_execution_timeout_counts_from_the_start_and_the_run_timeout_from_the_first_task() -> None:
    story = Story()
    story.start(
        workflow_start_delay=duration_of(10 * SECOND),
        workflow_run_timeout=duration_of(12 * SECOND),
        workflow_execution_timeout=duration_of(25 * SECOND),
    )
    extended = story.describe().workflow_extended_info
    assert time_of(extended.run_expiration_time) == NOW + 22 * SECOND
    assert time_of(extended.execution_expiration_time) == NOW + 25 * SECOND


@pytest.mark.parametrize("crashes", [False, True])
def test_timeouts_hold_whether_or_not_the_process_lives(crashes: bool) -> None:
    story = Story()
    story.start(workflow_execution_timeout=duration_of(25 * SECOND))
    if crashes:
        story.crash()
    story.wait(25)
    assert story.run.status == TIMED_OUT
