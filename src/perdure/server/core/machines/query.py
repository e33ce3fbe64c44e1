"""Queries of a run: read-only questions that a worker answers. They live in memory only and leave no trace.

A query must see every event that was acknowledged before it. So while a workflow task is pending it waits (WAITING) and
goes with that task (ATTACHED); it waits for a delayed first task too, if its caller waits that long. With no task
pending it is offered to the workers by itself (DIRECT). A task that ends without an answer puts its queries back, or
frees them for direct dispatch where no further task follows. A sticky worker that does not fetch a direct query in time
loses it to the normal queue. If its caller goes, the query is withdrawn.
"""

from __future__ import annotations

from enum import auto
from typing import Final, cast

import msgspec
from temporalio.api.enums.v1 import QueryRejectCondition, QueryResultType, WorkflowExecutionStatus
from temporalio.api.errordetails.v1 import WorkflowNotReadyFailure
from temporalio.api.query.v1 import WorkflowQuery, WorkflowQueryResult

from perdure._machine import MachineState, Table, can, move
from perdure.server.core import registry
from perdure.server.core.effects import QueryAnswered, QueryReady
from perdure.server.core.errors import FailedPrecondition, ResourceExhausted
from perdure.server.core.inputs import AnswerQuery, Query, ReturnQuery, WithdrawQuery
from perdure.server.core.replies import QueryAdmitted, QueryRejected
from perdure.server.core.run import Run
from perdure.server.core.transition import Transition

ATTEMPTS_BEFORE_NOT_READY: Final = 3
"""A run whose workflow task has failed so often does not answer queries: replaying it would only fail again."""


class State(MachineState):
    """Where a query waits."""

    WAITING = auto()
    ATTACHED = auto()
    DIRECT = auto()
    TAKEN = auto()
    GONE = auto()


class Attached:
    """It went to a worker with a workflow task."""


class Detached:
    """Its workflow task ended without an answer, and another one follows."""


class Offered:
    """No workflow task is pending: any worker may take it."""


class Taken:
    """A worker has it."""


class Returned:
    """The poller went away before it had the query: it waits again."""


class Ended:
    """It was answered, failed, or its caller went away."""


TABLE: Final[Table[State]] = {
    (State.WAITING, Attached): State.ATTACHED,
    (State.WAITING, Offered): State.DIRECT,
    (State.WAITING, Ended): State.GONE,
    (State.ATTACHED, Detached): State.WAITING,
    (State.ATTACHED, Ended): State.GONE,
    (State.DIRECT, Taken): State.TAKEN,
    (State.DIRECT, Ended): State.GONE,
    (State.TAKEN, Returned): State.WAITING,
    (State.TAKEN, Ended): State.GONE,
}


class PendingQuery(msgspec.Struct, gc=False):
    """One query that has no answer yet."""

    query_id: str
    query: WorkflowQuery
    state: State = State.WAITING
    sticky_deadline: int | None = None
    """Until when it waits in the sticky queue; None where it waits in the normal one."""


class Queries(msgspec.Struct, gc=False):
    """The queries of one run, in order of arrival."""

    pending: dict[str, PendingQuery] = {}


STICKY_ALARM: Final = "query_schedule_to_start"


@registry.handles(Query)
def _admit(t: Transition, query: Query) -> object:
    run = t.run
    if _is_rejected(run, query.reject_condition):
        return QueryRejected(run.status)
    if not run.is_open and not run.previous_started_event_id:
        raise _not_ready("Workflow execution closed before WorkflowTaskStarted event")
    if run.waits_for_first_task and run.execution_at > query.wait_until:
        raise _not_ready("Workflow task is not scheduled yet.")
    if run.task.attempt >= ATTEMPTS_BEFORE_NOT_READY:
        raise _not_ready("Unable to query workflow due to Workflow Task in failed state.")
    if (run.task.is_pending or run.waits_for_first_task) and _count_waiting(run) >= t.world.limits.buffered_queries:
        raise ResourceExhausted("too many queries wait for this run; try again when they are answered")
    run.queries.pending[query.query_id] = PendingQuery(query.query_id, query.query)
    return QueryAdmitted(run.run_id)


def _is_rejected(run: Run, condition: QueryRejectCondition.ValueType) -> bool:
    if run.is_open:
        return False
    if condition == QueryRejectCondition.QUERY_REJECT_CONDITION_NOT_OPEN:
        return True
    return (
        condition == QueryRejectCondition.QUERY_REJECT_CONDITION_NOT_COMPLETED_CLEANLY
        and run.status != WorkflowExecutionStatus.WORKFLOW_EXECUTION_STATUS_COMPLETED
    )


def _count_waiting(run: Run) -> int:
    return sum(pending.state in (State.WAITING, State.ATTACHED) for pending in run.queries.pending.values())


def _not_ready(message: str) -> FailedPrecondition:
    return FailedPrecondition(message, detail=WorkflowNotReadyFailure())


@registry.handles(WithdrawQuery)
def _withdraw(t: Transition, withdrawal: WithdrawQuery) -> None:
    pending = t.run.queries.pending.pop(withdrawal.query_id, None)
    if pending is not None:
        move(TABLE, pending, Ended)


@registry.handles(ReturnQuery)
def _take_back(t: Transition, returned: ReturnQuery) -> None:
    pending = t.run.queries.pending.get(returned.query_id)
    if pending is not None and can(TABLE, pending, Returned):
        move(TABLE, pending, Returned)


@registry.handles(AnswerQuery)
def _answer(t: Transition, answer: AnswerQuery) -> None:
    _end(t, answer.query_id, answer.result)


def attach(run: Run) -> dict[str, WorkflowQuery]:
    """Send the waiting queries along with the workflow task that starts now."""
    attached: dict[str, WorkflowQuery] = {}
    for pending in run.queries.pending.values():
        if can(TABLE, pending, Attached):
            move(TABLE, pending, Attached)
            attached[pending.query_id] = pending.query
    return attached


def detach(run: Run) -> None:
    """Let the queries of a task that ended without their answers wait for the next one."""
    for pending in run.queries.pending.values():
        if can(TABLE, pending, Detached):
            move(TABLE, pending, Detached)


def answer_attached(t: Transition, results: dict[str, WorkflowQueryResult]) -> None:
    """Take the answers that came with a completed workflow task."""
    for query_id, result in results.items():
        _end(t, query_id, result)


def settle(t: Transition) -> None:
    """Put the queries, at the end of every step, where the workflow task leaves them.

    Those of a task that has ended wait again; with no task pending that they could go with, they are free for direct
    dispatch.
    """
    run = t.run
    if not run.queries.pending:
        return
    if run.changes.deleted:
        for pending in list(run.queries.pending.values()):
            _fail(t, pending, "the workflow was deleted while the query waited")
        return
    if not run.task.is_started:
        detach(run)
    if run.task.is_pending:
        return
    for pending in list(run.queries.pending.values()):
        if not can(TABLE, pending, Offered):
            continue
        if run.previous_started_event_id:
            _offer(t, pending)
        elif not run.is_open:
            _fail(t, pending, "Workflow execution closed before WorkflowTaskStarted event")


def take(t: Transition, query_id: str) -> PendingQuery | None:
    """Give a direct query to a worker; None where it is not to be had any more."""
    pending = t.run.queries.pending.get(query_id)
    if pending is None or not can(TABLE, pending, Taken):
        return None
    move(TABLE, pending, Taken)
    return pending


def reoffer_sticky(t: Transition) -> None:
    """Offer the direct queries of the sticky queue in the normal one."""
    for pending in t.run.queries.pending.values():
        if pending.state is State.DIRECT and pending.sticky_deadline is not None:
            pending.sticky_deadline = None
            t.effects.append(QueryReady(t.run.key, t.run.run_id, t.run.task_queue, False, pending.query_id))


def _offer(t: Transition, pending: PendingQuery) -> None:
    run = t.run
    move(TABLE, pending, Offered)
    queue = run.task_queue
    pending.sticky_deadline = None
    if run.sticky_queue:
        queue = run.sticky_queue
        pending.sticky_deadline = t.now + run.sticky_timeout
        run.arm(STICKY_ALARM, pending.query_id)
    t.effects.append(QueryReady(run.key, run.run_id, queue, bool(run.sticky_queue), pending.query_id))


def _end(t: Transition, query_id: str, result: WorkflowQueryResult) -> None:
    pending = t.run.queries.pending.pop(query_id, None)
    if pending is None:
        return
    move(TABLE, pending, Ended)
    limit = t.world.limits.blob_size_error
    if result.result_type == QueryResultType.QUERY_RESULT_TYPE_ANSWERED and result.answer.ByteSize() > limit:
        t.effects.append(QueryAnswered(query_id, None, f"query result is larger than the limit of {limit} bytes"))
        return
    t.effects.append(QueryAnswered(query_id, result, ""))


def _fail(t: Transition, pending: PendingQuery, problem: str) -> None:
    del t.run.queries.pending[pending.query_id]
    move(TABLE, pending, Ended)
    t.effects.append(QueryAnswered(pending.query_id, None, problem))


def _sticky_due_at(run: Run, key: int | str) -> int | None:
    pending = run.queries.pending.get(cast(str, key))
    return pending.sticky_deadline if pending is not None and pending.state is State.DIRECT else None


def _sticky_time_out(t: Transition, key: int | str) -> None:
    reoffer_sticky(t)


registry.alarm(STICKY_ALARM, due_at=_sticky_due_at, fire=_sticky_time_out)
