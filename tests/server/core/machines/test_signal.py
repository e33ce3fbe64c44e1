"""Signals: recorded once for each request id, and told to the workflow."""

from __future__ import annotations

import pytest
from temporalio.api.enums.v1 import ResourceExhaustedCause
from temporalio.api.errordetails.v1 import ResourceExhaustedFailure
from temporalio.api.history.v1 import WorkflowExecutionSignaledEventAttributes

from perdure.server.core.effects import WorkflowTaskReady
from perdure.server.core.errors import InvalidArgument, NotFound, ResourceExhausted
from tests.server.core.commands import complete_workflow, payloads
from tests.server.core.stories import idle_story, started_story
from tests.server.core.story import Story


def test_a_signal_is_recorded_and_wakes_the_workflow() -> None:
    story = idle_story()
    story.signal("paid")
    assert story.names()[5:] == ["WorkflowExecutionSignaled", "WorkflowTaskScheduled"]
    signaled = story.last(WorkflowExecutionSignaledEventAttributes)
    assert (signaled.signal_name, signaled.identity) == ("paid", "client")
    assert signaled.input == payloads("card")
    assert story.effects_of(WorkflowTaskReady)


def test_signals_before_the_next_task_wake_the_workflow_once() -> None:
    story = idle_story()
    story.signal()
    story.signal()
    assert story.names()[5:] == ["WorkflowExecutionSignaled", "WorkflowTaskScheduled", "WorkflowExecutionSignaled"]


@pytest.mark.parametrize("crashes", [False, True])
def test_a_repeated_request_id_does_nothing(crashes: bool) -> None:
    story = idle_story()
    story.signal(request_id="once")
    before = story.run.transition_count
    if crashes:
        story.crash()
    story.signal(request_id="once")
    assert story.names().count("WorkflowExecutionSignaled") == 1
    assert story.run.transition_count == before


def test_a_repeated_request_id_is_known_while_its_signal_is_buffered() -> None:
    story = started_story()
    task = story.poll()
    story.signal(request_id="once")
    story.crash()
    story.signal(request_id="once")
    story.complete(task)
    assert story.names().count("WorkflowExecutionSignaled") == 1


@pytest.mark.parametrize("crashes", [False, True])
def test_a_repeated_request_id_is_known_after_the_run_closed(crashes: bool) -> None:
    story = idle_story()
    story.signal(request_id="once")
    story.terminate()
    if crashes:
        story.crash()
    story.signal(request_id="once")
    with pytest.raises(NotFound, match="workflow execution already completed"):
        story.signal(request_id="another")


def test_a_request_id_that_came_in_the_last_batch_of_a_run_is_known_too() -> None:
    story = Story(cuts=False)
    story.start()
    story.signal(request_id="once")
    story.terminate()
    story.cut()
    story.crash()
    story.signal(request_id="once")


def test_signals_without_a_request_id_are_all_different() -> None:
    story = idle_story()
    story.signal()
    story.signal()
    assert story.run.signal_count == 2


def test_a_closed_run_takes_no_signals() -> None:
    story = idle_story()
    story.terminate()
    with pytest.raises(NotFound, match="workflow execution already completed"):
        story.signal()


def test_a_run_takes_so_many_signals() -> None:
    story = started_story(signals_per_execution=2)
    story.signal()
    story.signal()
    with pytest.raises(InvalidArgument, match=r"limit for signal events \(2\)"):
        story.signal(request_id="third")
    story.crash()
    with pytest.raises(InvalidArgument):
        story.signal(request_id="third")


def closing_story() -> Story:
    """A run that would have closed but for a signal; its next task is scheduled."""
    story = started_story()
    task = story.poll()
    story.signal("too early for the end")
    assert story.complete(task, complete_workflow()).refusal is not None
    return story


def test_a_run_that_tries_to_close_takes_no_signal_until_it_is_decided() -> None:
    story = closing_story()
    task = story.poll()
    with pytest.raises(ResourceExhausted, match="workflow is closing") as refused:
        story.signal("one more")
    assert isinstance(refused.value.detail, ResourceExhaustedFailure)
    assert refused.value.detail.cause == ResourceExhaustedCause.RESOURCE_EXHAUSTED_CAUSE_BUSY_WORKFLOW
    story.complete(task, complete_workflow())
    assert not story.run.is_open


def test_a_run_that_thinks_better_of_closing_takes_signals_again() -> None:
    story = closing_story()
    task = story.poll()
    story.complete(task)
    story.signal("one more")
    assert story.names()[-2:] == ["WorkflowExecutionSignaled", "WorkflowTaskScheduled"]


@pytest.mark.parametrize("how", ["failed", "timed out", "not started"])
def test_signals_are_taken_where_nobody_is_deciding(how: str) -> None:
    story = closing_story()
    if how == "failed":
        story.fail(story.poll())
        story.poll()
    elif how == "timed out":
        story.poll()
        story.wait(60)
        story.poll()
    story.signal("one more")
