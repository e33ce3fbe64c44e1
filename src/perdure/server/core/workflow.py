"""The workflow entity: one workflow id, its current run and its other loaded runs. It routes inputs and starts runs.

The consistency unit is the workflow id. Whether an id may be started, and every change that closes a run and makes its
successor, is one step here. A step is valid or nothing: a refusal leaves the entity as it was; any other exception
voids it, and the engine drops it from memory.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from perdure.server.core import delivery, enforcement, machines, starting
from perdure.server.core.effects import Effect
from perdure.server.core.errors import NotFound
from perdure.server.core.inputs import Acknowledge, Deliver, Input, SignalWithStart, Start
from perdure.server.core.machines import held_start, query
from perdure.server.core.mail import mail_write
from perdure.server.core.records import EntityWrite, WorkflowKey
from perdure.server.core.registry import input_handlers
from perdure.server.core.run import Run
from perdure.server.core.stored import take_write
from perdure.server.core.transition import Circumstances, Transition

assert machines.__path__, "importing the package registers every machine"


class Step(msgspec.Struct):
    """What one input led to."""

    reply: object
    effects: list[Effect] = []
    is_dirty: bool = False


class Workflow(msgspec.Struct, gc=False):
    """One workflow id. `current` is its latest run, open or closed; older runs are loaded when they are asked for."""

    key: WorkflowKey
    current: Run | None = None
    runs: dict[str, Run] = {}
    notes: delivery.Notes | None = None
    """What came and went between this id and others since the last cut."""
    leaving: set[str] = set()
    """Runs that are deleted; until that is durable the store still has them, and they must not come back from there."""

    def has_loaded(self, run_id: str) -> bool:
        """Return whether memory can tell of the run an input names; an empty id names the current one."""
        return not run_id or run_id in self.runs or run_id in self.leaving

    def add(self, run: Run) -> None:
        """Take in a run from the store."""
        self.runs[run.run_id] = run
        if run.is_current:
            self.current = run

    def step(self, given: Input, world: Circumstances) -> Step:
        """Answer one input.

        Raises:
            Refusal: The rules do not allow it. Nothing changed.
        """
        handler = input_handlers.get(type(given))
        if handler is None:
            if isinstance(given, Deliver | Acknowledge):
                return self._exchange(given, world)
            assert isinstance(given, Start | SignalWithStart), "every other input is handled by a machine"
            transitions, start_reply = starting.start(self.key, self.current, given, world)
            return self._finish(transitions, start_reply)
        transition = Transition(self._find(given.run_id), world, world.now)
        reply = handler(transition, given)
        return self._finish((transition,), reply)

    def _exchange(self, given: Deliver | Acknowledge, world: Circumstances) -> Step:
        """Take in a message, or the answer to one; what is noted of it belongs to the id, not to a run."""
        target = self._named(given.run_id)
        if isinstance(given, Deliver):
            transitions, answer = delivery.deliver(self.key, target, given, world)
            step = self._finish(transitions, answer)
            if step.is_dirty:
                self._note().inbox.append(delivery.inbox_record(given.message, answer))
            return step
        step = self._finish(delivery.acknowledge(target, given, world), None)
        self._note().acknowledged.append(given.message)
        step.is_dirty = True
        return step

    def _note(self) -> delivery.Notes:
        if self.notes is None:
            self.notes = delivery.Notes()
        return self.notes

    def _named(self, run_id: str) -> Run | None:
        run = self.runs.get(run_id) if run_id else self.current
        return None if run is None or run.changes.deleted else run

    def _find(self, run_id: str) -> Run:
        if not run_id:
            if self.current is None:
                raise NotFound(f"workflow not found for ID: {self.key.workflow_id}")
            return self.current
        run = self.runs.get(run_id)
        if run is None or run.changes.deleted:
            raise NotFound(
                f'workflow execution not found for workflow ID "{self.key.workflow_id}" and run ID "{run_id}"'
            )
        return run

    def _finish(self, transitions: Sequence[Transition], reply: object) -> Step:
        step = Step(reply)
        for transition in transitions:
            self._finish_one(transition, step)
            if transition.successor is not None:
                self._finish_one(transition.successor, step)
        return step

    def _finish_one(self, transition: Transition, step: Step) -> None:
        run = transition.run
        if transition.is_dirty:
            enforcement.enforce(transition)
            if run.task.is_held:
                held_start.write_start(transition)
        if run.queries.pending:
            query.settle(transition)
        transition.finish()
        step.effects += transition.effects
        step.is_dirty = step.is_dirty or transition.is_dirty or transition.is_row_dirty
        if run.run_id not in self.runs:
            self.add(run)
        if run.changes.deleted and self.current is run:
            run.is_current = False
            self.current = None

    def take_write(self) -> EntityWrite:
        """Return all that changed since the last cut, as rows; deleted runs leave memory with it."""
        write = take_write(self.key, list(self.runs.values()))
        if self.notes is not None:
            self.notes.take(mail_write(write))
            self.notes = None
        for run_id in write.runs_deleted:
            del self.runs[run_id]
            self.leaving.add(run_id)
        return write

    def drop_old_runs(self) -> None:
        """Forget loaded runs that are not current and hold nothing that is not stored; all of it is durable now."""
        self.leaving.clear()
        for run in list(self.runs.values()):
            if not run.is_current and not run.changes.is_dirty and not run.holds_undurable_state():
                del self.runs[run.run_id]

    def holds_undurable_state(self) -> bool:
        """Whether the entity must stay in the cache."""
        return any(run.holds_undurable_state() or run.changes.is_dirty for run in self.runs.values())
