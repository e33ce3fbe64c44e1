"""One workflow timer, from the StartTimer command until it fired or was cancelled.

A cancel and a fire can race: the timer may be due while the task that cancels it is started. Then its TimerFired event
is buffered, and a cancel in that very task still wins: the buffered event is taken back, as if the timer had not fired.
Once the fire is in history the timer is gone, and cancelling it is the worker's mistake.
"""

from __future__ import annotations

from enum import auto
from typing import Final, cast

import msgspec
from temporalio.api.command.v1 import Command
from temporalio.api.enums.v1 import CommandType
from temporalio.api.history.v1 import (
    TimerCanceledEventAttributes,
    TimerFiredEventAttributes,
    TimerStartedEventAttributes,
)

from perdure._machine import MachineState, Table, move
from perdure.server.core import registry
from perdure.server.core.checks import check_cancel_timer, no_running_timer, normalize_start_timer, timer_id_taken
from perdure.server.core.command_batch import CommandBatch, metadata_of
from perdure.server.core.durations import nanos_of
from perdure.server.core.events import Event
from perdure.server.core.machines import workflow_task
from perdure.server.core.run import Run
from perdure.server.core.transition import Transition


class State(MachineState):
    """What has become of a timer."""

    RUNNING = auto()
    FIRED = auto()
    CANCELED = auto()


TABLE: Final[Table[State]] = {
    (State.RUNNING, TimerFiredEventAttributes): State.FIRED,
    (State.RUNNING, TimerCanceledEventAttributes): State.CANCELED,
}


class Timer(msgspec.Struct, gc=False):
    """A pending timer; one that fired or was cancelled is no longer in its run."""

    timer_id: str
    started_event_id: int
    fires_at: int
    state: State = State.RUNNING

    @property
    def alarm_key(self) -> str:
        """The key of its alarm: of timers that are due at the same time, the one started first fires first."""
        return f"{self.started_event_id:09d} {self.timer_id}"


ALARM: Final = "timer"


def _check_start(batch: CommandBatch, command: Command) -> None:
    attributes = command.start_timer_command_attributes
    attributes.CopyFrom(normalize_start_timer(attributes, batch.facts, batch.limits))
    if attributes.timer_id in batch.timer_ids:
        raise timer_id_taken(attributes.timer_id)
    batch.timer_ids.add(attributes.timer_id)


def _record_start(t: Transition, command: Command) -> None:
    attributes = command.start_timer_command_attributes
    event = t.record(
        TimerStartedEventAttributes(
            timer_id=attributes.timer_id,
            start_to_fire_timeout=attributes.start_to_fire_timeout,
            workflow_task_completed_event_id=t.run.last_task_completed_event_id,
        ),
        user_metadata=metadata_of(command),
    )
    t.run.changes.timers.add(attributes.timer_id)
    assert event.event_id > 0
    t.run.arm(ALARM, t.run.timers[attributes.timer_id].alarm_key)


def _check_cancel(batch: CommandBatch, command: Command) -> None:
    attributes = command.cancel_timer_command_attributes
    check_cancel_timer(attributes, batch.facts, batch.limits)
    timer_id = attributes.timer_id
    if timer_id in batch.timer_ids:
        batch.timer_ids.remove(timer_id)
        return
    if timer_id in batch.retracted_timers or buffered_fire(batch.run, timer_id) is None:
        raise no_running_timer(timer_id)
    batch.retracted_timers.add(timer_id)
    batch.buffered_left -= 1


def _record_cancel(t: Transition, command: Command) -> None:
    timer_id = command.cancel_timer_command_attributes.timer_id
    timer = t.run.timers.get(timer_id)
    if timer is None:
        fired = buffered_fire(t.run, timer_id)
        assert fired is not None, "checked before anything changed"
        t.forget_buffered(fired)
        assert isinstance(fired.attributes, TimerFiredEventAttributes)
        started_event_id = fired.attributes.started_event_id
    else:
        started_event_id = timer.started_event_id
    t.record(
        TimerCanceledEventAttributes(
            timer_id=timer_id,
            started_event_id=started_event_id,
            workflow_task_completed_event_id=t.run.last_task_completed_event_id,
            identity=t.identity,
        ),
        user_metadata=metadata_of(command),
    )
    t.run.changes.timers.add(timer_id)


def buffered_fire(run: Run, timer_id: str) -> Event | None:
    """Return the buffered TimerFired event of a timer, if there is one."""
    for event in run.buffered:
        if isinstance(event.attributes, TimerFiredEventAttributes) and event.attributes.timer_id == timer_id:
            return event
    return None


registry.command(CommandType.COMMAND_TYPE_START_TIMER, check=_check_start, record=_record_start)
registry.command(CommandType.COMMAND_TYPE_CANCEL_TIMER, check=_check_cancel, record=_record_cancel)


def _due_at(run: Run, key: int | str) -> int | None:
    timer = run.timers.get(_timer_id(key))
    return None if timer is None or timer.alarm_key != key else timer.fires_at


def _fire(t: Transition, key: int | str) -> None:
    timer = t.run.timers[_timer_id(key)]
    t.record(TimerFiredEventAttributes(timer_id=timer.timer_id, started_event_id=timer.started_event_id))
    t.run.changes.timers.add(timer.timer_id)
    workflow_task.schedule(t)


def _timer_id(key: int | str) -> str:
    return cast(str, key).partition(" ")[2]


registry.alarm(ALARM, due_at=_due_at, fire=_fire)


@registry.applies(TimerStartedEventAttributes)
def _apply_started(run: Run, event: Event, attributes: TimerStartedEventAttributes) -> None:
    fires_at = event.at + nanos_of(attributes.start_to_fire_timeout)
    run.timers[attributes.timer_id] = Timer(attributes.timer_id, event.event_id, fires_at)


@registry.applies(TimerFiredEventAttributes)
def _apply_fired(run: Run, event: Event, attributes: TimerFiredEventAttributes) -> None:
    timer = _take(run, attributes.timer_id, attributes.started_event_id)
    if timer is not None:
        move(TABLE, timer, TimerFiredEventAttributes)


@registry.applies(TimerCanceledEventAttributes)
def _apply_canceled(run: Run, event: Event, attributes: TimerCanceledEventAttributes) -> None:
    timer = _take(run, attributes.timer_id, attributes.started_event_id)
    if timer is not None:
        move(TABLE, timer, TimerCanceledEventAttributes)


def _take(run: Run, timer_id: str, started_event_id: int) -> Timer | None:
    """Take the timer an event means: by the time a buffered one reaches history, its id may belong to another timer."""
    timer = run.timers.get(timer_id)
    if timer is None or timer.started_event_id != started_event_id:
        return None
    return run.timers.pop(timer_id)
