"""The workflow task: the lease on the right to decide, at most one outstanding per run.

A *normal* task (attempt 1) writes Scheduled when it is scheduled. A *transient* one, a retry after a failure, writes no
event until it completes: a workflow that fails for a week leaves one Failed event. In both, the start is first only
HELD in memory with a random nonce; it is written (STARTED) with the first transition that commits anything for the
run, and later events buffer behind it. A held start that is lost with the process leaves the task simply ready again.

Races: a worker's answer may come after the task timed out, was retried or its run closed: it names run, events, attempt
and nonce, and anything but an exact match is "Workflow task not found.". A sticky task may wait for a worker that is
gone: its schedule-to-start timeout, or the matcher's word that nobody polls, puts it into the normal queue.
"""

from __future__ import annotations

from enum import auto
from typing import Final

import msgspec
from temporalio.api.enums.v1 import (
    TaskQueueKind,
    TimeoutType,
)
from temporalio.api.history.v1 import (
    WorkflowTaskCompletedEventAttributes,
    WorkflowTaskFailedEventAttributes,
    WorkflowTaskScheduledEventAttributes,
    WorkflowTaskStartedEventAttributes,
    WorkflowTaskTimedOutEventAttributes,
)

from perdure._machine import MachineState, Table, can, move
from perdure.server.core import registry
from perdure.server.core.durations import nanos_of, set_duration
from perdure.server.core.effects import WorkflowTaskReady
from perdure.server.core.errors import NotFound
from perdure.server.core.events import NANOS_PER_SECOND, Event
from perdure.server.core.limits import Limits
from perdure.server.core.run import Run
from perdure.server.core.tokens import WorkflowTaskToken
from perdure.server.core.transition import Transition


class State(MachineState):
    """Where the present workflow task of a run stands."""

    NONE = auto()
    SCHEDULED = auto()
    HELD = auto()
    """Started, in memory only."""
    STARTED = auto()


class ScheduledSilently:
    """A transient task was scheduled: no event."""


class StartHeld:
    """A poller got the task; nothing is written yet."""


class StartReturned:
    """The poller went away before it had the reply, or the process lost the start: the task is ready again."""


class StartedSilently:
    """The start of a transient task became durable without an event."""


class Abandoned:
    """The task is gone without an event: it was transient and failed, became a normal one, or its run closed."""


_Scheduled = WorkflowTaskScheduledEventAttributes
_Started = WorkflowTaskStartedEventAttributes
_Completed = WorkflowTaskCompletedEventAttributes
_Failed = WorkflowTaskFailedEventAttributes
_TimedOut = WorkflowTaskTimedOutEventAttributes

TABLE: Final[Table[State]] = {
    (State.NONE, _Scheduled): State.SCHEDULED,
    (State.NONE, ScheduledSilently): State.SCHEDULED,
    (State.SCHEDULED, StartHeld): State.HELD,
    (State.SCHEDULED, _Started): State.STARTED,  # in a rebuild, where nothing is ever held
    (State.SCHEDULED, _TimedOut): State.NONE,  # schedule-to-start, on a sticky queue
    (State.SCHEDULED, Abandoned): State.NONE,
    (State.HELD, _Started): State.STARTED,
    (State.HELD, StartedSilently): State.STARTED,
    (State.HELD, StartReturned): State.SCHEDULED,
    (State.STARTED, _Completed): State.NONE,
    (State.STARTED, _Failed): State.NONE,
    (State.STARTED, _TimedOut): State.NONE,
    (State.STARTED, Abandoned): State.NONE,
}


class WorkflowTask(msgspec.Struct, gc=False):
    """The present task of a run, or what is kept of the last one."""

    state: State = State.NONE
    attempt: int = 1
    """1 for a normal task; more for a transient one."""
    scheduled_event_id: int = 0
    started_event_id: int = 0
    scheduled_at: int = 0
    first_scheduled_at: int = 0
    """When the first of a row of heartbeating tasks was scheduled."""
    started_at: int = 0
    timeout: int = 0
    """Start to close, in nanoseconds."""
    task_queue: str = ""
    """Where it waits; a sticky queue while `sticky_deadline` is set."""
    sticky_deadline: int | None = None
    nonce: str = ""
    request_id: str = ""
    identity: str = ""
    history_size_bytes: int = 0
    suggests_continue_as_new: tuple[int, ...] = ()
    held_event: Event | None = None
    """The Started event of a held start, once somebody was shown it."""

    @property
    def is_pending(self) -> bool:
        """Whether a task is scheduled or started."""
        return self.state is not State.NONE

    @property
    def is_started(self) -> bool:
        """Whether a worker has the task, durably or not: then other events are buffered."""
        return self.state is State.HELD or self.state is State.STARTED

    @property
    def is_held(self) -> bool:
        """Whether a worker has the task and only memory knows."""
        return self.state is State.HELD

    @property
    def is_transient(self) -> bool:
        """Whether this is a retry, which writes no event until it completes."""
        return self.attempt > 1


_ATTEMPTS_WITHOUT_DELAY: Final = 3
_RETRY_INTERVAL: Final = 5 * NANOS_PER_SECOND
"""What the first attempt after those adds to its timeout; it doubles with each further one."""

_NORMAL: Final = TaskQueueKind.TASK_QUEUE_KIND_NORMAL
_STICKY: Final = TaskQueueKind.TASK_QUEUE_KIND_STICKY

STICKY_ALARM: Final = "workflow_task_schedule_to_start"
TIMEOUT_ALARM: Final = "workflow_task_start_to_close"


def schedule(t: Transition, *, first_scheduled_at: int | None = None) -> None:
    """Schedule a workflow task and offer it, unless one is pending or the run may not have one.

    Args:
        t: The step.
        first_scheduled_at: For a heartbeat, when the first task of the row was scheduled.
    """
    run = t.run
    if run.task.is_pending or not run.is_open or run.waits_for_first_task:
        return
    schedule_now(t, first_scheduled_at=first_scheduled_at)
    offer(t)


def schedule_now(t: Transition, *, first_scheduled_at: int | None = None) -> None:
    """Schedule a workflow task without offering it: the caller will, or starts it itself."""
    run, task = t.run, t.run.task
    assert not run.buffered, "buffered events are flushed before the next task is scheduled"
    timeout = _start_to_close_timeout(run.task_timeout, task.attempt, t.world.limits)
    if task.is_transient:
        move(TABLE, task, ScheduledSilently)
        task.scheduled_event_id = run.next_event_id
        _note_scheduled(run, t.now, timeout)
        t.touch()
    else:
        t.record(scheduled_attributes(run, timeout))
    task.first_scheduled_at = t.now if first_scheduled_at is None else first_scheduled_at


def offer(t: Transition) -> None:
    """Offer the scheduled task: in the sticky queue where the run has one, else in its own."""
    run, task = t.run, t.run.task
    if run.sticky_queue:
        task.task_queue = run.sticky_queue
        # Without a timeout too, as in Temporal: it leaves the sticky queue at once, where nobody may be.
        task.sticky_deadline = t.now + run.sticky_timeout
        run.arm(STICKY_ALARM, 0)
    else:
        task.task_queue = run.task_queue
        task.sticky_deadline = None
    t.touch()
    t.effects.append(ready(run))


def ready(run: Run) -> WorkflowTaskReady:
    """Return the effect that offers the run's scheduled task."""
    task = run.task
    sticky = task.task_queue != run.task_queue
    return WorkflowTaskReady(run.key, run.run_id, task.task_queue, sticky, task.scheduled_at)


def require(run: Run, token: WorkflowTaskToken) -> None:
    """Refuse a token that does not name the run's started task exactly."""
    task = run.task
    if (
        not run.is_open
        or not task.is_started
        or token.scheduled_event_id != task.scheduled_event_id
        or token.started_event_id != task.started_event_id
        or token.attempt != task.attempt
        or token.nonce != task.nonce
    ):
        raise NotFound("Workflow task not found.")


def count_failure(run: Run) -> None:
    """Make the next task a retry; but after a failure on a sticky queue the normal one is tried first, uncounted."""
    if run.sticky_queue:
        clear_stickiness(run)
    else:
        run.task.attempt += 1


def drop(run: Run) -> None:
    """Drop the task because its run has closed."""
    if can(TABLE, run.task, Abandoned):
        move(TABLE, run.task, Abandoned)


def clear_stickiness(run: Run) -> None:
    """Let the next task go to the run's own queue."""
    run.sticky_queue = ""
    run.sticky_timeout = 0


def scheduled_attributes(run: Run, timeout: int) -> _Scheduled:
    """Return what the next Scheduled event says; it names the sticky queue where the run has one."""
    attributes = _Scheduled(attempt=run.task.attempt)
    queue = attributes.task_queue
    if run.sticky_queue:
        queue.name = run.sticky_queue
        queue.kind = _STICKY
        queue.normal_name = run.task_queue
    else:
        queue.name = run.task_queue
        queue.kind = _NORMAL
    set_duration(attributes.start_to_close_timeout, timeout)
    return attributes


def _start_to_close_timeout(default: int, attempt: int, limits: Limits) -> int:
    """Return the timeout of an attempt: repeated failures are retried less and less often."""
    surplus = attempt - _ATTEMPTS_WITHOUT_DELAY
    if surplus <= 0:
        return default
    interval = _RETRY_INTERVAL << min(surplus - 1, 30)
    return default + min(interval, limits.workflow_task_retry_interval_max)


# --- events -----------------------------------------------------------------------------------------------------------


def _note_scheduled(run: Run, at: int, timeout: int) -> None:
    task = run.task
    task.scheduled_at = at
    task.first_scheduled_at = at
    task.started_event_id = 0
    task.timeout = timeout
    task.task_queue = run.task_queue
    task.sticky_deadline = None
    run.had_task = True


@registry.applies(_Scheduled)
def _apply_scheduled(run: Run, event: Event, attributes: _Scheduled) -> None:
    move(TABLE, run.task, _Scheduled)
    run.task.attempt = attributes.attempt
    run.task.scheduled_event_id = event.event_id
    _note_scheduled(run, event.at, nanos_of(attributes.start_to_close_timeout))


@registry.applies(_Started)
def _apply_started(run: Run, event: Event, attributes: _Started) -> None:
    task = run.task
    move(TABLE, task, _Started)
    task.started_event_id = event.event_id
    task.started_at = event.at
    task.identity = attributes.identity
    task.request_id = attributes.request_id
    task.history_size_bytes = attributes.history_size_bytes
    task.suggests_continue_as_new = ()
    if attributes.suggest_continue_as_new:
        task.suggests_continue_as_new = tuple(attributes.suggest_continue_as_new_reasons)


@registry.applies(_Completed)
def _apply_completed(run: Run, event: Event, attributes: _Completed) -> None:
    move(TABLE, run.task, _Completed)
    run.task.attempt = 1
    run.previous_started_event_id = attributes.started_event_id
    run.last_task_completed_event_id = event.event_id
    if attributes.HasField("worker_version") and attributes.worker_version.build_id:
        run.build_id = attributes.worker_version.build_id


@registry.applies(_Failed)
def _apply_failed(run: Run, event: Event, attributes: _Failed) -> None:
    move(TABLE, run.task, _Failed)
    count_failure(run)


@registry.applies(_TimedOut)
def _apply_timed_out(run: Run, event: Event, attributes: _TimedOut) -> None:
    move(TABLE, run.task, _TimedOut)
    if attributes.timeout_type == TimeoutType.TIMEOUT_TYPE_SCHEDULE_TO_START:
        clear_stickiness(run)
    else:
        count_failure(run)
