"""What is put together as bytes is what the message would have been."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration
from temporalio.api.common.v1 import ActivityType, Priority, RetryPolicy, WorkflowExecution, WorkflowType
from temporalio.api.enums.v1 import TaskQueueKind
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import PollActivityTaskQueueResponse, PollWorkflowTaskQueueResponse

from perdure.server.core.durations import duration_of, timestamp_of
from perdure.server.core.inputs import StartActivity
from perdure.server.core.replies import ActivityTaskStarted
from tests.server.core.commands import SECOND, payloads, schedule_activity
from tests.server.core.stories import started_story
from tests.server.core.story import NOW, QUEUE, Story


def _execution(story: Story) -> WorkflowExecution:
    return WorkflowExecution(workflow_id="order-7", run_id=story.run.run_id)


def test_a_workflow_task() -> None:
    story = started_story()
    story.decide(schedule_activity("a"))
    story.complete_activity(story.poll_activity())
    story.now += 3 * SECOND + 5
    task = story.poll()
    message = PollWorkflowTaskQueueResponse(
        task_token=task.token,
        workflow_execution=_execution(story),
        workflow_type=WorkflowType(name="Order"),
        previous_started_event_id=3,
        started_event_id=9,
        attempt=1,
        workflow_execution_task_queue=TaskQueue(name=QUEUE, kind=TaskQueueKind.TASK_QUEUE_KIND_NORMAL),
        scheduled_time=timestamp_of(NOW),
        started_time=timestamp_of(NOW + 3 * SECOND + 5),
    )
    assert task.data == message.SerializeToString()


def _started(story: Story) -> ActivityTaskStarted:
    started = story.do(StartActivity(story.run.run_id, story.run.activity_ids["a"], "worker", "poll-request"))
    assert isinstance(started, ActivityTaskStarted)
    return started


def test_an_activity_task() -> None:
    story = started_story()
    command = schedule_activity("a")
    attributes = command.schedule_activity_task_command_attributes
    attributes.input.CopyFrom(payloads("in"))
    attributes.header.fields["trace"].data = b"t"
    attributes.heartbeat_timeout.CopyFrom(duration_of(2 * SECOND))
    attributes.priority.CopyFrom(Priority(priority_key=2))
    attributes.retry_policy.CopyFrom(RetryPolicy(maximum_attempts=4))
    story.decide(command)
    story.now += SECOND
    pending = story.run.activities[story.run.activity_ids["a"]]
    started = _started(story)
    message = PollActivityTaskQueueResponse(
        task_token=started.token,
        workflow_namespace=story.namespace.name,
        workflow_type=WorkflowType(name="Order"),
        workflow_execution=_execution(story),
        activity_type=ActivityType(name=pending.activity_type),
        activity_id="a",
        header=attributes.header,
        input=payloads("in"),
        scheduled_time=timestamp_of(NOW),
        current_attempt_scheduled_time=timestamp_of(NOW),
        started_time=timestamp_of(NOW + SECOND),
        attempt=1,
        schedule_to_close_timeout=Duration(),
        start_to_close_timeout=pending.attributes.start_to_close_timeout,
        heartbeat_timeout=duration_of(2 * SECOND),
        retry_policy=pending.attributes.retry_policy,
        priority=Priority(priority_key=2),
    )
    assert started.data == message.SerializeToString()


def test_an_activity_without_input_header_and_priority_has_none() -> None:
    story = started_story()
    command = schedule_activity("a")
    for name in ("input", "header", "priority"):
        command.schedule_activity_task_command_attributes.ClearField(name)
    story.decide(command)
    response = _started(story).response
    assert not any(response.HasField(name) for name in ("input", "header", "priority"))
