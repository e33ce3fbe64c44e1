"""The workflow entity: which run an input means, what is cut, and what may be forgotten."""

from __future__ import annotations

import pytest

from perdure.server.core.errors import NotFound
from perdure.server.core.inputs import Describe
from perdure.server.core.workflow import Workflow
from tests.server.core.commands import complete_workflow, continue_as_new, schedule_activity
from tests.server.core.stories import idle_story, started_story
from tests.server.core.story import KEY, Story


def chain_story() -> tuple[Story, str]:
    """A workflow that was continued as new, and its first run."""
    story = started_story()
    first = story.run.run_id
    story.wait(5)
    story.decide(continue_as_new())
    return story, first


def test_an_empty_run_id_means_the_current_run() -> None:
    story, first = chain_story()
    assert story.describe().workflow_execution_info.execution.run_id == story.run.run_id
    assert story.describe(first).workflow_execution_info.execution.run_id == first


def test_an_unknown_workflow_is_not_found() -> None:
    with pytest.raises(NotFound, match=r"^workflow not found for ID: order-7$"):
        Story().do(Describe(""))


def test_an_unknown_run_is_not_found() -> None:
    story = started_story()
    with pytest.raises(NotFound, match=r'^workflow execution not found for workflow ID "order-7" and run ID "other"$'):
        story.describe("other")


def test_there_is_one_current_run_at_every_moment() -> None:
    story, first = chain_story()
    assert [run.is_current for run in story.workflow.runs.values()] == [False, True]
    assert story.workflow.has_loaded(first)
    assert not story.workflow.has_loaded("other")
    assert story.workflow.has_loaded("")


def test_many_steps_are_cut_as_one_row() -> None:
    story = Story(cuts=False)
    story.start()
    story.decide(schedule_activity())
    story.complete_activity(story.poll_activity())
    write = story.cut()
    [row] = write.runs
    assert (row.stored_version, row.version, row.transition_count) == (0, 1, 5)
    assert [event.event_id for event in write.events] == list(range(1, 9))
    assert not write.activities
    assert write.activities_removed == [(story.run.run_id, 5)]


def test_a_cut_takes_only_what_changed_since_the_last() -> None:
    story = started_story()
    story.decide(schedule_activity("a"), schedule_activity("b"))
    story.poll_activity("b")
    write = story.writes[-1]
    assert [row.version for row in write.runs] == [story.run.stored_version]
    assert not write.events
    assert [activity.activity_id for activity in write.activities] == ["b"]
    assert not story.cut().runs


def test_old_runs_are_forgotten_when_they_hold_nothing() -> None:
    story, first = chain_story()
    story.forget_old_runs()
    assert list(story.workflow.runs) == [story.run.run_id] != [first]


def test_an_old_run_stays_while_a_query_waits() -> None:
    story, first = chain_story()
    story.query("q1", run_id=first)
    assert story.workflow.holds_undurable_state()
    story.forget_old_runs()
    assert first in story.workflow.runs


def test_what_is_only_in_memory_is_held() -> None:
    story = Story(cuts=False)
    assert not story.workflow.holds_undurable_state()
    story.start()
    assert story.workflow.holds_undurable_state()
    story.cut()
    assert not story.workflow.holds_undurable_state()
    story.poll()
    assert story.workflow.holds_undurable_state()


def test_a_workflow_is_put_together_from_the_runs_that_were_read() -> None:
    story, first = chain_story()
    current = story.run.run_id
    workflow = Workflow(KEY)
    for run in story.workflow.runs.values():
        workflow.add(run)
    assert workflow.current is not None
    assert workflow.current.run_id == current
    assert set(workflow.runs) == {first, current}


def test_a_closed_run_keeps_its_place() -> None:
    story = idle_story()
    story.signal()
    story.decide(complete_workflow())
    assert story.workflow.current is story.run
    story.crash()
    assert not story.run.is_open
    assert story.run.is_current
