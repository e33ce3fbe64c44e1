"""A workflow task that ends without decisions: it failed or timed out, and is tried again."""

from __future__ import annotations

import pytest
from temporalio.api.enums.v1 import TimeoutType, WorkflowTaskFailedCause
from temporalio.api.history.v1 import (
    HistoryEvent,
    WorkflowExecutionTerminatedEventAttributes,
    WorkflowTaskFailedEventAttributes,
    WorkflowTaskScheduledEventAttributes,
    WorkflowTaskTimedOutEventAttributes,
)

from perdure.server.core.durations import duration_of, nanos_of
from perdure.server.core.errors import NotFound
from perdure.server.core.machines.workflow_task import State
from tests.server.core.commands import SECOND, complete_workflow
from tests.server.core.stories import STARTED, failing_story, started_story
from tests.server.core.story import Story, name_of

TOO_LARGE = WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_GRPC_MESSAGE_TOO_LARGE
FORCE_CLOSE = WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_FORCE_CLOSE_COMMAND
FAILED = WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_WORKFLOW_WORKER_UNHANDLED_FAILURE


def test_the_first_failure_is_recorded_and_the_task_is_scheduled_silently() -> None:
    story = failing_story()
    assert story.names() == [*STARTED, "WorkflowTaskStarted", "WorkflowTaskFailed"]
    failed = story.last(WorkflowTaskFailedEventAttributes)
    assert (failed.scheduled_event_id, failed.started_event_id, failed.cause) == (2, 3, FAILED)
    assert failed.failure.message == "bug in the workflow"
    assert story.run.task.state is State.SCHEDULED
    assert story.run.task.attempt == 2


@pytest.mark.parametrize("failures", [0, 3])
def test_a_run_whose_worker_cannot_send_its_answer_is_terminated(failures: int) -> None:
    story = failing_story(attempts=failures) if failures else started_story()
    story.fail(story.poll(), cause=TOO_LARGE)
    terminated = story.last(WorkflowExecutionTerminatedEventAttributes)
    assert (terminated.reason, terminated.identity) == ("GrpcMessageTooLarge", "history-service")
    assert not story.run.is_open
    if not failures:
        assert story.last(WorkflowTaskFailedEventAttributes).cause == FORCE_CLOSE


def test_transient_tasks_write_no_events_until_they_complete() -> None:
    story = failing_story(attempts=5)
    assert story.names()[2:] == ["WorkflowTaskStarted", "WorkflowTaskFailed"]
    task = story.poll()
    assert task.response.attempt == 6
    assert [name_of(HistoryEvent.FromString(data)) for data in task.history.virtual] == [
        "WorkflowTaskScheduled",
        "WorkflowTaskStarted",
    ]
    story.complete(task, complete_workflow())
    assert story.names()[4:] == [
        "WorkflowTaskScheduled",
        "WorkflowTaskStarted",
        "WorkflowTaskCompleted",
        "WorkflowExecutionCompleted",
    ]
    assert story.last(WorkflowTaskScheduledEventAttributes).attempt == 6


def test_the_virtual_events_of_a_transient_task_are_those_it_later_writes() -> None:
    story = failing_story(attempts=2)
    task = story.poll()
    story.complete(task, complete_workflow())
    assert [event.SerializeToString() for event in story.history()[4:6]] == task.history.virtual


def test_a_durable_start_of_a_transient_task_writes_no_event_either() -> None:
    story = failing_story()
    story.poll()
    story.signal()
    assert story.run.task.state is State.STARTED
    assert story.names()[-1] == "WorkflowTaskFailed"
    story.crash()
    assert story.run.task.state is State.STARTED


def test_a_transient_task_becomes_a_normal_one_where_something_new_has_come() -> None:
    story = failing_story(attempts=3)
    story.signal()
    task = story.poll()
    assert task.response.attempt == 1
    assert story.names()[4:] == ["WorkflowExecutionSignaled", "WorkflowTaskScheduled", "WorkflowTaskStarted"]


def test_a_transient_task_behind_which_events_waited_is_followed_by_a_normal_one() -> None:
    story = failing_story()
    task = story.poll()
    story.signal()
    story.fail(task)
    assert story.names()[4:] == ["WorkflowExecutionSignaled", "WorkflowTaskScheduled"]
    assert story.run.task.attempt == 1


def test_a_started_task_times_out() -> None:
    story = started_story()
    task = story.poll()
    story.wait(9.9)
    assert story.names() == STARTED
    story.wait(0.1)
    assert story.names()[2:] == ["WorkflowTaskStarted", "WorkflowTaskTimedOut"]
    timed_out = story.last(WorkflowTaskTimedOutEventAttributes)
    assert timed_out.timeout_type == TimeoutType.TIMEOUT_TYPE_START_TO_CLOSE
    assert (timed_out.scheduled_event_id, timed_out.started_event_id) == (2, 3)
    with pytest.raises(NotFound):
        story.complete(task)


def test_a_transient_task_times_out_silently() -> None:
    story = failing_story()
    story.poll()
    story.wait(10)
    assert story.names()[-1] == "WorkflowTaskFailed"
    assert story.run.task.attempt == 3
    assert story.run.task.state is State.SCHEDULED


def test_a_normal_task_waits_for_a_worker_without_end() -> None:
    story = started_story()
    story.wait(365 * 86_400)
    assert story.names() == STARTED


def test_the_timeout_grows_after_the_third_attempt_up_to_ten_minutes_more() -> None:
    story = started_story()
    timeouts = []
    for _ in range(12):
        task = story.poll()
        timeouts.append(story.run.task.timeout // SECOND)
        story.fail(task)
    assert timeouts == [10, 10, 10, 15, 20, 30, 50, 90, 170, 330, 610, 610]


def test_a_run_can_have_its_own_task_timeout() -> None:
    story = Story()
    story.start(workflow_task_timeout=duration_of(3 * SECOND))
    assert nanos_of(story.last(WorkflowTaskScheduledEventAttributes).start_to_close_timeout) == 3 * SECOND
    story.poll()
    story.wait(3)
    assert story.names()[-1] == "WorkflowTaskTimedOut"
