"""The start of a workflow task: held in memory, written when it first matters, and taken back."""

from __future__ import annotations

import pytest
from temporalio.api.common.v1 import WorkerVersionStamp
from temporalio.api.history.v1 import (
    HistoryEvent,
    WorkflowTaskStartedEventAttributes,
)

from perdure.server.core.effects import WorkflowTaskReady
from perdure.server.core.errors import NotFound
from perdure.server.core.machines.workflow_task import State
from perdure.server.core.replies import StaleTask
from tests.server.core.commands import complete_workflow, schedule_activity, start_timer
from tests.server.core.stories import STARTED, failing_story, started_story, sticky_story
from tests.server.core.story import QUEUE, STICKY, token_of

# --- the start, held in memory and then durable ----------------------------------------------------------------------


def test_a_start_is_held_in_memory_and_writes_nothing() -> None:
    story = started_story()
    rows = story.rows_of()
    story.poll()
    assert story.run.task.state is State.HELD
    assert story.names() == STARTED
    assert story.rows_of() == rows


def test_a_held_start_that_is_lost_with_the_process_leaves_the_task_ready() -> None:
    story = started_story()
    lost = story.poll()
    story.crash()
    assert story.run.task.state is State.SCHEDULED
    with pytest.raises(NotFound, match=r"^Workflow task not found\.$"):
        story.complete(lost)
    story.complete(story.poll(), complete_workflow())
    assert not story.run.is_open


def test_the_first_change_behind_a_held_start_makes_it_durable() -> None:
    story = started_story()
    task = story.poll()
    story.signal()
    assert story.names() == [*STARTED, "WorkflowTaskStarted"]
    story.crash()
    assert story.run.task.state is State.STARTED
    story.complete(task, start_timer())
    assert story.names()[3:] == [
        "WorkflowTaskCompleted",
        "TimerStarted",
        "WorkflowExecutionSignaled",
        "WorkflowTaskScheduled",
    ]


def test_a_start_counts_as_a_transition_once_it_is_written() -> None:
    story = started_story()
    story.poll()
    assert story.run.transition_count == 1
    story.signal()
    assert story.run.transition_count == 3


def test_a_durable_start_times_out_after_a_crash() -> None:
    story = started_story()
    story.poll()
    story.signal()
    story.crash()
    story.wait(10)
    assert story.names()[3:] == ["WorkflowTaskTimedOut", "WorkflowExecutionSignaled", "WorkflowTaskScheduled"]


def test_the_started_event_tells_what_the_workflow_is_told() -> None:
    story = started_story()
    task = story.poll()
    virtual = HistoryEvent.FromString(task.history.virtual[0])
    story.complete(task, complete_workflow())
    written = story.history()[2]
    assert written == virtual
    assert written.event_id == task.response.started_event_id == 3
    attributes = story.last(WorkflowTaskStartedEventAttributes)
    assert attributes.identity == "worker"
    assert attributes.request_id == "poll-request"
    assert attributes.history_size_bytes == sum(event.ByteSize() for event in story.history()[:2])


def test_an_answer_must_match_the_start_exactly() -> None:
    story = started_story()
    stale = story.poll()
    story.take_back(stale)
    story.poll()
    with pytest.raises(NotFound, match=r"^Workflow task not found\.$"):
        story.complete(stale)


def test_a_task_can_be_started_once() -> None:
    story = started_story()
    story.poll()
    with pytest.raises(StaleTask):
        story.poll()


# --- taking a start back ---------------------------------------------------------------------------------------------


def test_a_held_start_is_taken_back_without_a_trace() -> None:
    story = started_story()
    rows = story.rows_of()
    story.take_back(story.poll())
    assert story.run.task.state is State.SCHEDULED
    assert story.rows_of() == rows
    [offer] = story.effects_of(WorkflowTaskReady)
    assert offer.task_queue == QUEUE


def test_a_durable_start_that_is_taken_back_has_timed_out_only_sooner() -> None:
    story = started_story()
    task = story.poll()
    story.signal()
    story.take_back(task)
    assert story.names()[2:] == [
        "WorkflowTaskStarted",
        "WorkflowTaskTimedOut",
        "WorkflowExecutionSignaled",
        "WorkflowTaskScheduled",
    ]


def test_a_sticky_task_that_was_taken_back_still_times_out_of_its_queue() -> None:
    story = sticky_story()
    story.signal()
    task = story.poll(sticky_queue=STICKY)
    story.ring()
    story.take_back(task)
    story.wait(5)
    assert story.names()[-2:] == ["WorkflowTaskTimedOut", "WorkflowTaskScheduled"]


# --- what a task suggests, and by whom -------------------------------------------------------------------------------


def test_a_long_history_suggests_to_continue_as_new() -> None:
    story = started_story(history_count_suggest_continue_as_new=2, history_size_suggest_continue_as_new=1 << 40)
    story.decide(schedule_activity())
    attributes = story.last(WorkflowTaskStartedEventAttributes)
    assert attributes.suggest_continue_as_new
    assert list(attributes.suggest_continue_as_new_reasons) == [2]


def test_a_large_history_suggests_to_continue_as_new() -> None:
    story = started_story(history_size_suggest_continue_as_new=10)
    story.decide(schedule_activity())
    assert list(story.last(WorkflowTaskStartedEventAttributes).suggest_continue_as_new_reasons) == [1]


def test_a_short_history_suggests_nothing() -> None:
    story = started_story()
    story.decide(schedule_activity())
    assert not story.last(WorkflowTaskStartedEventAttributes).suggest_continue_as_new


def test_the_build_id_of_the_last_worker_is_kept() -> None:
    story = started_story()
    story.decide(start_timer(), worker_version_stamp=WorkerVersionStamp(build_id="1.2"))
    assert story.run.build_id == "1.2"
    story.crash()
    assert story.run.build_id == "1.2"


def test_a_token_says_which_start_it_is_for() -> None:
    story = failing_story()
    token = token_of(story.poll())
    assert (token.run_id, token.scheduled_event_id, token.started_event_id, token.attempt) == (
        story.run.run_id,
        5,
        6,
        2,
    )
