"""The start of a workflow task: held in memory, and written when it first matters.

A started task is only a lease on the right to decide. Its start is written with the first transition that commits
anything for the run; until then the events of the task are virtual: a worker is shown them, nobody else is. They are
built from the task's state alone, so they are the same whenever they are built.
"""

from __future__ import annotations

from temporalio.api.enums.v1 import SuggestContinueAsNewReason
from temporalio.api.history.v1 import WorkflowTaskStartedEventAttributes

from perdure._machine import move
from perdure.server.core.events import Event, build_event
from perdure.server.core.limits import Limits
from perdure.server.core.machines import workflow_task
from perdure.server.core.run import Run
from perdure.server.core.transition import Transition


def hold_start(t: Transition, identity: str, request_id: str) -> None:
    """Give the scheduled task to a worker; the start is only held in memory."""
    run, task = t.run, t.run.task
    if _has_news(run):
        _restart_as_normal(t)
    move(workflow_task.TABLE, task, workflow_task.StartHeld)
    task.started_event_id = run.next_event_id + 1 if task.is_transient else run.next_event_id
    task.started_at = t.now
    task.nonce = t.world.new_nonce()
    task.identity = identity
    task.request_id = request_id
    task.held_event = None
    task.history_size_bytes = run.history_size_bytes
    task.suggests_continue_as_new = _reasons_to_continue_as_new(run, t.world.limits)
    run.arm(workflow_task.TIMEOUT_ALARM, 0)
    t.holds_new_start = True


def _has_news(run: Run) -> bool:
    """Whether events came since a transient task was scheduled: it will decide on them, so it is to be a normal one."""
    return run.task.is_transient and run.task.scheduled_event_id != run.next_event_id


def _restart_as_normal(t: Transition) -> None:
    task = t.run.task
    move(workflow_task.TABLE, task, workflow_task.Abandoned)
    task.attempt = 1
    queue, deadline = task.task_queue, task.sticky_deadline
    workflow_task.schedule_now(t)
    task.task_queue, task.sticky_deadline = queue, deadline


def write_start(t: Transition) -> None:
    """Make a held start durable: with its event, or for a transient task without."""
    task = t.run.task
    if not task.is_held:
        return
    if not t.holds_new_start:
        t.run.transition_count += 1
    if task.is_transient:
        move(workflow_task.TABLE, task, workflow_task.StartedSilently)
        t.touch()
    else:
        assert task.started_event_id == t.run.next_event_id, "nothing is appended while a start is held"
        t.record_event(_held_event(t.run))
        task.held_event = None


def started_event(run: Run) -> Event:
    """Build the Started event of the started task; the same whenever it is built."""
    task = run.task
    attributes = WorkflowTaskStartedEventAttributes(
        scheduled_event_id=task.scheduled_event_id,
        identity=task.identity,
        request_id=task.request_id,
        history_size_bytes=task.history_size_bytes,
    )
    if task.suggests_continue_as_new:
        attributes.suggest_continue_as_new = True
        attributes.suggest_continue_as_new_reasons.extend(
            SuggestContinueAsNewReason.ValueType(reason) for reason in task.suggests_continue_as_new
        )
    return build_event(task.started_event_id, task.started_at, attributes)


def virtual_events(run: Run) -> list[bytes]:
    """Return the events of the task that are not in history yet, serialised."""
    task = run.task
    if task.is_transient and task.is_started:
        return [_scheduled_event(run).serialize(), started_event(run).serialize()]
    if task.is_transient and task.is_pending and not _has_news(run):
        return [_scheduled_event(run).serialize()]
    if task.is_held:
        return [_held_event(run).data]
    return []


def _held_event(run: Run) -> Event:
    """Return the Started event of a held start: the worker is shown the very bytes that history gets later."""
    event = run.task.held_event
    if event is None:
        event = run.task.held_event = started_event(run)
        event.data = event.serialize()
    return event


def _scheduled_event(run: Run) -> Event:
    task = run.task
    return build_event(
        task.scheduled_event_id, task.scheduled_at, workflow_task.scheduled_attributes(run, task.timeout)
    )


def write_events(t: Transition) -> None:
    """Write the events of the started task that are not in history yet, because it is about to end with one."""
    write_start(t)
    run, task = t.run, t.run.task
    if not task.is_transient:
        return
    pair = (_scheduled_event(run), started_event(run))
    first_scheduled_at = task.first_scheduled_at
    move(workflow_task.TABLE, task, workflow_task.Abandoned)
    for event in pair:
        t.record_event(event)
    task.first_scheduled_at = first_scheduled_at


def _reasons_to_continue_as_new(run: Run, limits: Limits) -> tuple[int, ...]:
    reasons: list[int] = []
    if run.history_size_bytes >= limits.history_size_suggest_continue_as_new:
        reasons.append(SuggestContinueAsNewReason.SUGGEST_CONTINUE_AS_NEW_REASON_HISTORY_SIZE_TOO_LARGE)
    if run.next_event_id - 1 >= limits.history_count_suggest_continue_as_new:
        reasons.append(SuggestContinueAsNewReason.SUGGEST_CONTINUE_AS_NEW_REASON_TOO_MANY_HISTORY_EVENTS)
    return tuple(reasons)
