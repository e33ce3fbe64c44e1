"""The workflow task: in which queue it waits, and for how long."""

from __future__ import annotations

from temporalio.api.enums.v1 import TaskQueueKind, TimeoutType
from temporalio.api.history.v1 import (
    WorkflowTaskScheduledEventAttributes,
    WorkflowTaskTimedOutEventAttributes,
)

from perdure.server.core.effects import WorkflowTaskReady
from tests.server.core.stories import sticky_story
from tests.server.core.story import QUEUE, STICKY


def test_the_next_task_goes_to_the_sticky_queue() -> None:
    story = sticky_story()
    story.signal()
    [offer] = story.effects_of(WorkflowTaskReady)
    assert (offer.task_queue, offer.sticky) == (STICKY, True)
    queue = story.last(WorkflowTaskScheduledEventAttributes).task_queue
    assert (queue.name, queue.kind, queue.normal_name) == (STICKY, TaskQueueKind.TASK_QUEUE_KIND_STICKY, QUEUE)


def test_a_sticky_poll_is_answered_with_the_new_events_only() -> None:
    story = sticky_story()
    story.signal()
    task = story.poll(sticky_queue=STICKY)
    assert task.history.first_event_id == 4
    assert task.response.previous_started_event_id == 3


def test_a_sticky_task_that_nobody_fetches_goes_to_the_normal_queue() -> None:
    story = sticky_story()
    story.signal()
    story.wait(5)
    assert story.names()[-2:] == ["WorkflowTaskTimedOut", "WorkflowTaskScheduled"]
    timed_out = story.last(WorkflowTaskTimedOutEventAttributes)
    assert timed_out.timeout_type == TimeoutType.TIMEOUT_TYPE_SCHEDULE_TO_START
    assert timed_out.started_event_id == 0
    [offer] = story.effects_of(WorkflowTaskReady)
    assert (offer.task_queue, offer.sticky) == (QUEUE, False)
    assert story.run.task.attempt == 1


def test_a_failed_task_ends_the_stickiness() -> None:
    story = sticky_story()
    story.signal()
    story.fail(story.poll(sticky_queue=STICKY))
    [offer] = story.effects_of(WorkflowTaskReady)
    assert offer.task_queue == QUEUE


def test_a_completion_without_sticky_attributes_ends_the_stickiness() -> None:
    story = sticky_story()
    story.signal()
    story.complete(story.poll(sticky_queue=STICKY))
    story.signal()
    [offer] = story.effects_of(WorkflowTaskReady)
    assert offer.task_queue == QUEUE


def test_stickiness_survives_a_crash() -> None:
    story = sticky_story()
    story.crash()
    story.signal()
    [offer] = story.effects_of(WorkflowTaskReady)
    assert offer.task_queue == STICKY
