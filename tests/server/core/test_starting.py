"""Starting a workflow id: what its policies make of the run that is there."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from temporalio.api.common.v1 import Link
from temporalio.api.enums.v1 import WorkflowExecutionStatus, WorkflowIdConflictPolicy, WorkflowIdReusePolicy
from temporalio.api.errordetails.v1 import WorkflowExecutionAlreadyStartedFailure
from temporalio.api.history.v1 import (
    WorkflowExecutionOptionsUpdatedEventAttributes,
    WorkflowExecutionSignaledEventAttributes,
    WorkflowExecutionTerminatedEventAttributes,
)
from temporalio.api.workflow.v1 import OnConflictOptions

from perdure.server.core.durations import duration_of
from perdure.server.core.effects import WorkflowTaskReady
from perdure.server.core.errors import AlreadyExists, InvalidArgument, NotFound
from perdure.server.core.limits import Limits
from perdure.server.core.replies import StartReply
from tests.server.core.commands import SECOND, cancel_workflow, complete_workflow, fail_workflow, payloads
from tests.server.core.story import Story

_Conflict = WorkflowIdConflictPolicy
_Reuse = WorkflowIdReusePolicy
_Status = WorkflowExecutionStatus
FAIL = {"workflow_id_conflict_policy": _Conflict.WORKFLOW_ID_CONFLICT_POLICY_FAIL}
USE_EXISTING = {"workflow_id_conflict_policy": _Conflict.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING}
TERMINATE_EXISTING = {"workflow_id_conflict_policy": _Conflict.WORKFLOW_ID_CONFLICT_POLICY_TERMINATE_EXISTING}


def open_story() -> Story:
    story = Story()
    story.start(request_id="first-request")
    return story


# --- a repeated start whose first reply had the first workflow task ---------------------------------------------------


def eager_story() -> tuple[Story, StartReply]:
    story = Story()
    return story, story.start(request_id="first-request", request_eager_execution=True)


@pytest.mark.parametrize("crashes", [False, True])
def test_a_repeated_eager_start_gets_its_task_once_more(crashes: bool) -> None:
    story, first = eager_story()
    if crashes:
        story.crash()
    again = story.start(request_id="first-request", request_eager_execution=True)
    assert first.eager_task is not None
    assert again.eager_task is not None
    assert again.eager_task.response == first.eager_task.response
    assert again.eager_task.is_repeated
    assert (again.eager_task.history.first_event_id, again.eager_task.history.end_event_id) == (1, 4)
    story.complete(again.eager_task)
    with pytest.raises(NotFound):
        story.complete(first.eager_task)


def test_a_repeated_start_that_does_not_ask_for_the_task_does_not_get_it() -> None:
    story, _ = eager_story()
    assert story.start(request_id="first-request").eager_task is None


def test_a_task_that_was_completed_is_not_handed_out_again() -> None:
    story, first = eager_story()
    assert first.eager_task is not None
    story.complete(first.eager_task)
    assert story.start(request_id="first-request", request_eager_execution=True).eager_task is None


def test_the_second_task_of_a_run_is_not_handed_out_for_the_first() -> None:
    story, first = eager_story()
    assert first.eager_task is not None
    story.complete(first.eager_task)
    story.signal()
    story.poll()
    assert story.start(request_id="first-request", request_eager_execution=True).eager_task is None


def test_a_first_task_that_timed_out_is_left_to_those_who_poll() -> None:
    story, _ = eager_story()
    story.wait(10)
    story.poll()
    assert story.start(request_id="first-request", request_eager_execution=True).eager_task is None


# --- an open run ------------------------------------------------------------------------------------------------------


def test_a_free_id_is_started() -> None:
    story = Story()
    reply = story.start()
    assert reply.started
    assert reply.run_id == story.run.run_id
    assert reply.status == _Status.WORKFLOW_EXECUTION_STATUS_RUNNING


def test_an_open_run_is_a_conflict() -> None:
    story = open_story()
    with pytest.raises(AlreadyExists) as refusal:
        story.start(request_id="second-request", **FAIL)
    run_id = story.run.run_id
    message = f"Workflow execution is already running. WorkflowId: order-7, RunId: {run_id}."
    assert refusal.value.message == message
    assert refusal.value.detail == WorkflowExecutionAlreadyStartedFailure(
        start_request_id="first-request", run_id=run_id
    )


@pytest.mark.parametrize("crashes", [False, True])
@pytest.mark.parametrize("policy", [FAIL, USE_EXISTING, TERMINATE_EXISTING])
def test_a_repeated_request_id_is_answered_with_the_run_it_made(policy: dict[str, object], crashes: bool) -> None:
    story = open_story()
    run_id = story.run.run_id
    if crashes:
        story.crash()
    reply = story.start(request_id="first-request", **policy)
    assert (reply.run_id, reply.started) == (run_id, True)
    assert len(story.workflow.runs) == 1


def test_a_request_is_known_after_its_run_has_closed() -> None:
    story = open_story()
    story.decide(complete_workflow())
    reply = story.start(request_id="first-request")
    assert reply.started
    assert reply.status == _Status.WORKFLOW_EXECUTION_STATUS_COMPLETED
    assert len(story.workflow.runs) == 1


def test_the_existing_run_may_be_used() -> None:
    story = open_story()
    reply = story.start(request_id="second-request", **USE_EXISTING)
    assert (reply.run_id, reply.started) == (story.run.run_id, False)
    assert not story.last_step.is_dirty


def test_who_uses_the_existing_run_may_attach_its_request_id_and_links() -> None:
    story = open_story()
    link = Link(batch_job=Link.BatchJob(job_id="job"))
    given = {
        "request_id": "second-request",
        "links": [link],
        "on_conflict_options": OnConflictOptions(attach_request_id=True, attach_links=True),
        **USE_EXISTING,
    }
    story.start(**given)
    assert story.last(WorkflowExecutionOptionsUpdatedEventAttributes).attached_request_id == "second-request"
    assert list(story.history()[-1].links) == [link]
    story.crash()
    story.start(**given)
    assert story.names().count("WorkflowExecutionOptionsUpdated") == 1


def test_conflict_options_that_attach_nothing_are_recorded_all_the_same() -> None:
    story = open_story()
    story.start(request_id="second-request", on_conflict_options=OnConflictOptions(), **USE_EXISTING)
    assert not story.last(WorkflowExecutionOptionsUpdatedEventAttributes).attached_request_id
    story.start(request_id="third-request", **USE_EXISTING)
    assert story.names().count("WorkflowExecutionOptionsUpdated") == 1


@pytest.mark.parametrize("crashes", [False, True])
def test_an_attached_request_id_is_known_after_the_run_closed(crashes: bool) -> None:
    story = open_story()
    options = OnConflictOptions(attach_request_id=True)
    story.start(request_id="attached", on_conflict_options=options, **USE_EXISTING)
    story.terminate()
    if crashes:
        story.crash()
    reply = story.start(request_id="attached", on_conflict_options=options, **USE_EXISTING)
    assert (reply.run_id, reply.started) == (story.run.run_id, False)
    assert reply.status == _Status.WORKFLOW_EXECUTION_STATUS_TERMINATED


def test_the_request_id_of_a_signal_is_none_of_a_start() -> None:
    story = open_story()
    story.signal(request_id="signal")
    story.terminate()
    assert story.start(request_id="signal", **USE_EXISTING).started


def test_the_existing_run_may_be_terminated() -> None:
    story = open_story()
    first = story.run.run_id
    reply = story.start(request_id="second-request", **TERMINATE_EXISTING)
    assert reply.started
    assert reply.run_id == story.run.run_id != first
    assert story.names(first)[-1] == "WorkflowExecutionTerminated"
    terminated = story.last(WorkflowExecutionTerminatedEventAttributes, first)
    assert terminated.reason == "TerminateIfRunning WorkflowIdReusePolicy"
    [details] = terminated.details.payloads
    assert json.loads(details.data) == f"terminated by new runID: {reply.run_id}"
    assert terminated.identity == "history-service"
    assert {run.run_id: run.is_current for run in story.writes[-1].runs} == {first: False, reply.run_id: True}


def test_a_started_task_of_the_run_that_is_terminated_is_failed_first() -> None:
    story = open_story()
    first = story.run.run_id
    story.poll()
    story.start(**TERMINATE_EXISTING)
    assert story.names(first)[2:] == ["WorkflowTaskStarted", "WorkflowTaskFailed", "WorkflowExecutionTerminated"]


# --- a closed run -----------------------------------------------------------------------------------------------------

Closing = Callable[[Story], object]
CLOSINGS: dict[str, Closing] = {
    "completed": lambda story: story.decide(complete_workflow()),
    "failed": lambda story: story.decide(fail_workflow()),
    "canceled": lambda story: story.decide(cancel_workflow()),
    "terminated": lambda story: story.terminate(),
}


@pytest.mark.parametrize("closing", CLOSINGS)
@pytest.mark.parametrize(
    ("policy", "allowed"),
    [
        (_Reuse.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE, ["completed", "failed", "canceled", "terminated"]),
        (_Reuse.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE_FAILED_ONLY, ["failed", "canceled", "terminated"]),
        (_Reuse.WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE, []),
    ],
)
@pytest.mark.parametrize("signals", [False, True], ids=["start", "signal with start"])
def test_the_id_of_a_closed_run_may_be_used_again(
    closing: str, policy: WorkflowIdReusePolicy.ValueType, allowed: list[str], signals: bool
) -> None:
    story = open_story()
    first = story.run.run_id
    CLOSINGS[closing](story)
    start = story.signal_with_start if signals else story.start
    if closing in allowed:
        assert start(workflow_id_reuse_policy=policy).run_id == story.run.run_id != first
        assert not story.run_of(first).is_current
    else:
        with pytest.raises(AlreadyExists, match=f"finished.*RunId: {first}.*reuse policy"):
            start(workflow_id_reuse_policy=policy)


def test_the_new_run_knows_nothing_of_the_old_one() -> None:
    story = open_story()
    first = story.run.run_id
    story.decide(complete_workflow())
    story.start()
    assert story.run.start.first_execution_run_id == story.run.run_id
    assert not story.run.start.continued_execution_run_id
    assert not story.run_of(first).successor_run_id


# --- signal with start ------------------------------------------------------------------------------------------------


def test_signal_with_start_begins_a_run_with_the_signal() -> None:
    story = Story()
    reply = story.signal_with_start(request_id="r", signal_input=payloads("card"))
    assert reply.started
    assert story.names() == ["WorkflowExecutionStarted", "WorkflowExecutionSignaled", "WorkflowTaskScheduled"]
    signaled = story.last(WorkflowExecutionSignaledEventAttributes)
    assert (signaled.signal_name, signaled.input, signaled.identity) == ("paid", payloads("card"), "client")
    assert story.run.transition_count == 1


def test_signal_with_start_repeated_is_answered_with_the_run_it_made() -> None:
    story = Story()
    run_id = story.signal_with_start(request_id="r").run_id
    again = story.signal_with_start(request_id="r")
    assert (again.run_id, again.started) == (run_id, False)
    assert story.names().count("WorkflowExecutionSignaled") == 1


def test_signal_with_start_signals_the_open_run() -> None:
    story = open_story()
    story.decide()
    reply = story.signal_with_start(request_id="second-request")
    assert (reply.run_id, reply.started) == (story.run.run_id, False)
    assert story.names()[4:] == ["WorkflowExecutionSignaled", "WorkflowTaskScheduled"]
    assert story.effects_of(WorkflowTaskReady)
    story.crash()
    story.signal_with_start(request_id="second-request")
    assert story.names().count("WorkflowExecutionSignaled") == 1


def test_signal_with_start_may_terminate_the_open_run() -> None:
    story = open_story()
    first = story.run.run_id
    story.signal_with_start(**TERMINATE_EXISTING)
    assert story.names(first)[-1] == "WorkflowExecutionTerminated"
    assert story.names()[:2] == ["WorkflowExecutionStarted", "WorkflowExecutionSignaled"]


def test_signal_with_start_may_begin_later() -> None:
    story = Story()
    story.signal_with_start(workflow_start_delay=duration_of(60 * SECOND))
    assert story.names() == ["WorkflowExecutionStarted", "WorkflowExecutionSignaled"]
    story.wait(60)
    assert story.names()[-1] == "WorkflowTaskScheduled"


def test_signal_with_start_is_held_to_the_limit_of_signals() -> None:
    story = open_story()
    story.limits = Limits(signals_per_execution=1)
    story.signal()
    with pytest.raises(InvalidArgument):
        story.signal_with_start()
