"""Queries: which way they take to a worker, and what ends them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from temporalio.api.common.v1 import Payloads
from temporalio.api.enums.v1 import QueryRejectCondition, QueryResultType, WorkflowExecutionStatus
from temporalio.api.errordetails.v1 import WorkflowNotReadyFailure
from temporalio.api.failure.v1 import Failure
from temporalio.api.query.v1 import WorkflowQueryResult

from perdure.server.core.durations import duration_of
from perdure.server.core.effects import QueryAnswered, QueryReady
from perdure.server.core.errors import FailedPrecondition, ResourceExhausted
from perdure.server.core.inputs import (
    AnswerQuery,
    ResetStickiness,
    ReturnQuery,
    StickyWorkerGone,
    TakeQuery,
    WithdrawQuery,
)
from perdure.server.core.limits import Limits
from perdure.server.core.machines.query import State
from perdure.server.core.replies import QueryAdmitted, QueryRejected, QueryTask, StaleTask, WorkflowTaskStarted
from perdure.server.core.tokens import decode_query
from tests.server.core.commands import SECOND, complete_workflow, fail_workflow, payloads, start_timer
from tests.server.core.story import QUEUE, STICKY, Story

_Reject = QueryRejectCondition
COMPLETED = WorkflowExecutionStatus.WORKFLOW_EXECUTION_STATUS_COMPLETED
FAILED = WorkflowExecutionStatus.WORKFLOW_EXECUTION_STATUS_FAILED


def answer(text: str = "fine") -> WorkflowQueryResult:
    return WorkflowQueryResult(result_type=QueryResultType.QUERY_RESULT_TYPE_ANSWERED, answer=payloads(text))


def idle_story(*, sticky: bool = False) -> Story:
    """A run that has done its first task and waits."""
    story = Story()
    story.start()
    story.complete(story.poll(), start_timer("t", 1_000), sticky=sticky)
    return story


def state_of(story: Story, query_id: str = "q1") -> State:
    return story.run.queries.pending[query_id].state


def take(story: Story, query_id: str = "q1", sticky_queue: str = "") -> QueryTask:
    task = story.do(TakeQuery("", query_id, sticky_queue))
    assert isinstance(task, QueryTask)
    return task


# --- direct -----------------------------------------------------------------------------------------------------------


def test_a_query_of_an_idle_run_is_offered_by_itself() -> None:
    story = idle_story()
    assert story.query() == QueryAdmitted(story.run.run_id)
    [offer] = story.effects_of(QueryReady)
    assert (offer.task_queue, offer.sticky, offer.query_id) == (QUEUE, False, "q1")


def test_a_query_leaves_no_trace() -> None:
    story = idle_story()
    rows = story.rows_of()
    story.query()
    take(story)
    story.do(AnswerQuery("", "q1", answer()))
    assert story.rows_of() == rows
    assert len(story.names()) == 5


def test_a_worker_gets_the_query_with_the_history() -> None:
    story = idle_story()
    story.query()
    task = take(story)
    assert decode_query(task.response.task_token).query_id == "q1"
    assert task.response.query.query_type == "status"
    assert task.response.previous_started_event_id == 3
    assert (task.history.first_event_id, task.history.end_event_id) == (1, 6)


def test_a_worker_that_has_the_run_cached_needs_no_history() -> None:
    story = idle_story(sticky=True)
    story.query()
    task = take(story, sticky_queue=STICKY)
    assert task.history.first_event_id == task.history.end_event_id == 6


def test_a_query_is_taken_once() -> None:
    story = idle_story()
    story.query()
    take(story)
    with pytest.raises(StaleTask):
        take(story)


def test_a_query_that_reached_nobody_is_offered_again() -> None:
    story = idle_story()
    story.query()
    take(story)
    story.do(ReturnQuery("", "q1"))
    [offer] = story.effects_of(QueryReady)
    assert (offer.task_queue, offer.query_id) == (QUEUE, "q1")
    take(story)


def test_a_query_that_reached_nobody_waits_for_the_workflow_task_that_came_since() -> None:
    story = idle_story()
    story.query()
    take(story)
    story.signal()
    story.do(ReturnQuery("", "q1"))
    assert not story.effects_of(QueryReady)
    assert list(story.poll().response.queries) == ["q1"]


def test_a_sticky_query_that_reached_nobody_is_offered_where_the_run_is_now() -> None:
    story = idle_story(sticky=True)
    story.query()
    take(story, sticky_queue=STICKY)
    story.ring()
    story.do(ResetStickiness(""))
    story.do(ReturnQuery("", "q1"))
    [offer] = story.effects_of(QueryReady)
    assert (offer.task_queue, offer.sticky) == (QUEUE, False)
    story.wait(60)
    take(story)


def test_an_answer_ends_the_query() -> None:
    story = idle_story()
    story.query()
    take(story)
    story.do(AnswerQuery("", "q1", answer("fine")))
    [answered] = story.effects_of(QueryAnswered)
    assert answered.query_id == "q1"
    assert answered.result is not None
    assert answered.result.answer == payloads("fine")
    story.do(AnswerQuery("", "q1", answer("again")))
    assert not story.effects_of(QueryAnswered)


def test_a_worker_may_answer_with_a_failure() -> None:
    story = idle_story()
    story.query()
    take(story)
    failure = Failure(message="unknown query")
    result = WorkflowQueryResult(result_type=QueryResultType.QUERY_RESULT_TYPE_FAILED, failure=failure)
    story.do(AnswerQuery("", "q1", result))
    [answered] = story.effects_of(QueryAnswered)
    assert answered.result is not None
    assert answered.result.failure == failure


def test_an_answer_that_is_far_too_large_fails_the_query() -> None:
    story = idle_story()
    story.limits = Limits(blob_size_error=100)
    story.query()
    take(story)
    story.do(AnswerQuery("", "q1", answer("x" * 200)))
    [answered] = story.effects_of(QueryAnswered)
    assert answered.result is None
    assert answered.problem == "query result is larger than the limit of 100 bytes"


def test_a_query_whose_caller_has_gone_is_forgotten() -> None:
    story = idle_story()
    story.query()
    story.do(WithdrawQuery("", "q1"))
    assert not story.run.queries.pending
    with pytest.raises(StaleTask):
        take(story)


def test_an_idle_run_takes_many_queries_at_once() -> None:
    story = idle_story()
    for number in range(5):
        story.query(f"q{number}")
    assert len(story.effects_of(QueryReady)) == 1
    assert len(story.run.queries.pending) == 5


def test_a_sticky_worker_that_does_not_fetch_a_query_loses_it_to_the_normal_queue() -> None:
    story = idle_story(sticky=True)
    story.query()
    [offer] = story.effects_of(QueryReady)
    assert (offer.task_queue, offer.sticky) == (STICKY, True)
    story.wait(5)
    [offer] = story.effects_of(QueryReady)
    assert (offer.task_queue, offer.sticky) == (QUEUE, False)


def test_a_query_leaves_the_sticky_queue_of_a_worker_that_has_gone() -> None:
    story = idle_story(sticky=True)
    story.query()
    story.do(StickyWorkerGone("", STICKY))
    [offer] = story.effects_of(QueryReady)
    assert offer.task_queue == QUEUE


# --- with a workflow task ---------------------------------------------------------------------------------------------


def waiting_story() -> Story:
    """A query that came behind a signal: it must see it, so it goes with the workflow task."""
    story = idle_story()
    story.signal()
    story.query()
    return story


def test_a_query_waits_for_the_pending_workflow_task() -> None:
    story = waiting_story()
    assert not story.effects_of(QueryReady)
    task = story.poll()
    assert task.response.queries["q1"].query_type == "status"
    assert state_of(story) is State.ATTACHED


def test_the_first_task_carries_queries_too() -> None:
    story = Story()
    story.start()
    story.query()
    assert list(story.poll().response.queries) == ["q1"]


def test_the_answer_comes_with_the_completed_task() -> None:
    story = waiting_story()
    story.complete(story.poll(), query_results={"q1": answer("fine")})
    [answered] = story.effects_of(QueryAnswered)
    assert answered.result is not None
    assert answered.result.answer == payloads("fine")
    assert not story.run.queries.pending


def test_a_query_that_came_behind_the_start_is_offered_after_the_task() -> None:
    story = idle_story()
    story.signal()
    task = story.poll()
    story.query()
    assert state_of(story) is State.WAITING
    story.complete(task)
    assert story.effects_of(QueryReady)


def test_a_query_that_came_behind_the_start_goes_with_the_next_task_in_the_reply() -> None:
    story = idle_story()
    story.signal()
    task = story.poll()
    story.query()
    reply = story.complete(task, force_create_new_workflow_task=True, return_new_workflow_task=True)
    assert reply.next_task is not None
    assert list(reply.next_task.response.queries) == ["q1"]
    assert state_of(story) is State.ATTACHED


def test_a_query_the_task_did_not_answer_is_offered_by_itself() -> None:
    story = waiting_story()
    story.complete(story.poll())
    [offer] = story.effects_of(QueryReady)
    assert offer.query_id == "q1"


Ending = Callable[[Story, WorkflowTaskStarted], object]


@pytest.mark.parametrize(
    "end",
    [
        lambda story, task: story.fail(task),
        lambda story, task: story.take_back(task),
        lambda story, task: story.wait(10),
        lambda story, task: story.complete(task, start_timer("")),
    ],
    ids=["failed", "taken back", "timed out", "bad command"],
)
def test_a_query_goes_with_the_next_task_where_its_task_had_no_answer(end: Ending) -> None:
    story = waiting_story()
    end(story, story.poll())
    assert state_of(story) is State.WAITING
    assert list(story.poll().response.queries) == ["q1"]


def test_only_so_many_queries_wait_for_a_workflow_task() -> None:
    story = waiting_story()
    story.limits = Limits(buffered_queries=1)
    with pytest.raises(ResourceExhausted):
        story.query("q2")
    story.poll()
    with pytest.raises(ResourceExhausted):
        story.query("q2")


# --- closed runs ------------------------------------------------------------------------------------------------------


def test_a_closed_run_answers_queries() -> None:
    story = idle_story()
    story.terminate()
    story.query()
    assert story.effects_of(QueryReady)
    story.crash()
    story.query()
    assert story.effects_of(QueryReady)


@pytest.mark.parametrize(
    "close",
    [lambda story: story.terminate(), lambda story: story.wait(60)],
    ids=["terminated", "timed out"],
)
@pytest.mark.parametrize("is_started", [False, True])
def test_a_query_that_waits_is_free_when_its_run_is_closed(close: Callable[[Story], object], is_started: bool) -> None:
    story = Story()
    story.start(workflow_run_timeout=duration_of(60 * SECOND), workflow_task_timeout=duration_of(100 * SECOND))
    story.decide()
    story.signal()
    story.query()
    if is_started:
        story.poll()
    close(story)
    assert not story.run.is_open
    assert state_of(story) is State.DIRECT
    assert story.effects_of(QueryReady)


def test_a_query_that_waits_for_the_first_task_fails_with_the_run() -> None:
    story = Story()
    story.start()
    story.query()
    story.terminate()
    [answered] = story.effects_of(QueryAnswered)
    assert answered.problem == "Workflow execution closed before WorkflowTaskStarted event"


def test_a_direct_query_outlives_its_run() -> None:
    story = idle_story(sticky=True)
    story.query()
    story.terminate()
    story.wait(5)
    [offer] = story.effects_of(QueryReady)
    assert offer.task_queue == QUEUE


@pytest.mark.parametrize(
    ("condition", "completed", "failed"),
    [
        (_Reject.QUERY_REJECT_CONDITION_NONE, False, False),
        (_Reject.QUERY_REJECT_CONDITION_NOT_OPEN, True, True),
        (_Reject.QUERY_REJECT_CONDITION_NOT_COMPLETED_CLEANLY, False, True),
    ],
)
def test_a_caller_may_not_want_answers_of_closed_runs(
    condition: QueryRejectCondition.ValueType, completed: bool, failed: bool
) -> None:
    for command, status, is_rejected in (
        (complete_workflow(), COMPLETED, completed),
        (fail_workflow(), FAILED, failed),
    ):
        story = idle_story()
        assert isinstance(story.query("open", reject=condition), QueryAdmitted)
        story.do(WithdrawQuery("", "open"))
        story.signal()
        story.decide(command)
        reply = story.query(reject=condition)
        assert reply == (QueryRejected(status) if is_rejected else QueryAdmitted(story.run.run_id))


# --- not ready --------------------------------------------------------------------------------------------------------


def test_a_run_that_was_closed_before_its_first_task_has_no_answers() -> None:
    story = Story()
    story.start()
    story.terminate()
    with pytest.raises(FailedPrecondition, match="closed before WorkflowTaskStarted") as refusal:
        story.query()
    assert isinstance(refusal.value.detail, WorkflowNotReadyFailure)


def delayed_story() -> Story:
    """A run whose first task is scheduled in a minute."""
    story = Story()
    story.start(workflow_start_delay=duration_of(60 * SECOND))
    return story


def test_a_run_whose_first_task_comes_too_late_for_the_caller_has_no_answers() -> None:
    with pytest.raises(FailedPrecondition, match="not scheduled yet") as refusal:
        delayed_story().query(waits=59.9)
    assert isinstance(refusal.value.detail, WorkflowNotReadyFailure)


def test_a_query_waits_for_the_first_task_where_its_caller_does() -> None:
    story = delayed_story()
    story.query(waits=60)
    assert state_of(story) is State.WAITING
    story.wait(60)
    task = story.poll()
    assert list(task.response.queries) == ["q1"]
    story.complete(task, query_results={"q1": answer()})
    [answered] = story.effects_of(QueryAnswered)
    assert answered.result == answer()


def test_what_happens_during_the_backoff_sends_no_query_to_the_workers() -> None:
    story = delayed_story()
    story.query(waits=60)
    story.signal()
    assert state_of(story) is State.WAITING
    assert not story.effects_of(QueryReady)


def test_a_run_terminated_in_its_backoff_fails_the_queries_that_wait() -> None:
    story = delayed_story()
    story.query(waits=60)
    story.terminate()
    [answered] = story.effects_of(QueryAnswered)
    assert answered.problem == "Workflow execution closed before WorkflowTaskStarted event"


def test_there_is_room_for_so_many_queries_in_the_backoff_too() -> None:
    story = delayed_story()
    story.limits = Limits(buffered_queries=1)
    story.query("q1", waits=60)
    with pytest.raises(ResourceExhausted):
        story.query("q2", waits=60)


def test_a_run_whose_task_fails_again_and_again_has_no_answers() -> None:
    story = idle_story()
    story.signal()
    story.fail(story.poll())
    story.query("q1")
    story.fail(story.poll())
    with pytest.raises(FailedPrecondition, match="Workflow Task in failed state"):
        story.query("q2")


def test_queries_are_lost_with_the_process() -> None:
    story = idle_story()
    story.query()
    story.crash()
    assert not story.run.queries.pending


def test_an_unknown_answer_is_no_harm() -> None:
    story = idle_story()
    story.do(AnswerQuery("", "unknown", WorkflowQueryResult(answer=Payloads())))
    assert not story.effects_of(QueryAnswered)
