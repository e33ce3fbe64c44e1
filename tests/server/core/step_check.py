"""What every step of the core must hold to, whatever it does: checked by comparing the workflow before and after.

A refusal changes nothing. A step that is not dirty changes nothing that is stored. A step counts as one transition, and
as two where it also makes a held start durable. What has become ready is offered, what ends is told, and the next alarm
is set. And every run keeps the invariants.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
from temporalio.api.history.v1 import HistoryEvent

from perdure.server.core.effects import (
    ActivityTaskReady,
    AlarmSet,
    Effect,
    HistoryAdvanced,
    QueryAnswered,
    QueryReady,
    WorkflowTaskReady,
)
from perdure.server.core.inputs import Input, ReturnWorkflowTask, WithdrawQuery
from perdure.server.core.invariants import check_invariants
from perdure.server.core.machines import activity, query, workflow_task
from perdure.server.core.run import Run
from perdure.server.core.stored import stored_run
from perdure.server.core.workflow import Step, Workflow

Offer = tuple[str, str, str | int, int]


@dataclass(slots=True)
class _Before:
    """A run before the step."""

    memory: tuple[object, ...]
    row: bytes
    offers: set[Offer]
    queries: set[str]
    transitions: int
    was_held: bool
    due: int | None


class StepCheck:
    """Made before a step; says afterwards whether all is well.

    Args:
        workflow: The workflow that takes the step.
        events_of: Its histories.
    """

    def __init__(self, workflow: Workflow, events_of: Callable[[Run], list[HistoryEvent]]) -> None:
        self._workflow = workflow
        self._events_of = events_of
        self._current = workflow.current
        self._before = {run.run_id: self._look(run) for run in workflow.runs.values()}

    def _look(self, run: Run) -> _Before:
        events = self._events_of(run)
        return _Before(
            _memory(run),
            _row(run, events),
            _offers(run),
            set(run.queries.pending),
            run.transition_count,
            run.task.is_held,
            run.first_alarm(),
        )

    def nothing_changed(self) -> None:
        """Check that a refused step left everything as it was."""
        assert self._workflow.current is self._current
        assert set(self._workflow.runs) == set(self._before)
        for run_id, before in self._before.items():
            run = self._workflow.runs[run_id]
            assert _memory(run) == before.memory
            assert _row(run, self._events_of(run)) == before.row

    def step_is_sound(self, given: Input, step: Step) -> None:
        """Check a step that was taken."""
        for run in self._workflow.runs.values():
            events = self._events_of(run)
            check_invariants(run, events)
            before = self._before.get(run.run_id)
            self._check_counted(run, before, step.effects, given)
            if run.changes.deleted:
                continue
            _check_told(run, before, step.effects, given)
            if before is not None and not step.is_dirty:
                assert _row(run, events) == before.row, "a step that is not dirty changed what is stored"

    def _check_counted(self, run: Run, before: _Before | None, effects: list[Effect], given: Input) -> None:
        """Check that the step counts as one transition; a held start that becomes durable with it is one of its own."""
        is_dirty = any(isinstance(effect, HistoryAdvanced) and effect.run_id == run.run_id for effect in effects)
        expected = before.transitions if before is not None else 0
        if is_dirty:
            was_held = before is not None and before.was_held and not isinstance(given, ReturnWorkflowTask)
            expected += 2 if was_held else 1
        assert run.transition_count == expected, f"{run.transition_count} transitions, not {expected}"


def _check_told(run: Run, before: _Before | None, effects: list[Effect], given: Input) -> None:
    """Check that the effects tell what others must know."""
    made = {offer for effect in effects if (offer := _offered(effect)) is not None}
    new = _offers(run) - (before.offers if before is not None else set())
    assert new <= made, f"{new - made} became ready and was not offered"
    due = run.first_alarm()
    alarms = [effect.due for effect in effects if isinstance(effect, AlarmSet) and effect.run_id == run.run_id]
    if alarms or due != (before.due if before is not None else None):
        assert alarms[-1:] == [due], f"the next alarm is at {due}, told were {alarms}"
    if before is None or isinstance(given, WithdrawQuery):
        return
    answered = {effect.query_id for effect in effects if isinstance(effect, QueryAnswered)}
    gone = before.queries - set(run.queries.pending)
    assert gone == answered & before.queries, f"{gone} are gone, {answered} were told"


def _offers(run: Run) -> set[Offer]:
    """Return what of a run waits in a queue, as the effect that tells it would be."""
    offers: set[Offer] = set()
    task = run.task
    if task.state is workflow_task.State.SCHEDULED:
        offers.add((run.run_id, task.task_queue, "workflow task", task.scheduled_at))
    for pending in run.activities.values():
        if pending.state is activity.State.SCHEDULED:
            offers.add((run.run_id, pending.task_queue, pending.scheduled_event_id, pending.ready_at))
    for asked in run.queries.pending.values():
        if asked.state is query.State.DIRECT:
            queue = "normal" if asked.sticky_deadline is None else "sticky"
            offers.add((run.run_id, queue, asked.query_id, 0))
    return offers


def _offered(effect: Effect) -> Offer | None:
    if isinstance(effect, WorkflowTaskReady):
        return effect.run_id, effect.task_queue, "workflow task", effect.ready_at
    if isinstance(effect, ActivityTaskReady):
        return effect.run_id, effect.task_queue, effect.scheduled_event_id, effect.ready_at
    if isinstance(effect, QueryReady):
        return effect.run_id, "sticky" if effect.sticky else "normal", effect.query_id, 0
    return None


def _memory(run: Run) -> tuple[object, ...]:
    """Return all that memory holds of a run beside its rows, in a form that does not change with it."""
    changes = run.changes
    return (
        repr(run.task),
        repr(run.queries),
        repr(run.activities),
        repr(run.timers),
        repr(run.mail),
        repr(run.buffered),
        sorted(run.request_ids),
        (len(run.tail), run.tail_first_event_id, run.tail_bytes),
        (len(changes.events), sorted(changes.activities), sorted(changes.timers), list(changes.requests)),
        (changes.buffered_from, changes.buffered_cleared, changes.is_dirty, changes.closed, changes.deleted),
        run.stored_version,
    )


def _row(run: Run, events: Sequence[HistoryEvent]) -> bytes:
    """Return a run's rows without the opaque part, in which a held start leaves traces that mean nothing."""
    stored = stored_run(run, events)
    stored.run.state = b""
    return msgspec.msgpack.encode(stored)
