"""Limits on what a run may become: it is ended, or its workflow task is, when it passes them."""

from __future__ import annotations

from temporalio.api.history.v1 import WorkflowExecutionTerminatedEventAttributes, WorkflowTaskFailedEventAttributes

from perdure.server.core.effects import HistoryGrowsLarge, QueryAnswered, WorkflowTaskReady
from tests.server.core.commands import record_marker
from tests.server.core.stories import started_story


def test_a_run_whose_history_is_too_long_is_terminated() -> None:
    story = started_story(history_count_error=6)
    story.decide(record_marker(), record_marker())
    assert story.run.is_open
    story.signal()
    assert story.names()[-1] == "WorkflowExecutionTerminated"
    terminated = story.last(WorkflowExecutionTerminatedEventAttributes)
    assert (terminated.reason, terminated.identity) == ("Workflow history count exceeds limit.", "history-service")
    assert not story.effects_of(WorkflowTaskReady) or not story.run.task.is_pending


def test_a_run_whose_history_is_too_large_is_terminated() -> None:
    story = started_story(history_size_error=1_000)
    story.decide(*(record_marker("x" * 200) for _ in range(5)))
    terminated = story.last(WorkflowExecutionTerminatedEventAttributes)
    assert terminated.reason == "Workflow history size exceeds limit."


def test_operators_hear_once_that_a_history_grows_large() -> None:
    story = started_story(history_count_warn=4)
    told: list[HistoryGrowsLarge] = []
    for _ in range(5):
        story.signal()
        told += story.effects_of(HistoryGrowsLarge)
    [grows] = told
    assert (grows.run_id, grows.events) == (story.run.run_id, 5)


def test_queries_of_a_run_that_is_ended_are_told() -> None:
    story = started_story(history_count_error=3)
    story.query()
    story.signal()
    story.signal()
    assert not story.run.is_open
    [answered] = story.effects_of(QueryAnswered)
    assert answered.query_id == "q1"


def test_a_workflow_task_behind_which_too_many_events_wait_is_failed() -> None:
    story = started_story(buffered_events_count=2)
    story.poll()
    story.signal()
    story.signal()
    assert story.names()[-1] == "WorkflowTaskStarted"
    story.signal()
    assert story.names()[3:] == ["WorkflowTaskFailed", *["WorkflowExecutionSignaled"] * 3, "WorkflowTaskScheduled"]
    assert story.last(WorkflowTaskFailedEventAttributes).identity == "history-service"
    assert story.effects_of(WorkflowTaskReady)


def test_a_workflow_task_behind_which_too_large_events_wait_is_failed() -> None:
    story = started_story(buffered_events_size=100)
    story.poll()
    story.signal("x" * 200)
    assert story.names()[3:] == ["WorkflowTaskFailed", "WorkflowExecutionSignaled", "WorkflowTaskScheduled"]
