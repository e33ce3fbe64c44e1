"""The run that follows: by retry, by cron, by continue-as-new. What it takes over, and when it begins."""

from __future__ import annotations

import pytest
from temporalio.api.command.v1 import Command
from temporalio.api.common.v1 import Header, Link, Memo, Priority, SearchAttributes
from temporalio.api.enums.v1 import ContinueAsNewInitiator, RetryState, WorkflowExecutionStatus
from temporalio.api.history.v1 import (
    WorkflowExecutionCompletedEventAttributes,
    WorkflowExecutionContinuedAsNewEventAttributes,
    WorkflowExecutionFailedEventAttributes,
    WorkflowExecutionStartedEventAttributes,
)

from perdure.server.core.durations import duration_of, nanos_of, time_of
from tests.server.core.commands import (
    SECOND,
    application_failure,
    complete_workflow,
    continue_as_new,
    fail_workflow,
    modify_memo,
    payload,
    payloads,
    retry_policy,
    start_timer,
)
from tests.server.core.story import NOW, Story

_Initiator = ContinueAsNewInitiator
_Status = WorkflowExecutionStatus


def started(story: Story, run_id: str = "") -> WorkflowExecutionStartedEventAttributes:
    return story.last(WorkflowExecutionStartedEventAttributes, run_id)


# --- retry ------------------------------------------------------------------------------------------------------------


def test_a_failed_run_is_retried_in_the_same_step() -> None:
    story = Story()
    first = story.start(retry_policy=retry_policy(initial=5, attempts=3)).run_id
    story.decide(fail_workflow())
    failed = story.last(WorkflowExecutionFailedEventAttributes, first)
    assert failed.retry_state == RetryState.RETRY_STATE_IN_PROGRESS
    assert failed.new_execution_run_id == story.run.run_id != first
    assert story.run_of(first).status == _Status.WORKFLOW_EXECUTION_STATUS_FAILED
    assert not story.run_of(first).is_current
    assert story.run.is_current
    [write] = story.writes[-1:]
    assert [run.run_id for run in write.runs] == [first, story.run.run_id]


def test_a_retry_begins_like_the_run_it_follows() -> None:
    story = Story()
    given = {
        "retry_policy": retry_policy(initial=5),
        "header": Header(fields={"trace": payload("7")}),
        "memo": Memo(fields={"note": payload("urgent")}),
        "search_attributes": SearchAttributes(indexed_fields={"Colour": payload("red")}),
        "priority": Priority(priority_key=2),
        "workflow_run_timeout": duration_of(60 * SECOND),
    }
    first = story.start(**given).run_id
    story.decide(modify_memo(note="changed"), fail_workflow())
    before, after = started(story, first), started(story)
    for name in ("workflow_type", "task_queue", "input", "workflow_task_timeout", *given):
        assert getattr(after, name) == getattr(before, name), name
    assert after.attempt == 2
    assert (before.identity, after.identity) == ("client", "")
    assert after.initiator == _Initiator.CONTINUE_AS_NEW_INITIATOR_RETRY
    assert after.continued_execution_run_id == after.first_execution_run_id == first
    assert after.original_execution_run_id == story.run.run_id
    assert after.continued_failure.message == "boom"
    assert nanos_of(after.first_workflow_task_backoff) == 5 * SECOND
    assert story.names() == ["WorkflowExecutionStarted"]
    story.wait(5)
    assert story.names() == ["WorkflowExecutionStarted", "WorkflowTaskScheduled"]


def test_attempts_count_and_then_end() -> None:
    story = Story()
    first = story.start(retry_policy=retry_policy(attempts=3)).run_id
    for attempt in (1, 2, 3):
        story.wait(60)
        assert started(story).attempt == attempt
        assert started(story).first_execution_run_id == first
        story.decide(fail_workflow())
    failed = story.last(WorkflowExecutionFailedEventAttributes)
    assert failed.retry_state == RetryState.RETRY_STATE_MAXIMUM_ATTEMPTS_REACHED
    assert not failed.new_execution_run_id
    assert not story.run.is_open


def test_a_run_without_a_policy_is_not_retried() -> None:
    story = Story()
    story.start()
    story.decide(fail_workflow())
    failed = story.last(WorkflowExecutionFailedEventAttributes)
    assert failed.retry_state == RetryState.RETRY_STATE_RETRY_POLICY_NOT_SET


def test_what_cannot_be_retried_is_not() -> None:
    story = Story()
    story.start(retry_policy=retry_policy())
    story.decide(fail_workflow(application_failure(non_retryable=True)))
    failed = story.last(WorkflowExecutionFailedEventAttributes)
    assert failed.retry_state == RetryState.RETRY_STATE_NON_RETRYABLE_FAILURE


def test_a_retry_that_would_begin_after_the_execution_timeout_does_not() -> None:
    story = Story()
    story.start(retry_policy=retry_policy(initial=20), workflow_execution_timeout=duration_of(10 * SECOND))
    story.decide(fail_workflow())
    assert story.last(WorkflowExecutionFailedEventAttributes).retry_state == RetryState.RETRY_STATE_TIMEOUT


def test_a_completed_run_is_not_retried() -> None:
    story = Story()
    story.start(retry_policy=retry_policy())
    story.decide(complete_workflow())
    assert not story.run.is_open


# --- cron -------------------------------------------------------------------------------------------------------------


def cron_story(**fields: object) -> Story:
    """A cron run that began at the full minute after `NOW`."""
    story = Story()
    story.start(cron_schedule="* * * * *", **fields)
    story.wait(60)
    return story


def test_a_completed_cron_run_is_followed_by_the_next() -> None:
    story = cron_story()
    first = story.run.run_id
    story.now += 10 * SECOND
    story.decide(complete_workflow("ten"))
    completed = story.last(WorkflowExecutionCompletedEventAttributes, first)
    assert completed.new_execution_run_id == story.run.run_id != first
    after = started(story)
    assert after.initiator == _Initiator.CONTINUE_AS_NEW_INITIATOR_CRON_SCHEDULE
    assert after.last_completion_result == payloads("ten")
    assert after.attempt == 1
    assert after.cron_schedule == "* * * * *"
    assert nanos_of(after.first_workflow_task_backoff) == 50 * SECOND
    assert not after.HasField("continued_failure")
    story.wait(50)
    assert story.names()[-1] == "WorkflowTaskScheduled"


def test_a_cron_run_without_a_result_leaves_none_to_the_next() -> None:
    story = cron_story()
    story.decide(complete_workflow("ten"))
    story.wait(60)
    story.decide(complete_workflow(None))
    assert not started(story).HasField("last_completion_result")


def test_a_failed_cron_run_leaves_its_failure_and_the_last_result() -> None:
    story = cron_story()
    story.decide(complete_workflow("ten"))
    story.wait(60)
    story.decide(fail_workflow())
    assert started(story).last_completion_result == payloads("ten")
    assert started(story).continued_failure.message == "boom"
    story.wait(60)
    story.decide(complete_workflow("twelve"))
    assert not started(story).HasField("continued_failure")


def test_a_cron_run_is_retried_before_the_schedule_goes_on() -> None:
    story = cron_story(retry_policy=retry_policy(initial=2, attempts=2))
    story.decide(fail_workflow())
    assert started(story).initiator == _Initiator.CONTINUE_AS_NEW_INITIATOR_RETRY
    assert started(story).attempt == 2
    story.wait(2)
    story.decide(fail_workflow())
    assert started(story).initiator == _Initiator.CONTINUE_AS_NEW_INITIATOR_CRON_SCHEDULE
    assert started(story).attempt == 1


def test_a_cron_run_that_times_out_is_followed_by_the_next() -> None:
    story = cron_story(workflow_run_timeout=duration_of(10 * SECOND))
    first = story.run.run_id
    story.wait(10)
    assert story.run_of(first).status == _Status.WORKFLOW_EXECUTION_STATUS_TIMED_OUT
    assert started(story).initiator == _Initiator.CONTINUE_AS_NEW_INITIATOR_CRON_SCHEDULE


def test_a_terminated_cron_run_is_the_last() -> None:
    story = cron_story()
    story.terminate()
    assert not story.run.is_open


# --- continue as new --------------------------------------------------------------------------------------------------


def test_a_run_continues_as_new() -> None:
    story = Story()
    first = story.start(
        workflow_execution_timeout=duration_of(900 * SECOND),
        workflow_run_timeout=duration_of(90 * SECOND),
        memo=Memo(fields={"note": payload("urgent")}),
        priority=Priority(priority_key=2),
    ).run_id
    story.now += 5 * SECOND
    story.decide(continue_as_new(memo=Memo(fields={"note": payload("second")})))
    continued = story.last(WorkflowExecutionContinuedAsNewEventAttributes, first)
    assert continued.new_execution_run_id == story.run.run_id != first
    assert continued.workflow_type.name == "Order"
    assert continued.input == payloads("next")
    assert continued.workflow_task_completed_event_id == 4
    assert continued.initiator == _Initiator.CONTINUE_AS_NEW_INITIATOR_WORKFLOW
    after = started(story)
    assert after.input == payloads("next")
    assert after.workflow_type.name == "Order"
    assert after.task_queue.name == "orders"
    assert nanos_of(after.workflow_run_timeout) == 90 * SECOND
    assert nanos_of(after.workflow_task_timeout) == 10 * SECOND
    assert time_of(after.workflow_execution_expiration_time) == NOW + 900 * SECOND
    assert after.memo.fields["note"] == payload("second")
    assert after.priority.priority_key == 2
    assert after.continued_execution_run_id == after.first_execution_run_id == first
    assert after.initiator == _Initiator.CONTINUE_AS_NEW_INITIATOR_WORKFLOW
    assert after.attempt == 1
    assert story.names() == ["WorkflowExecutionStarted", "WorkflowTaskScheduled"]


def test_a_chain_knows_its_first_run() -> None:
    story = Story()
    first = story.start().run_id
    for _ in range(3):
        story.wait(5)
        story.decide(continue_as_new())
    assert started(story).first_execution_run_id == first
    assert started(story).continued_execution_run_id != first


@pytest.mark.parametrize("crashes", [False, True])
@pytest.mark.parametrize(
    ("how", "command"),
    [
        ({"retry_policy": retry_policy(initial=5)}, fail_workflow()),
        ({"cron_schedule": "* * * * *"}, complete_workflow()),
        ({}, continue_as_new()),
    ],
    ids=["retry", "cron", "continue as new"],
)
def test_every_run_of_a_chain_links_to_what_started_the_first(
    how: dict[str, object], command: Command, crashes: bool
) -> None:
    link = Link(batch_job=Link.BatchJob(job_id="nightly"))
    story = Story()
    story.start(links=[link], **how)
    for _ in range(2):
        story.wait(120)
        if crashes:
            story.crash()
        story.decide(command)
        assert list(story.history()[0].links) == [link]


def test_memo_and_search_attributes_are_not_taken_over() -> None:
    story = Story()
    story.start(
        memo=Memo(fields={"note": payload("urgent")}),
        search_attributes=SearchAttributes(indexed_fields={"Colour": payload("red")}),
        retry_policy=retry_policy(),
        cron_schedule="",
    )
    story.decide(continue_as_new())
    after = started(story)
    for name in ("memo", "search_attributes", "retry_policy"):
        assert not after.HasField(name), name


def test_runs_do_not_follow_each_other_faster_than_once_a_second() -> None:
    story = Story()
    first = story.start().run_id
    story.decide(continue_as_new())
    backoff = story.last(WorkflowExecutionContinuedAsNewEventAttributes, first).backoff_start_interval
    assert nanos_of(backoff) == nanos_of(started(story).first_workflow_task_backoff) == SECOND
    assert story.names() == ["WorkflowExecutionStarted"]
    story.wait(1)
    assert story.names()[-1] == "WorkflowTaskScheduled"


def test_a_continued_run_may_begin_later() -> None:
    story = Story()
    story.start()
    story.wait(10)
    story.decide(continue_as_new(backoff=30))
    story.wait(29.9)
    assert story.names() == ["WorkflowExecutionStarted"]
    story.wait(0.1)
    assert story.names()[-1] == "WorkflowTaskScheduled"


def test_a_continued_run_begins_with_nothing_pending() -> None:
    story = Story()
    first = story.start().run_id
    story.decide(start_timer("t", 5), continue_as_new())
    assert not story.run.timers
    assert not story.run_of(first).timers
    story.wait(10)
    assert "TimerFired" not in story.names() + story.names(first)
