"""What each workflow of the load does, and the decisions of its synthetic worker, made from history alone.

A workflow runs its activities, one timer or none, waits for its signals, and completes. A worker keeps no state of it:
every decision is made from the whole history, so that it does not matter which worker makes it, or how often.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator, Sequence

import msgspec
from temporalio.api.command.v1 import (
    Command,
    CompleteWorkflowExecutionCommandAttributes,
    ScheduleActivityTaskCommandAttributes,
    StartTimerCommandAttributes,
)
from temporalio.api.common.v1 import ActivityType, Payload, Payloads, RetryPolicy
from temporalio.api.enums.v1 import CommandType, EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.taskqueue.v1 import TaskQueue

START_TO_CLOSE_SECONDS = 3
"""How long an activity whose start was lost with the server keeps its workflow waiting."""


class ActivityPlan(msgspec.Struct, frozen=True):
    """One activity of a workflow."""

    maximum_attempts: int
    """0 for no limit, 1 for at most one start."""
    fails_first: bool
    """Whether its first attempt fails and it is retried."""
    eager: bool
    """Whether the worker asks to get it with the reply to its workflow task."""


class Plan(msgspec.Struct, frozen=True):
    """What one workflow does; it travels as the workflow's input."""

    activities: list[ActivityPlan]
    signals: int
    timer_milliseconds: int
    """0 for no timer."""


def seed_of_run() -> int:
    """Return the seed of everything random, which an environment variable may set."""
    seed = int(os.environ.get("PERDURE_CRASH_SEED", "0")) or random.SystemRandom().randrange(1, 2**32)
    print(f"PERDURE_CRASH_SEED={seed}")  # noqa: T201 - pytest shows it with a failure, and it repeats the faults
    return seed


def random_plan(dice: random.Random) -> Plan:
    """Throw a plan."""
    return Plan(
        activities=[_random_activity(dice) for _ in range(dice.randint(1, 3))],
        signals=dice.randint(0, 2),
        timer_milliseconds=dice.choice([0, 0, 50, 400]),
    )


def _random_activity(dice: random.Random) -> ActivityPlan:
    once = dice.random() < 0.5
    return ActivityPlan(
        maximum_attempts=1 if once else 0,
        fails_first=not once and dice.random() < 0.3,
        eager=dice.random() < 0.3,
    )


def payloads(value: object) -> Payloads:
    """Encode a value as the SDKs do."""
    return Payloads(payloads=[Payload(metadata={"encoding": b"json/plain"}, data=json.dumps(value).encode())])


def value_of(encoded: Payloads) -> str:
    """Read a single text back. Raises ValueError where it is none."""
    value = json.loads(encoded.payloads[0].data)
    if not isinstance(value, str):
        raise ValueError(f"a text was expected, not {value!r}")
    return value


def plan_of(started: HistoryEvent) -> Plan:
    """Read the plan from the first event of a history."""
    given = started.workflow_execution_started_event_attributes.input.payloads[0].data
    return msgspec.json.decode(given, type=Plan)


def decide(events: Sequence[HistoryEvent], task_queue: str) -> list[Command]:
    """Return what the workflow does next; nothing while it only waits.

    An activity is named by its place in the plan and the number of its replacement, such as `1.0`. One that timed out
    or failed for good is replaced, so that every workflow can complete however often the server was killed.
    """
    plan = plan_of(events[0])
    outcomes = _outcomes(events)
    commands: list[Command] = []
    complete = _count(events, EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED) >= plan.signals
    for place, activity in enumerate(plan.activities):
        replacement, outcome = outcomes.get(place, (-1, _LOST))
        complete &= outcome == _COMPLETED
        if outcome == _LOST:
            commands.append(_schedule(f"{place}.{replacement + 1}", activity, task_queue))
    if plan.timer_milliseconds:
        complete &= _count(events, EventType.EVENT_TYPE_TIMER_FIRED) > 0
        if not _count(events, EventType.EVENT_TYPE_TIMER_STARTED):
            commands.append(_start_timer(plan.timer_milliseconds))
    return [_complete()] if complete else commands


_PENDING, _COMPLETED, _LOST = "pending", "completed", "lost"

_LOSING = {
    EventType.EVENT_TYPE_ACTIVITY_TASK_FAILED: "activity_task_failed_event_attributes",
    EventType.EVENT_TYPE_ACTIVITY_TASK_TIMED_OUT: "activity_task_timed_out_event_attributes",
}


def _outcomes(events: Sequence[HistoryEvent]) -> dict[int, tuple[int, str]]:
    """Return the latest replacement and its outcome for each place of the plan that has been scheduled."""
    names: dict[int, tuple[int, int]] = {}
    outcomes: dict[int, tuple[int, str]] = {}
    for scheduled_event_id, activity_id in _scheduled(events):
        place, replacement = (int(part) for part in activity_id.split("."))
        names[scheduled_event_id] = place, replacement
        outcomes[place] = replacement, _PENDING
    for event in events:
        if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED:
            place, replacement = names[event.activity_task_completed_event_attributes.scheduled_event_id]
            outcomes[place] = replacement, _COMPLETED
        elif event.event_type in _LOSING:
            place, replacement = names[getattr(event, _LOSING[event.event_type]).scheduled_event_id]
            if outcomes[place][0] == replacement:
                outcomes[place] = replacement, _LOST
    return outcomes


def _scheduled(events: Sequence[HistoryEvent]) -> Iterator[tuple[int, str]]:
    for event in events:
        if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED:
            yield event.event_id, event.activity_task_scheduled_event_attributes.activity_id


def _count(events: Sequence[HistoryEvent], event_type: EventType.ValueType) -> int:
    return sum(event.event_type == event_type for event in events)


def _schedule(activity_id: str, plan: ActivityPlan, task_queue: str) -> Command:
    retry_policy = RetryPolicy(maximum_attempts=plan.maximum_attempts)
    retry_policy.initial_interval.FromMilliseconds(100)
    attributes = ScheduleActivityTaskCommandAttributes(
        activity_id=activity_id,
        activity_type=ActivityType(name="fails-first" if plan.fails_first else "succeeds"),
        task_queue=TaskQueue(name=task_queue),
        retry_policy=retry_policy,
        request_eager_execution=plan.eager,
    )
    attributes.start_to_close_timeout.FromSeconds(START_TO_CLOSE_SECONDS)
    return Command(
        command_type=CommandType.COMMAND_TYPE_SCHEDULE_ACTIVITY_TASK,
        schedule_activity_task_command_attributes=attributes,
    )


def _start_timer(milliseconds: int) -> Command:
    attributes = StartTimerCommandAttributes(timer_id="timer")
    attributes.start_to_fire_timeout.FromMilliseconds(milliseconds)
    return Command(command_type=CommandType.COMMAND_TYPE_START_TIMER, start_timer_command_attributes=attributes)


def _complete() -> Command:
    return Command(
        command_type=CommandType.COMMAND_TYPE_COMPLETE_WORKFLOW_EXECUTION,
        complete_workflow_execution_command_attributes=CompleteWorkflowExecutionCommandAttributes(
            result=payloads("done")
        ),
    )
