"""The beginning of a run: its first event, its backoff, and the timeouts that watch over all of it."""

from __future__ import annotations

from temporalio.api.common.v1 import Header, Link, Memo, Priority, SearchAttributes
from temporalio.api.enums.v1 import ContinueAsNewInitiator, WorkflowExecutionStatus
from temporalio.api.history.v1 import (
    WorkflowExecutionStartedEventAttributes,
    WorkflowTaskStartedEventAttributes,
)
from temporalio.api.sdk.v1 import UserMetadata

from perdure.server.core.durations import duration_of, nanos_of
from perdure.server.core.machines.workflow_task import State
from tests.server.core.commands import SECOND, payload, payloads, retry_policy, schedule_activity
from tests.server.core.story import NOW, Story

TIMED_OUT = WorkflowExecutionStatus.WORKFLOW_EXECUTION_STATUS_TIMED_OUT
MINUTE = 60 * SECOND


def started(story: Story) -> WorkflowExecutionStartedEventAttributes:
    return story.last(WorkflowExecutionStartedEventAttributes)


def test_the_first_event_says_how_the_run_was_started() -> None:
    story = Story()
    header = Header(fields={"trace": payload("7")})
    priority = Priority(priority_key=2)
    reply = story.start(
        header=header,
        memo=Memo(fields={"note": payload("urgent")}),
        search_attributes=SearchAttributes(indexed_fields={"Colour": payload("red")}),
        priority=priority,
        retry_policy=retry_policy(attempts=3),
        user_metadata=UserMetadata(summary=payload("an order")),
        links=[Link(batch_job=Link.BatchJob(job_id="job"))],
    )
    attributes = started(story)
    assert attributes.workflow_type.name == "Order"
    assert attributes.task_queue.name == "orders"
    assert attributes.input == payloads("book")
    assert attributes.identity == "client"
    assert attributes.workflow_id == "order-7"
    assert attributes.attempt == 1
    assert attributes.first_execution_run_id == attributes.original_execution_run_id == reply.run_id
    assert attributes.header == header
    assert attributes.priority == priority
    assert attributes.retry_policy.maximum_attempts == 3
    assert nanos_of(attributes.workflow_task_timeout) == 10 * SECOND
    event = story.history()[0]
    assert event.user_metadata.summary == payload("an order")
    assert event.links[0].batch_job.job_id == "job"
    assert story.run.memo.fields["note"] == payload("urgent")
    assert story.run.search_attributes.indexed_fields["Colour"] == payload("red")


def test_a_new_run_has_a_workflow_task_at_once() -> None:
    story = Story()
    story.start()
    assert story.names() == ["WorkflowExecutionStarted", "WorkflowTaskScheduled"]
    assert story.run.transition_count == 1


def test_an_eager_start_carries_the_first_task_in_its_reply() -> None:
    story = Story()
    reply = story.start(request_eager_execution=True, request_id="start-request")
    assert reply.eager_task is not None
    assert started(story).eager_execution_accepted
    assert story.names() == ["WorkflowExecutionStarted", "WorkflowTaskScheduled", "WorkflowTaskStarted"]
    assert story.last(WorkflowTaskStartedEventAttributes).request_id == "start-request"
    assert story.run.transition_count == 1
    story.complete(reply.eager_task, schedule_activity())
    assert story.names()[-1] == "ActivityTaskScheduled"


def test_the_start_of_an_eager_task_is_durable() -> None:
    story = Story()
    reply = story.start(request_eager_execution=True)
    story.crash()
    assert reply.eager_task is not None
    story.complete(reply.eager_task, schedule_activity())
    assert story.names()[-1] == "ActivityTaskScheduled"


# --- the first-task backoff -------------------------------------------------------------------------------------------


def delayed_story() -> Story:
    story = Story()
    story.start(workflow_start_delay=duration_of(MINUTE), request_eager_execution=True)
    return story


def test_a_start_delay_holds_the_first_task_back() -> None:
    story = delayed_story()
    assert nanos_of(started(story).first_workflow_task_backoff) == MINUTE
    assert not started(story).eager_execution_accepted
    assert story.names() == ["WorkflowExecutionStarted"]
    assert story.run.execution_at == NOW + MINUTE
    story.wait(59.9)
    assert story.names() == ["WorkflowExecutionStarted"]
    story.wait(0.1)
    assert story.names() == ["WorkflowExecutionStarted", "WorkflowTaskScheduled"]


def test_a_start_delay_survives_a_crash() -> None:
    story = delayed_story()
    story.crash()
    story.wait(60)
    assert story.run.task.state is State.SCHEDULED


def test_a_signal_waits_for_the_first_task() -> None:
    story = delayed_story()
    story.signal()
    assert story.names() == ["WorkflowExecutionStarted", "WorkflowExecutionSignaled"]
    story.wait(60)
    assert story.names()[-1] == "WorkflowTaskScheduled"


def test_a_cron_run_begins_at_its_time() -> None:
    story = Story()
    story.now += 20 * SECOND
    story.start(cron_schedule="* * * * *")
    assert started(story).initiator == ContinueAsNewInitiator.CONTINUE_AS_NEW_INITIATOR_CRON_SCHEDULE
    assert nanos_of(started(story).first_workflow_task_backoff) == 40 * SECOND
    story.wait(40)
    assert story.run.task.state is State.SCHEDULED


def test_the_run_timeout_begins_after_the_backoff() -> None:
    story = Story()
    story.start(workflow_start_delay=duration_of(MINUTE), workflow_run_timeout=duration_of(10 * SECOND))
    story.wait(69.9)
    assert story.run.is_open
    story.wait(0.1)
    assert story.run.status == TIMED_OUT
