"""What must hold: after every step of every run, and in the end of everything that was acknowledged."""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from unittest import mock

from temporalio.api.history.v1 import HistoryEvent

from perdure.server.core.events import attributes_of
from perdure.server.core.inputs import Input, Locate
from perdure.server.core.invariants import check_invariants
from perdure.server.core.records import WorkflowKey
from perdure.server.core.run import RUNNING, Run
from perdure.server.core.transition import Circumstances
from perdure.server.core.workflow import Step, Workflow
from perdure.server.store.memory import MemoryDatabase
from perdure.server.store.memory.database import Pending
from tests.simulation.ledger import Answer, Fate, Ledger


class ServerBug(AssertionError):
    """The server itself noticed that something in it is broken, or left an exception lying."""


class Bugs(logging.Handler):
    """Collects what the server logs as its own fault, errors with a traceback, and tells of the first."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.first: ServerBug | None = None
        self.tell: Callable[[ServerBug], None] | None = None

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and self.first is None:
            self.first = ServerBug(record.getMessage())
            self.first.__cause__ = record.exc_info[1]
            if self.tell is not None:
                self.tell(self.first)


@contextlib.contextmanager
def bugs_raised() -> Iterator[Bugs]:
    """Raise what the server logs as its own fault."""
    bugs = Bugs()
    logger = logging.getLogger("perdure")
    logger.addHandler(bugs)
    was_propagated, logger.propagate = logger.propagate, False
    try:
        yield bugs
    finally:
        logger.removeHandler(bugs)
        logger.propagate = was_propagated
        if bugs.first is not None:
            raise bugs.first


@contextlib.contextmanager
def every_step_checked(database: MemoryDatabase, may_step: Callable[[WorkflowKey], None]) -> Iterator[None]:
    """Check every run of an entity after every step of it, and before it whether it may be taken."""
    step = Workflow.step

    def checked_step(entity: Workflow, given: Input, world: Circumstances) -> Step:
        may_step(entity.key)
        try:
            return step(entity, given, world)
        finally:
            # After a refusal too: it must have changed nothing. A look at a run cannot change it.
            if not isinstance(given, Locate):
                for run in entity.runs.values():
                    _check_run(run, database)

    with mock.patch.object(Workflow, "step", checked_step):
        yield


def _check_run(run: Run, database: MemoryDatabase) -> None:
    stored = database.tables.events.get(run.run_id, {})
    if run.changes.deleted or len(stored) < run.tail_first_event_id - 1:
        # It is being deleted; or it was, by a process that has replaced this one.
        return
    older = [stored[event_id].data for event_id in range(1, run.tail_first_event_id)]
    check_invariants(run, [HistoryEvent.FromString(data) for data in (*older, *run.tail)])


def histories(database: MemoryDatabase) -> dict[str, list[HistoryEvent]]:
    """Return all durable histories, by run id in its order."""
    return {
        run_id: [HistoryEvent.FromString(event.data) for _, event in sorted(events.items())]
        for run_id, events in sorted(database.tables.events.items())
    }


def fingerprint(database: MemoryDatabase) -> str:
    """Return a hash over all durable events."""
    digest = hashlib.sha256()
    for run_id, events in histories(database).items():
        digest.update(run_id.encode())
        for event in events:
            digest.update(event.SerializeToString(deterministic=True))
    return digest.hexdigest()


def check_end(database: MemoryDatabase, ledger: Ledger) -> None:
    """Check what the database holds in the end against what was acknowledged."""
    found = histories(database)
    check_messages(database, found)
    for run_id, events in found.items():
        assert [event.event_id for event in events] == list(range(1, len(events) + 1)), f"{run_id} has gaps"
    _check_current_runs(database)
    for start in ledger.starts:
        assert start.run_id in found or start.run_id in ledger.deleted, f"the acknowledged run {start.run_id} is lost"
    for run_id in ledger.deletes_acknowledged:
        assert run_id not in database.tables.runs, f"the deleted run {run_id} is there"
        assert run_id not in found, f"events of the deleted run {run_id} are there"
    for run_id in ledger.terminated - ledger.deleted:
        closing = found[run_id][-1]
        assert closing.HasField("workflow_execution_terminated_event_attributes"), f"{run_id} was not terminated"
    _check_signals(found, ledger)
    _check_answers(found, ledger)
    _check_single_attempts(found, ledger)
    for run_id, seen in ledger.seen_histories:
        if run_id not in ledger.deleted:
            assert found[run_id][: len(seen)] == seen, f"a client was told events of {run_id} that are not there"


def check_messages(database: MemoryDatabase, found: dict[str, list[HistoryEvent]]) -> None:
    """Check that every message has come to its end, that each had its effect once, and that both sides agree."""
    assert not database.tables.outbox, f"never delivered: {list(database.tables.outbox.values())}"
    assert not database.tables.inbox, f"left over: {list(database.tables.inbox.values())}"
    first_runs: dict[tuple[str, int], str] = {}
    for run_id, events in found.items():
        start = events[0].workflow_execution_started_event_attributes
        if start.parent_initiated_event_id and not start.continued_execution_run_id:
            which = (start.parent_workflow_execution.run_id, start.parent_initiated_event_id)
            assert which not in first_runs, f"{run_id} and {first_runs[which]} are the same child"
            first_runs[which] = run_id
    for run_id, events in found.items():
        for event in events:
            _check_child_event(run_id, event, found, first_runs)


def _check_child_event(
    run_id: str,
    event: HistoryEvent,
    found: dict[str, list[HistoryEvent]],
    first_runs: dict[tuple[str, int], str],
) -> None:
    which = event.WhichOneof("attributes") or ""
    if not which.startswith("child_workflow_execution_"):
        return
    attributes = getattr(event, which)
    child_run_id = attributes.workflow_execution.run_id
    if child_run_id not in found:
        # It was deleted.
        return
    if which == "child_workflow_execution_started_event_attributes":
        assert first_runs[run_id, attributes.initiated_event_id] == child_run_id
    else:
        closing = found[child_run_id][-1].WhichOneof("attributes") or ""
        assert closing == which.removeprefix("child_"), f"{child_run_id}: {closing}, its parent has {which}"


def check_all_closed(database: MemoryDatabase) -> None:
    """Check that no run is open."""
    left_open = {run.workflow_id: run.run_id for run in database.tables.runs.values() if run.status == RUNNING}
    assert not left_open, f"these never ended: {left_open}"


def _check_current_runs(database: MemoryDatabase) -> None:
    runs = database.tables.runs.values()
    current = Counter(WorkflowKey(run.namespace_id, run.workflow_id) for run in runs if run.is_current)
    assert all(count == 1 for count in current.values()), f"more than one current run: {current}"
    for run in runs:
        if run.status == RUNNING:
            assert run.is_current, f"{run.run_id} is open and not current"
            continue
        pending = database.tables.pending.get(run.run_id, Pending())
        left = (pending.activities, pending.timers, pending.buffered, pending.children)
        assert not any(left), f"{run.run_id} has closed and left {left}"


def _check_signals(found: dict[str, list[HistoryEvent]], ledger: Ledger) -> None:
    counted = Counter(
        (run_id, event.workflow_execution_signaled_event_attributes.signal_name)
        for run_id, events in found.items()
        for event in events
        if event.HasField("workflow_execution_signaled_event_attributes")
    )
    totals: Counter[str] = Counter()
    for (_, name), count in counted.items():
        totals[name] += count
    for name, signal in ledger.signals.items():
        total = totals[name]
        if signal.run_id:
            assert total <= 1, f"signal {name} is there {total} times"
        if signal.fate is Fate.ACKNOWLEDGED and signal.run_id not in ledger.deleted:
            assert total >= 1, f"the acknowledged signal {name} is lost"
        if signal.fate is Fate.REFUSED:
            assert total == 0, f"the refused signal {name} is there"
    assert all(count == 1 for count in counted.values()), f"signals came twice into one run: {counted}"


def _check_answers(found: dict[str, list[HistoryEvent]], ledger: Ledger) -> None:
    written: Counter[tuple[str, str]] = Counter()
    for events in found.values():
        for event in events:
            identity = getattr(attributes_of(event), "identity", "")
            if identity in ledger.answers:
                which = event.WhichOneof("attributes") or ""
                written[identity, which.removesuffix("_event_attributes")] += 1
    for identity, answer in ledger.answers.items():
        if answer.run_id not in ledger.deleted and answer.event_field:
            count = written[identity, answer.event_field]
            _check_answer(identity, answer, count)
            if answer.fate is Fate.ACKNOWLEDGED and answer.history:
                decided_on = found[answer.run_id][: len(answer.history)]
                assert decided_on == answer.history, f"{identity}: its task was of another history than {answer.run_id}"


def _check_answer(identity: str, answer: Answer, count: int) -> None:
    expected = {Fate.ACKNOWLEDGED: (1,), Fate.REFUSED: (0,), Fate.UNKNOWN: (0, 1)}[answer.fate]
    assert count in expected, (
        f"{identity}: {answer.fate.name}, and {count} times {answer.event_field} in {answer.run_id}"
    )


def _check_single_attempts(found: dict[str, list[HistoryEvent]], ledger: Ledger) -> None:
    given = Counter((run_id, scheduled) for run_id, scheduled, _ in ledger.given_activities)
    for run_id, events in found.items():
        for event in events:
            attributes = event.activity_task_scheduled_event_attributes
            if attributes.retry_policy.maximum_attempts == 1:
                assert given[run_id, event.event_id] <= 1, f"activity {event.event_id} of {run_id} was given away twice"
