"""What clients are told of a run: only what is durable, and what waits for what."""

from __future__ import annotations

from temporalio.api.common.v1 import Memo, Priority
from temporalio.api.enums.v1 import EventType, PendingActivityState, PendingWorkflowTaskState, WorkflowExecutionStatus
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.sdk.v1 import UserMetadata
from temporalio.api.workflow.v1 import PendingActivityInfo

from perdure.server.core.durations import duration_of, nanos_of, time_of
from perdure.server.core.inputs import Locate
from perdure.server.core.replies import RunPosition
from tests.server.core.commands import (
    SECOND,
    application_failure,
    cancel_activity,
    complete_workflow,
    payload,
    payloads,
    retry_policy,
    schedule_activity,
)
from tests.server.core.stories import failing_story, idle_story, started_story
from tests.server.core.story import NOW, Story, name_of

_Activity = PendingActivityState
_Task = PendingWorkflowTaskState


def locate(story: Story) -> RunPosition:
    position = story.do(Locate(""))
    assert isinstance(position, RunPosition)
    return position


def described_activity(story: Story) -> PendingActivityInfo:
    [pending] = story.describe().pending_activities
    return pending


# --- the run ----------------------------------------------------------------------------------------------------------


def test_a_description_of_an_open_run() -> None:
    story = Story()
    story.start(
        workflow_execution_timeout=duration_of(900 * SECOND),
        workflow_run_timeout=duration_of(90 * SECOND),
        memo=Memo(fields={"note": payload("urgent")}),
        priority=Priority(priority_key=2),
        user_metadata=UserMetadata(summary=payload("an order")),
    )
    told = story.describe()
    info = told.workflow_execution_info
    assert info.execution.workflow_id == "order-7"
    assert info.execution.run_id == info.first_run_id == info.root_execution.run_id == story.run.run_id
    assert info.type.name == "Order"
    assert info.status == WorkflowExecutionStatus.WORKFLOW_EXECUTION_STATUS_RUNNING
    assert time_of(info.start_time) == time_of(info.execution_time) == NOW
    assert not info.HasField("close_time")
    assert info.history_length == 2
    assert info.history_size_bytes == sum(event.ByteSize() for event in story.history())
    assert info.state_transition_count == 1
    assert info.memo.fields["note"] == payload("urgent")
    assert info.priority.priority_key == 2
    config = told.execution_config
    assert config.task_queue.name == info.task_queue == "orders"
    assert nanos_of(config.workflow_execution_timeout) == 900 * SECOND
    assert nanos_of(config.workflow_run_timeout) == 90 * SECOND
    assert nanos_of(config.default_workflow_task_timeout) == 10 * SECOND
    assert config.user_metadata.summary == payload("an order")
    extended = told.workflow_extended_info
    assert time_of(extended.execution_expiration_time) == NOW + 900 * SECOND
    assert time_of(extended.run_expiration_time) == NOW + 90 * SECOND
    assert not extended.cancel_requested


def test_a_run_without_timeouts_tells_none() -> None:
    config = started_story().describe().execution_config
    assert not config.HasField("workflow_execution_timeout")
    assert not config.HasField("workflow_run_timeout")


def test_the_request_that_started_a_run_is_told() -> None:
    story = Story()
    story.start(request_id="first-request")
    [(request_id, info)] = story.describe().workflow_extended_info.request_id_infos.items()
    assert (request_id, info.event_id, info.buffered) == ("first-request", 1, False)
    assert info.event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED


def test_a_description_of_a_closed_run() -> None:
    story = Story()
    story.start(workflow_start_delay=duration_of(10 * SECOND))
    story.wait(13)
    story.decide(schedule_activity(), complete_workflow())
    told = story.describe()
    info = told.workflow_execution_info
    assert info.status == WorkflowExecutionStatus.WORKFLOW_EXECUTION_STATUS_COMPLETED
    assert time_of(info.execution_time) == NOW + 10 * SECOND
    assert time_of(info.close_time) == NOW + 13 * SECOND
    assert nanos_of(info.execution_duration) == 3 * SECOND
    assert not told.pending_activities
    assert not told.HasField("pending_workflow_task")


def test_a_cancel_request_is_told() -> None:
    story = idle_story()
    story.cancel()
    assert story.describe().workflow_extended_info.cancel_requested


def test_a_description_changes_nothing() -> None:
    story = idle_story()
    rows = story.rows_of()
    story.describe()
    assert not story.last_step.is_dirty
    assert not story.effects
    assert story.rows_of() == rows


# --- the workflow task ------------------------------------------------------------------------------------------------


def test_the_pending_workflow_task() -> None:
    story = started_story()
    story.now += SECOND
    pending = story.describe().pending_workflow_task
    assert pending.state == _Task.PENDING_WORKFLOW_TASK_STATE_SCHEDULED
    assert time_of(pending.scheduled_time) == time_of(pending.original_scheduled_time) == NOW
    assert not pending.HasField("started_time")
    story.poll()
    pending = story.describe().pending_workflow_task
    assert pending.state == _Task.PENDING_WORKFLOW_TASK_STATE_STARTED
    assert time_of(pending.started_time) == NOW + SECOND
    assert pending.attempt == 1


def test_a_task_that_fails_tells_its_attempt() -> None:
    story = started_story()
    story.fail(story.poll())
    story.fail(story.poll())
    assert story.describe().pending_workflow_task.attempt == 3


def test_a_run_that_waits_has_no_workflow_task() -> None:
    assert not idle_story().describe().HasField("pending_workflow_task")


# --- activities -------------------------------------------------------------------------------------------------------


def test_an_activity_that_waits_for_a_worker() -> None:
    story = started_story()
    story.decide(schedule_activity(to_close=600, retry=retry_policy(attempts=3)))
    pending = described_activity(story)
    assert pending.activity_id == "a"
    assert pending.activity_type.name == "Pay"
    assert pending.state == _Activity.PENDING_ACTIVITY_STATE_SCHEDULED
    assert time_of(pending.scheduled_time) == NOW
    assert time_of(pending.expiration_time) == NOW + 600 * SECOND
    assert (pending.attempt, pending.maximum_attempts) == (1, 3)
    assert not pending.HasField("last_started_time")
    assert not pending.HasField("priority")


def test_an_activity_that_a_worker_has() -> None:
    story = started_story()
    story.decide(schedule_activity())
    story.now += 2 * SECOND
    task = story.poll_activity()
    story.now += 3 * SECOND
    story.heartbeat(task, "half")
    pending = described_activity(story)
    assert pending.state == _Activity.PENDING_ACTIVITY_STATE_STARTED
    assert pending.last_worker_identity == "worker"
    assert time_of(pending.last_started_time) == NOW + 2 * SECOND
    assert time_of(pending.last_heartbeat_time) == NOW + 5 * SECOND
    assert pending.heartbeat_details == payloads("half")


def test_an_activity_that_another_worker_heartbeats_for() -> None:
    story = started_story()
    story.decide(schedule_activity())
    task = story.poll_activity()
    story.heartbeat(task, identity="")
    assert described_activity(story).last_worker_identity == "worker"
    story.heartbeat(task, identity="its helper")
    assert described_activity(story).last_worker_identity == "its helper"
    story.fail_activity(task, application_failure())
    assert described_activity(story).last_worker_identity == "its helper"


def test_an_activity_between_two_attempts() -> None:
    story = started_story()
    story.decide(schedule_activity())
    task = story.poll_activity()
    story.now += 2 * SECOND
    story.fail_activity(task, application_failure())
    pending = described_activity(story)
    assert pending.state == _Activity.PENDING_ACTIVITY_STATE_SCHEDULED
    assert pending.attempt == 2
    assert pending.last_failure.message == "boom"
    assert time_of(pending.last_attempt_complete_time) == NOW + 2 * SECOND
    assert time_of(pending.next_attempt_schedule_time) == NOW + 3 * SECOND
    assert nanos_of(pending.current_retry_interval) == SECOND
    assert pending.last_worker_identity == "worker"


def test_an_attempt_that_may_start_tells_the_backoff_that_would_follow_it() -> None:
    story = started_story()
    story.decide(schedule_activity(retry=retry_policy(initial=3, maximum=4)))
    assert nanos_of(described_activity(story).current_retry_interval) == 3 * SECOND
    story.fail_activity(story.poll_activity(), application_failure())
    assert nanos_of(described_activity(story).current_retry_interval) == 3 * SECOND
    story.wait(3)
    pending = described_activity(story)
    assert nanos_of(pending.current_retry_interval) == 6 * SECOND, "not cut to the maximum"
    assert not pending.HasField("next_attempt_schedule_time")


def test_an_activity_that_runs_or_ends_tells_no_backoff() -> None:
    story = started_story()
    story.decide(schedule_activity())
    task = story.poll_activity()
    assert not described_activity(story).HasField("current_retry_interval")
    story.signal()
    story.decide(cancel_activity(5))
    story.take_back_activity(task)
    assert not described_activity(story).HasField("current_retry_interval")


def test_an_activity_is_described_with_its_options() -> None:
    story = started_story()
    policy = retry_policy(initial=3, attempts=5, fatal=("Fatal",))
    story.decide(schedule_activity(to_close=600, to_start=60, start_to_close=30, heartbeat=10, retry=policy))
    options = described_activity(story).activity_options
    assert options.task_queue.name == "activities"
    assert nanos_of(options.schedule_to_close_timeout) == 600 * SECOND
    assert nanos_of(options.schedule_to_start_timeout) == 60 * SECOND
    assert nanos_of(options.start_to_close_timeout) == 30 * SECOND
    assert nanos_of(options.heartbeat_timeout) == 10 * SECOND
    assert nanos_of(options.retry_policy.initial_interval) == 3 * SECOND
    assert options.retry_policy.maximum_attempts == 5


def test_an_activity_that_should_be_cancelled() -> None:
    story = started_story()
    story.decide(schedule_activity())
    story.poll_activity()
    story.signal()
    story.decide(cancel_activity(5))
    assert described_activity(story).state == _Activity.PENDING_ACTIVITY_STATE_CANCEL_REQUESTED


# --- positions --------------------------------------------------------------------------------------------------------


def test_a_position_counts_durable_events_only() -> None:
    story = started_story()
    task = story.poll()
    position = locate(story)
    assert (position.run_id, position.next_event_id) == (story.run.run_id, 3)
    assert story.describe().workflow_execution_info.history_length == 2
    assert position.virtual == task.history.virtual


def test_buffered_events_are_not_counted() -> None:
    story = started_story()
    story.poll()
    story.signal()
    position = locate(story)
    assert position.next_event_id == 4
    assert not position.virtual


def test_a_run_without_a_started_task_has_nothing_undurable() -> None:
    assert locate(idle_story()).virtual == []


def test_a_retry_that_waits_for_a_worker_shows_that_it_is_scheduled() -> None:
    story = failing_story()
    position = locate(story)
    assert [name_of(HistoryEvent.FromString(data)) for data in position.virtual] == ["WorkflowTaskScheduled"]
    assert HistoryEvent.FromString(position.virtual[0]).event_id == position.next_event_id == 5
    story.signal()
    assert locate(story).virtual == [], "it will be scheduled anew, behind the signal"
