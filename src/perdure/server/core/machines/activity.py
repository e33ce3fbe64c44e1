"""One activity, from its schedule command until it is completed, failed, timed out or cancelled.

Retries leave no events: the Started event is written together with the closing one and describes the last attempt. An
activity is dispatched only after its start is durable, so one that may run once never starts twice; if the poller went
away before it had the reply, the start is taken back and the same attempt is offered again.

Races: an answer may come after the attempt timed out and the next one started; it carries the attempt and the nonce of
its start and is refused. A cancel request is only a flag that the next heartbeat carries; if no worker has the activity
it is cancelled at once.

The timeouts of a started attempt are told a little late: a worker may answer until the last moment, and its answer
needs a moment to arrive. Workers are told the deadlines as they were asked for; what nobody started times out at once.
"""

from __future__ import annotations

from enum import auto
from operator import itemgetter
from typing import Final, cast

import msgspec
from temporalio.api.common.v1 import RetryPolicy
from temporalio.api.enums.v1 import RetryState, TimeoutType
from temporalio.api.failure.v1 import Failure, ServerFailureInfo
from temporalio.api.history.v1 import (
    ActivityTaskCanceledEventAttributes,
    ActivityTaskCancelRequestedEventAttributes,
    ActivityTaskCompletedEventAttributes,
    ActivityTaskFailedEventAttributes,
    ActivityTaskScheduledEventAttributes,
    ActivityTaskStartedEventAttributes,
    ActivityTaskTimedOutEventAttributes,
)

from perdure._machine import MachineState, Table, can, move
from perdure.server.core import registry
from perdure.server.core.durations import nanos_of
from perdure.server.core.effects import ActivityTaskReady
from perdure.server.core.events import Event
from perdure.server.core.failures import timeout_failure
from perdure.server.core.machines import workflow_task
from perdure.server.core.poll_replies import activity_task_reply
from perdure.server.core.replies import ActivityTaskStarted
from perdure.server.core.retry import Retry, next_retry, requested_delay
from perdure.server.core.run import Run
from perdure.server.core.tokens import ActivityToken, encode
from perdure.server.core.transition import Transition


class State(MachineState):
    """Where the present attempt of a pending activity stands."""

    SCHEDULED = auto()
    STARTED = auto()
    BACKING_OFF = auto()
    CLOSED = auto()


class Dispatched:
    """A worker got the attempt."""


class StartReturned:
    """The poller went away before it had the reply: the same attempt is offered again."""


class AttemptFailed:
    """The attempt failed or timed out, and there will be another."""


class BackoffEnded:
    """The next attempt may start."""


_Scheduled = ActivityTaskScheduledEventAttributes
_Started = ActivityTaskStartedEventAttributes
_Completed = ActivityTaskCompletedEventAttributes
_Failed = ActivityTaskFailedEventAttributes
_TimedOut = ActivityTaskTimedOutEventAttributes
_Canceled = ActivityTaskCanceledEventAttributes
_CancelRequested = ActivityTaskCancelRequestedEventAttributes

TABLE: Final[Table[State]] = {
    (State.SCHEDULED, Dispatched): State.STARTED,
    (State.SCHEDULED, _Started): State.STARTED,  # in a rebuild, and for a completion by id that no worker preceded
    (State.SCHEDULED, _TimedOut): State.CLOSED,
    (State.SCHEDULED, _Canceled): State.CLOSED,
    (State.STARTED, StartReturned): State.SCHEDULED,
    (State.STARTED, AttemptFailed): State.BACKING_OFF,
    (State.STARTED, _Started): State.STARTED,  # written with the closing event
    (State.STARTED, _Completed): State.CLOSED,
    (State.STARTED, _Failed): State.CLOSED,
    (State.STARTED, _TimedOut): State.CLOSED,
    (State.STARTED, _Canceled): State.CLOSED,
    (State.BACKING_OFF, BackoffEnded): State.SCHEDULED,
    (State.BACKING_OFF, _Started): State.STARTED,  # a completion by id between two attempts
    (State.BACKING_OFF, _TimedOut): State.CLOSED,
    (State.BACKING_OFF, _Canceled): State.CLOSED,
}


class Activity(msgspec.Struct, gc=False):
    """A pending activity; a closed one is no longer in its run."""

    scheduled_event_id: int
    attributes: ActivityTaskScheduledEventAttributes
    scheduled_at: int
    ready_at: int
    """When the present attempt may be, or was, dispatched."""
    activity_id: str
    activity_type: str
    task_queue: str
    """Where it waits."""
    state: State = State.SCHEDULED
    attempt: int = 1
    cancel_requested: bool = False
    cancel_requested_event_id: int = 0
    started_at: int = 0
    nonce: str = ""
    request_id: str = ""
    identity: str = ""
    heartbeat_at: int = 0
    heartbeat_details: bytes = b""
    last_failure: bytes = b""
    last_identity: str = ""
    """Who was last heard of, for describing it: a heartbeat may come from another worker than its start did."""
    last_attempt_at: int = 0
    """When the last attempt ended, for describing it."""
    deadlines: tuple[int, int, int, int] = (0, 0, 0, 0)
    """Schedule to close, schedule to start, start to close, heartbeat: durations, 0 for none."""
    timeout_grace: int = 0
    """How late the timeouts of the present attempt are told while a worker has it; it keeps what it started with."""

    @property
    def retry_policy(self) -> RetryPolicy:
        """Its retry policy, complete: the defaults were filled in when it was scheduled."""
        return self.attributes.retry_policy


ALARM: Final = "activity"


def new_activity(scheduled_event_id: int, at: int, attributes: ActivityTaskScheduledEventAttributes) -> Activity:
    """Make the state of an activity that was scheduled by this event."""
    return Activity(
        scheduled_event_id,
        attributes,
        at,
        at,
        attributes.activity_id,
        attributes.activity_type.name,
        attributes.task_queue.name,
        deadlines=(
            nanos_of(attributes.schedule_to_close_timeout),
            nanos_of(attributes.schedule_to_start_timeout),
            nanos_of(attributes.start_to_close_timeout),
            nanos_of(attributes.heartbeat_timeout),
        ),
    )


def ready(run: Run, activity: Activity) -> ActivityTaskReady:
    """Return the effect that offers a ready activity."""
    return ActivityTaskReady(run.key, run.run_id, activity.task_queue, activity.scheduled_event_id, activity.ready_at)


def start(t: Transition, scheduled_event_id: int, identity: str, request_id: str) -> ActivityTaskStarted:
    """Give the ready attempt to a worker and return what it is told."""
    activity = t.run.activities[scheduled_event_id]
    move(TABLE, activity, Dispatched)
    activity.started_at = t.now
    activity.heartbeat_at = 0
    activity.nonce = t.world.new_nonce()
    activity.request_id = request_id
    activity.identity = activity.last_identity = identity
    activity.timeout_grace = t.world.limits.activity_timeout_grace
    t.touch_activity(scheduled_event_id)
    t.run.arm(ALARM, scheduled_event_id)
    return _task_reply(t, activity)


def _task_reply(t: Transition, activity: Activity) -> ActivityTaskStarted:
    run = t.run
    token = encode(
        ActivityToken(
            run.key.namespace_id,
            run.key.workflow_id,
            run.run_id,
            activity.scheduled_event_id,
            activity.activity_id,
            activity.attempt,
            activity.nonce,
        )
    )
    return ActivityTaskStarted(token, activity_task_reply(run, t.world.namespace.name, activity, token))


def write_started(t: Transition, activity: Activity) -> int:
    """Record the Started event of the last attempt, just before the closing event; return its id, 0 if buffered."""
    attributes = _Started(
        scheduled_event_id=activity.scheduled_event_id,
        identity=activity.identity,
        request_id=activity.request_id,
        attempt=activity.attempt,
    )
    if activity.last_failure:
        attributes.last_failure.ParseFromString(activity.last_failure)
    return t.record(attributes, at=activity.started_at or t.now).event_id


def retry_or_give_up(t: Transition, activity: Activity, failure: Failure) -> RetryState.ValueType:
    """Begin the next attempt's backoff, or return why there is none (RETRY_STATE_IN_PROGRESS: there is one)."""
    if activity.cancel_requested:
        return RetryState.RETRY_STATE_CANCEL_REQUESTED
    schedule_to_close = activity.deadlines[0]
    verdict = next_retry(
        activity.retry_policy,
        attempt=activity.attempt,
        now=t.now,
        expires_at=activity.scheduled_at + schedule_to_close if schedule_to_close else None,
        failure=failure,
        next_retry_delay=requested_delay(failure),
    )
    if not isinstance(verdict, Retry):
        return verdict.state
    move(TABLE, activity, AttemptFailed)
    activity.attempt += 1
    activity.ready_at = t.now + verdict.delay_ns
    activity.last_failure = _kept(failure, t.world.limits.activity_failure_size).SerializeToString()
    activity.last_attempt_at = t.now
    activity.started_at = 0
    activity.nonce = ""
    t.touch_activity(activity.scheduled_event_id)
    t.run.arm(ALARM, activity.scheduled_event_id)
    return RetryState.RETRY_STATE_IN_PROGRESS


def _kept(failure: Failure, limit: int) -> Failure:
    """Return what is kept of a failure between two attempts: a large one is cut to the head of its message."""
    if failure.ByteSize() <= limit:
        return failure
    cause = Failure(message=failure.message[: limit // 4], source=failure.source)
    if failure.HasField("application_failure_info"):
        cause.application_failure_info.type = failure.application_failure_info.type[: limit // 8]
    return Failure(
        message="Failure exceeds size limit.", source="Server", server_failure_info=ServerFailureInfo(), cause=cause
    )


def close(t: Transition, activity: Activity, closing: _Completed | _Failed | _TimedOut | _Canceled) -> None:
    """Record the closing event and let the workflow hear of it."""
    t.record(closing)
    t.run.changes.activities.add(activity.scheduled_event_id)
    workflow_task.schedule(t)


# --- deadlines --------------------------------------------------------------------------------------------------------

_TIMEOUT_NAMES: Final = {
    TimeoutType.TIMEOUT_TYPE_SCHEDULE_TO_CLOSE: "ScheduleToClose",
    TimeoutType.TIMEOUT_TYPE_SCHEDULE_TO_START: "ScheduleToStart",
    TimeoutType.TIMEOUT_TYPE_START_TO_CLOSE: "StartToClose",
    TimeoutType.TIMEOUT_TYPE_HEARTBEAT: "Heartbeat",
}


_NO_TIME_LEFT: Final = (
    "Not enough time to schedule next retry before activity ScheduleToClose timeout, giving up retrying"
)
_TO_CLOSE: Final = TimeoutType.TIMEOUT_TYPE_SCHEDULE_TO_CLOSE
_TO_START: Final = TimeoutType.TIMEOUT_TYPE_SCHEDULE_TO_START
_START_TO_CLOSE: Final = TimeoutType.TIMEOUT_TYPE_START_TO_CLOSE
_HEARTBEAT: Final = TimeoutType.TIMEOUT_TYPE_HEARTBEAT


def next_deadline(activity: Activity) -> tuple[int, TimeoutType.ValueType] | None:
    """Return the first timeout that is running and when it is told, None if none is.

    The one place that knows of the grace: both the alarm and the check that it is still valid ask here.
    Of two that are due at once the one listed first here counts: an eager activity starts as it is scheduled, and what
    its caller bounded is then schedule-to-close, from which start-to-close has its default.
    """
    to_close, to_start, start_to_close, heartbeat = activity.deadlines
    running: list[tuple[int, TimeoutType.ValueType]] = []
    if to_start and activity.state is not State.STARTED:
        running.append((activity.ready_at + to_start, _TO_START))
    if to_close:
        running.append((activity.scheduled_at + to_close, _TO_CLOSE))
    grace = 0
    if activity.state is State.STARTED:
        grace = activity.timeout_grace
        if start_to_close:
            running.append((activity.started_at + start_to_close, _START_TO_CLOSE))
        if heartbeat:
            last = max(activity.started_at, activity.heartbeat_at)
            running.append((last + heartbeat, _HEARTBEAT))
    if not running:
        return None
    due, timeout_type = min(running, key=itemgetter(0))
    return due + grace, timeout_type


def _due_at(run: Run, key: int | str) -> int | None:
    activity = run.activities.get(cast(int, key))
    if activity is None:
        return None
    deadline = next_deadline(activity)
    if activity.state is State.BACKING_OFF and (deadline is None or activity.ready_at < deadline[0]):
        return activity.ready_at
    return None if deadline is None else deadline[0]


def _fire(t: Transition, key: int | str) -> None:
    activity = t.run.activities[cast(int, key)]
    deadline = next_deadline(activity)
    if deadline is not None and deadline[0] <= t.now:
        _time_out(t, activity, deadline[1])
        return
    if can(TABLE, activity, BackoffEnded):
        move(TABLE, activity, BackoffEnded)
        t.run.changes.activities.add(activity.scheduled_event_id)
        t.touch_row()
        t.effects.append(ready(t.run, activity))


def _time_out(t: Transition, activity: Activity, timeout_type: TimeoutType.ValueType) -> None:
    failure = timeout_failure(f"activity {_TIMEOUT_NAMES[timeout_type]} timeout", timeout_type)
    retry_state = retry_or_give_up(t, activity, failure)
    if retry_state == RetryState.RETRY_STATE_IN_PROGRESS:
        return
    if retry_state == RetryState.RETRY_STATE_TIMEOUT and timeout_type in (
        TimeoutType.TIMEOUT_TYPE_START_TO_CLOSE,
        TimeoutType.TIMEOUT_TYPE_HEARTBEAT,
    ):
        # No time is left for another attempt: that is the schedule-to-close timeout, only known earlier.
        timeout_type = TimeoutType.TIMEOUT_TYPE_SCHEDULE_TO_CLOSE
        failure = timeout_failure(_NO_TIME_LEFT, timeout_type)
    if activity.heartbeat_details:
        failure.timeout_failure_info.last_heartbeat_details.ParseFromString(activity.heartbeat_details)
    if activity.last_failure:
        failure.cause.ParseFromString(activity.last_failure)
    was_started = activity.state is State.STARTED
    closing = _TimedOut(
        scheduled_event_id=activity.scheduled_event_id,
        started_event_id=write_started(t, activity) if was_started else 0,
        failure=failure,
        retry_state=retry_state,
    )
    close(t, activity, closing)


registry.alarm(ALARM, due_at=_due_at, fire=_fire)


# --- events -----------------------------------------------------------------------------------------------------------


@registry.applies(_Scheduled)
def _apply_scheduled(run: Run, event: Event, attributes: _Scheduled) -> None:
    run.activities[event.event_id] = new_activity(event.event_id, event.at, attributes)
    run.activity_ids[attributes.activity_id] = event.event_id


@registry.applies(_Started)
def _apply_started(run: Run, event: Event, attributes: _Started) -> None:
    move(TABLE, run.activities[attributes.scheduled_event_id], _Started)


@registry.applies(_CancelRequested)
def _apply_cancel_requested(run: Run, event: Event, attributes: _CancelRequested) -> None:
    activity = run.activities.get(attributes.scheduled_event_id)
    if activity is not None:
        activity.cancel_requested = True
        activity.cancel_requested_event_id = event.event_id


@registry.applies(_Completed)
def _apply_completed(run: Run, event: Event, attributes: _Completed) -> None:
    _remove(run, attributes.scheduled_event_id, _Completed)


@registry.applies(_Failed)
def _apply_failed(run: Run, event: Event, attributes: _Failed) -> None:
    _remove(run, attributes.scheduled_event_id, _Failed)


@registry.applies(_TimedOut)
def _apply_timed_out(run: Run, event: Event, attributes: _TimedOut) -> None:
    _remove(run, attributes.scheduled_event_id, _TimedOut)


@registry.applies(_Canceled)
def _apply_canceled(run: Run, event: Event, attributes: _Canceled) -> None:
    _remove(run, attributes.scheduled_event_id, _Canceled)


def _remove(run: Run, scheduled_event_id: int, closing: type) -> None:
    activity = run.activities.pop(scheduled_event_id)
    if run.activity_ids[activity.activity_id] == scheduled_event_id:
        # Else a buffered closing event reached history after the id was used again.
        del run.activity_ids[activity.activity_id]
    move(TABLE, activity, closing)
