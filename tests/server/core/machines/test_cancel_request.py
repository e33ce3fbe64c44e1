"""Requests to cancel a run: told to the workflow once, harmless where there is nothing to cancel."""

from __future__ import annotations

import pytest
from temporalio.api.history.v1 import WorkflowExecutionCancelRequestedEventAttributes

from perdure.server.core.durations import duration_of
from perdure.server.core.errors import NotFound
from tests.server.core.commands import SECOND, continue_as_new
from tests.server.core.stories import idle_story, started_story
from tests.server.core.story import Story


def test_a_request_is_recorded_and_wakes_the_workflow() -> None:
    story = idle_story()
    story.cancel()
    assert story.names()[5:] == ["WorkflowExecutionCancelRequested", "WorkflowTaskScheduled"]
    requested = story.last(WorkflowExecutionCancelRequestedEventAttributes)
    assert (requested.cause, requested.identity) == ("changed my mind", "client")
    assert story.run.is_open


@pytest.mark.parametrize("crashes", [False, True])
def test_asking_again_changes_nothing(crashes: bool) -> None:
    story = idle_story()
    story.cancel()
    if crashes:
        story.crash()
    story.cancel()
    assert not story.last_step.is_dirty
    assert story.names().count("WorkflowExecutionCancelRequested") == 1


def test_asking_again_changes_nothing_while_the_request_is_buffered() -> None:
    story = started_story()
    task = story.poll()
    story.cancel()
    story.cancel()
    story.complete(task)
    assert story.names().count("WorkflowExecutionCancelRequested") == 1


def test_a_closed_run_needs_no_cancelling() -> None:
    story = idle_story()
    story.terminate()
    story.cancel()
    story.cancel(first_run_id="another")
    assert story.names()[-1] == "WorkflowExecutionTerminated"


def test_a_request_does_not_wait_for_the_first_task() -> None:
    story = Story()
    story.start(workflow_start_delay=duration_of(60 * SECOND))
    story.cancel()
    assert story.names()[1:] == ["WorkflowExecutionCancelRequested", "WorkflowTaskScheduled"]
    story.wait(60)
    assert len(story.names()) == 3


def test_a_request_may_name_the_chain_of_runs_it_means() -> None:
    story = started_story()
    first = story.run.run_id
    story.wait(5)
    story.decide(continue_as_new())
    with pytest.raises(NotFound, match="workflow execution not found"):
        story.cancel(first_run_id="another")
    story.cancel(first_run_id=first)
    assert story.run.cancel_requested


def test_the_next_run_of_a_chain_begins_without_the_request() -> None:
    story = idle_story()
    story.cancel()
    story.wait(5)
    story.decide(continue_as_new())
    assert not story.run.cancel_requested
