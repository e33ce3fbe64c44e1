"""How a workflow task ends without the worker's decisions: it failed, or a timeout ran out.

A normal task leaves an event, a transient one none. What was buffered behind it reaches history then, and the next task
is a normal one, because it decides on something new.
"""

from __future__ import annotations

from temporalio.api.enums.v1 import TimeoutType, WorkflowTaskFailedCause
from temporalio.api.failure.v1 import Failure
from temporalio.api.history.v1 import WorkflowTaskFailedEventAttributes, WorkflowTaskTimedOutEventAttributes

from perdure._machine import move
from perdure.server.core import registry
from perdure.server.core.machines import workflow_task
from perdure.server.core.machines.held_start import write_start
from perdure.server.core.run import Run
from perdure.server.core.transition import Transition


def end_with_failure(
    t: Transition,
    cause: WorkflowTaskFailedCause.ValueType,
    failure: Failure | None,
    *,
    binary_checksum: str = "",
) -> None:
    """Fail the started task: an event for a normal one, none for a transient one; then flush what was buffered."""
    task = t.run.task
    _end(
        t,
        WorkflowTaskFailedEventAttributes(
            scheduled_event_id=task.scheduled_event_id,
            started_event_id=task.started_event_id,
            cause=cause,
            failure=failure,
            identity=t.identity,
            binary_checksum=binary_checksum,
        ),
    )


def end_with_timeout(t: Transition) -> None:
    """Time the started task out: as a failure, with its own event."""
    task = t.run.task
    _end(
        t,
        WorkflowTaskTimedOutEventAttributes(
            scheduled_event_id=task.scheduled_event_id,
            started_event_id=task.started_event_id,
            timeout_type=TimeoutType.TIMEOUT_TYPE_START_TO_CLOSE,
        ),
    )


def _end(t: Transition, ended: WorkflowTaskFailedEventAttributes | WorkflowTaskTimedOutEventAttributes) -> None:
    write_start(t)
    run = t.run
    run.close_attempted = False
    if run.task.is_transient:
        _abandon_attempt(t)
    else:
        t.record(ended)
    if t.flush_buffered():
        run.task.attempt = 1


def _abandon_attempt(t: Transition) -> None:
    task = t.run.task
    move(workflow_task.TABLE, task, workflow_task.Abandoned)
    workflow_task.count_failure(t.run)
    t.touch()


def _sticky_due_at(run: Run, key: int | str) -> int | None:
    return run.task.sticky_deadline if run.task.state is workflow_task.State.SCHEDULED else None


def _time_out_sticky(t: Transition, key: int | str) -> None:
    task = t.run.task
    assert not task.is_transient, "a failure ends the stickiness, so a retry never waits in a sticky queue"
    t.record(
        WorkflowTaskTimedOutEventAttributes(
            scheduled_event_id=task.scheduled_event_id,
            timeout_type=TimeoutType.TIMEOUT_TYPE_SCHEDULE_TO_START,
        )
    )
    workflow_task.schedule(t)


def _timeout_due_at(run: Run, key: int | str) -> int | None:
    return run.task.started_at + run.task.timeout if run.task.is_started else None


def _time_out(t: Transition, key: int | str) -> None:
    end_with_timeout(t)
    workflow_task.schedule(t)


registry.alarm(workflow_task.STICKY_ALARM, due_at=_sticky_due_at, fire=_time_out_sticky)
registry.alarm(workflow_task.TIMEOUT_ALARM, due_at=_timeout_due_at, fire=_time_out)
