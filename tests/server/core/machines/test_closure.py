"""The end of a run: one closing event, always the last, whoever asks for it; then retention."""

from __future__ import annotations

import pytest
from temporalio.api.common.v1 import Link
from temporalio.api.enums.v1 import WorkflowExecutionStatus, WorkflowTaskFailedCause
from temporalio.api.history.v1 import (
    WorkflowExecutionCanceledEventAttributes,
    WorkflowExecutionCompletedEventAttributes,
    WorkflowExecutionFailedEventAttributes,
    WorkflowExecutionTerminatedEventAttributes,
    WorkflowTaskFailedEventAttributes,
)
from temporalio.api.workflowservice.v1 import TerminateWorkflowExecutionRequest

from perdure.server.core.effects import HistoryAdvanced
from perdure.server.core.errors import NotFound
from perdure.server.core.inputs import Delete, EndRetention, Terminate
from perdure.server.core.machines.workflow_task import State
from tests.server.core.commands import (
    SECOND,
    cancel_workflow,
    complete_workflow,
    continue_as_new,
    fail_workflow,
    payload,
    payloads,
    schedule_activity,
    start_timer,
)
from tests.server.core.story import NOW, Story

_Status = WorkflowExecutionStatus
DAY = 86_400


def busy_story() -> Story:
    """A run with a timer, a started activity, an unstarted one and a ready workflow task."""
    story = Story()
    story.start()
    story.decide(start_timer("t", 60), schedule_activity("a"), schedule_activity("b"))
    story.poll_activity("a")
    story.signal()
    return story


# --- by command -------------------------------------------------------------------------------------------------------


def test_complete() -> None:
    story = busy_story()
    story.now += 3 * SECOND
    story.decide(complete_workflow("done"))
    completed = story.last(WorkflowExecutionCompletedEventAttributes)
    assert completed.result == payloads("done")
    assert completed.workflow_task_completed_event_id == 11
    assert story.run.status == _Status.WORKFLOW_EXECUTION_STATUS_COMPLETED
    assert story.run.closed_at == NOW + 3 * SECOND


def test_a_closing_event_keeps_the_summary_of_its_command() -> None:
    story = busy_story()
    command = complete_workflow("done")
    command.user_metadata.summary.CopyFrom(payload("all is paid"))
    story.decide(command)
    assert story.history()[-1].user_metadata.summary == payload("all is paid")


def test_fail() -> None:
    story = busy_story()
    story.decide(fail_workflow())
    assert story.last(WorkflowExecutionFailedEventAttributes).failure.message == "boom"
    assert story.run.status == _Status.WORKFLOW_EXECUTION_STATUS_FAILED


def test_cancel() -> None:
    story = busy_story()
    story.decide(cancel_workflow("as you wish"))
    assert story.last(WorkflowExecutionCanceledEventAttributes).details == payloads("as you wish")
    assert story.run.status == _Status.WORKFLOW_EXECUTION_STATUS_CANCELED


def test_continue_as_new() -> None:
    story = busy_story()
    first = story.run.run_id
    story.decide(continue_as_new())
    assert story.run_of(first).status == _Status.WORKFLOW_EXECUTION_STATUS_CONTINUED_AS_NEW
    assert story.run.is_open


@pytest.mark.parametrize("command", [complete_workflow(), fail_workflow(), cancel_workflow(), continue_as_new()])
def test_what_is_pending_is_dropped_with_the_run(command: object) -> None:
    story = busy_story()
    run = story.run
    story.decide(command)  # type: ignore[arg-type]  # a parameter of the test
    assert not run.activities
    assert not run.activity_ids
    assert not run.timers
    assert run.task.state is State.NONE
    story.wait(120)
    assert len(story.names(run.run_id)) == 12


# --- from outside -----------------------------------------------------------------------------------------------------


def test_terminate_closes_at_once() -> None:
    story = busy_story()
    story.terminate()
    assert story.names()[-2:] == ["WorkflowTaskScheduled", "WorkflowExecutionTerminated"]
    terminated = story.last(WorkflowExecutionTerminatedEventAttributes)
    assert (terminated.reason, terminated.identity) == ("enough", "client")
    assert terminated.details == payloads("why")
    assert story.run.status == _Status.WORKFLOW_EXECUTION_STATUS_TERMINATED
    assert story.effects_of(HistoryAdvanced)


def test_the_links_of_a_terminate_are_kept() -> None:
    story = busy_story()
    link = Link(workflow_event=Link.WorkflowEvent(namespace="default", workflow_id="caller", run_id="caller-run"))
    story.do(Terminate("", TerminateWorkflowExecutionRequest(reason="enough", links=[link])))
    assert list(story.events_of(story.run)[-1].links) == [link]


def test_terminate_fails_the_started_task_first() -> None:
    story = busy_story()
    task = story.poll()
    story.signal("too late")
    story.terminate()
    assert story.names()[9:] == [
        "WorkflowTaskStarted",
        "WorkflowTaskFailed",
        "WorkflowExecutionSignaled",
        "WorkflowExecutionTerminated",
    ]
    failed = story.last(WorkflowTaskFailedEventAttributes)
    assert failed.cause == WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_FORCE_CLOSE_COMMAND
    assert failed.identity == "history-service"
    with pytest.raises(NotFound, match=r"^Workflow task not found\.$"):
        story.complete(task)


def test_terminate_of_a_held_start_writes_it_first() -> None:
    story = Story()
    story.start()
    story.poll()
    story.terminate()
    assert story.names()[2:] == ["WorkflowTaskStarted", "WorkflowTaskFailed", "WorkflowExecutionTerminated"]


def test_terminate_of_a_transient_task_writes_nothing_of_it() -> None:
    story = Story()
    story.start()
    story.fail(story.poll())
    story.poll()
    story.terminate()
    assert story.names()[3:] == ["WorkflowTaskFailed", "WorkflowExecutionTerminated"]


def test_a_closed_run_cannot_be_terminated() -> None:
    story = busy_story()
    story.terminate()
    for first_run_id in ("", "another"):
        with pytest.raises(NotFound, match=r"^workflow execution already completed$"):
            story.terminate(first_run_id=first_run_id)


def test_terminate_may_name_the_chain_of_runs_it_means() -> None:
    story = Story()
    first = story.start().run_id
    story.wait(5)
    story.decide(continue_as_new())
    with pytest.raises(NotFound):
        story.terminate(first_run_id="another")
    story.terminate(first_run_id=first)
    assert not story.run.is_open


# --- retention --------------------------------------------------------------------------------------------------------


def test_a_closed_run_is_deleted_when_its_retention_ends() -> None:
    story = busy_story()
    run_id = story.run.run_id
    story.terminate()
    assert story.run.first_alarm() is None
    story.wait(DAY - 1)
    assert not story.do(EndRetention(run_id))
    assert not story.last_step.is_dirty
    story.wait(1)
    assert story.do(EndRetention(run_id))
    assert story.writes[-1].runs_deleted == [run_id]
    assert story.workflow.current is None
    assert not story.workflow.runs
    with pytest.raises(NotFound, match=r"^workflow not found for ID: order-7$"):
        story.describe()


def test_an_open_run_is_not_deleted_however_old_it_is() -> None:
    story = Story()
    story.start()
    story.wait(1_000 * DAY)
    assert not story.do(EndRetention(""))
    assert story.run.is_open


@pytest.mark.parametrize(("retention_days", "is_deleted"), [(1, True), (3, False)])
def test_what_the_namespace_says_now_decides(retention_days: int, is_deleted: bool) -> None:
    story = busy_story()
    story.namespace.retention_seconds = 2 * DAY
    story.terminate()
    story.wait((2 - is_deleted) * DAY)
    story.namespace.retention_seconds = retention_days * DAY
    assert story.do(EndRetention("")) is is_deleted


def test_retention_goes_on_after_a_crash() -> None:
    story = busy_story()
    story.terminate()
    story.crash()
    story.wait(DAY)
    assert story.do(EndRetention(""))
    assert story.workflow.current is None


def test_what_a_deleted_run_did_last_is_not_written() -> None:
    story = busy_story()
    run_id = story.run.run_id
    story.do(Delete(""))
    assert story.writes[-1].runs_deleted == [run_id]
    assert not story.writes[-1].events


@pytest.mark.parametrize(("signals", "is_discarded"), [(20, False), (200, True)])
def test_a_long_history_does_not_go_with_its_run(signals: int, is_discarded: bool) -> None:
    story = Story()
    story.start()
    for number in range(signals):
        story.signal(request_id=f"request {number}")
    run_id = story.run.run_id
    story.do(Delete(""))
    assert story.writes[-1].runs_deleted == [run_id]
    assert story.writes[-1].histories_discarded == ([run_id] if is_discarded else [])


def test_the_run_before_the_current_one_is_deleted_by_itself() -> None:
    story = Story()
    first = story.start().run_id
    story.wait(5)
    story.decide(continue_as_new())
    story.wait(DAY)
    assert story.do(EndRetention(first))
    assert list(story.workflow.runs) == [story.run.run_id] != [first]
    assert story.run.is_open


# --- deletion ---------------------------------------------------------------------------------------------------------


def test_an_open_run_is_terminated_and_deleted_in_one_step() -> None:
    story = busy_story()
    run_id = story.run.run_id
    story.do(Delete(""))
    [write] = story.writes[-1:]
    assert write.runs_deleted == [run_id]
    assert write.runs[0].status == _Status.WORKFLOW_EXECUTION_STATUS_TERMINATED
    assert story.workflow.current is None


def test_a_run_that_was_never_stored_leaves_nothing_to_store() -> None:
    story = Story(cuts=False)
    run_id = story.start().run_id
    story.do(Delete(""))
    write = story.cut()
    assert not write.runs
    assert not write.events
    assert write.runs_deleted == [run_id]


def test_the_id_is_free_after_a_deletion() -> None:
    story = busy_story()
    story.do(Delete(""))
    story.start()
    assert story.run.is_open


def test_a_closed_run_is_deleted_by_its_run_id() -> None:
    story = Story()
    first = story.start().run_id
    story.wait(5)
    story.decide(continue_as_new())
    story.do(Delete(first))
    assert first not in story.workflow.runs
    assert story.run.is_open
    with pytest.raises(NotFound, match=f'run ID "{first}"'):
        story.describe(first)
