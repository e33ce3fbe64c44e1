"""How a workflow task reaches a worker, and how a run leaves a sticky queue."""

from __future__ import annotations

import pytest

from perdure.server.core.durations import time_of
from perdure.server.core.effects import WorkflowTaskReady
from perdure.server.core.errors import NotFound
from perdure.server.core.inputs import ResetStickiness, StickyWorkerGone
from perdure.server.core.replies import StaleTask
from tests.server.core.commands import SECOND
from tests.server.core.stories import idle_story, started_story, sticky_story
from tests.server.core.story import NOW, QUEUE, STICKY, token_of


def test_a_worker_is_told_all_about_its_task() -> None:
    story = started_story()
    story.now += 2 * SECOND
    task = story.poll()
    response = task.response
    assert response.workflow_execution.workflow_id == "order-7"
    assert response.workflow_execution.run_id == story.run.run_id
    assert response.workflow_type.name == "Order"
    assert response.workflow_execution_task_queue.name == QUEUE
    assert (response.previous_started_event_id, response.started_event_id, response.attempt) == (0, 3, 1)
    assert time_of(response.scheduled_time) == NOW
    assert time_of(response.started_time) == NOW + 2 * SECOND
    assert (task.history.first_event_id, task.history.end_event_id, len(task.history.virtual)) == (1, 3, 1)
    assert token_of(task).nonce == story.run.task.nonce


def test_a_worker_of_the_normal_queue_gets_the_whole_history() -> None:
    story = sticky_story()
    story.signal()
    task = story.poll()
    assert task.history.first_event_id == 1


def test_a_sticky_poller_gets_no_task_of_another_queue() -> None:
    story = idle_story()
    story.signal()
    with pytest.raises(StaleTask):
        story.poll(sticky_queue=STICKY)


def test_a_closed_run_has_no_task() -> None:
    story = idle_story()
    story.terminate()
    with pytest.raises(StaleTask):
        story.poll()


def test_a_task_leaves_the_queue_of_a_worker_that_has_gone() -> None:
    story = sticky_story()
    story.signal()
    names = story.names()
    story.do(StickyWorkerGone("", STICKY))
    [offer] = story.effects_of(WorkflowTaskReady)
    assert (offer.task_queue, offer.sticky) == (QUEUE, False)
    assert story.names() == names
    story.crash()
    assert story.run.task.task_queue == QUEUE
    story.wait(60)
    assert story.names() == names


def test_the_end_of_another_worker_is_of_no_concern() -> None:
    story = sticky_story()
    story.signal()
    story.do(StickyWorkerGone("", "another-queue"))
    assert not story.last_step.is_dirty
    assert story.run.task.task_queue == STICKY


def test_the_end_of_the_worker_does_not_touch_a_started_task() -> None:
    story = sticky_story()
    story.signal()
    task = story.poll(sticky_queue=STICKY)
    story.do(StickyWorkerGone("", STICKY))
    assert not story.effects_of(WorkflowTaskReady)
    assert story.run.task.is_started
    story.complete(task)


def test_stickiness_is_reset_for_the_next_task() -> None:
    story = sticky_story()
    story.do(ResetStickiness(""))
    story.signal()
    [offer] = story.effects_of(WorkflowTaskReady)
    assert offer.task_queue == QUEUE


def test_a_task_that_waits_in_a_sticky_queue_can_still_leave_it_after_a_reset() -> None:
    story = sticky_story(timeout=0)
    story.signal()
    story.do(ResetStickiness(""))
    assert story.run.task.task_queue == STICKY
    story.do(StickyWorkerGone("", STICKY))
    [offer] = story.effects_of(WorkflowTaskReady)
    assert offer.task_queue == QUEUE


def test_a_closed_run_has_no_stickiness_to_reset() -> None:
    story = sticky_story()
    story.terminate()
    with pytest.raises(NotFound, match="workflow execution already completed"):
        story.do(ResetStickiness(""))


def test_resetting_twice_is_no_transition() -> None:
    story = sticky_story()
    story.do(ResetStickiness(""))
    before = story.run.transition_count
    story.do(ResetStickiness(""))
    assert not story.last_step.is_dirty
    assert story.run.transition_count == before
