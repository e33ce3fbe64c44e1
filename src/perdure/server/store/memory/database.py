"""What a disk would be to the in-memory store: tables, the fence, and changes that are checked before they are made.

A database outlives the stores opened on it, so a simulated crash is a new store on the old database. What is durable
becomes visible when the commit returns, or when another process claims the database.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable

import msgspec

from perdure.server.core.records import (
    ActivityRecord,
    BufferedEventRecord,
    ChildRecord,
    EntityWrite,
    EventRecord,
    InboxRecord,
    MailWrite,
    NamespaceRecord,
    OutboxRecord,
    RunRecord,
    TimerRecord,
    WorkflowKey,
)
from perdure.server.store.interface import BatchRejected, Claim, ShardMove, StaleVersion
from perdure.server.store.memory.members import Members


class Pending(msgspec.Struct):
    """All that hangs on one run while it is open."""

    activities: dict[int, ActivityRecord] = {}
    timers: dict[str, TimerRecord] = {}
    buffered: dict[int, BufferedEventRecord] = {}
    request_ids: set[str] = set()
    children: dict[int, ChildRecord] = {}

    def copied(self) -> Pending:
        """Return a copy that can be changed on its own."""
        return Pending(
            dict(self.activities),
            dict(self.timers),
            dict(self.buffered),
            set(self.request_ids),
            dict(self.children),
        )


class Tables(msgspec.Struct):
    """The rows, each kind by its key."""

    runs: dict[str, RunRecord] = {}
    current: dict[WorkflowKey, str] = {}
    events: dict[str, dict[int, EventRecord]] = {}
    pending: dict[str, Pending] = {}
    namespaces: dict[str, NamespaceRecord] = {}
    outbox: dict[tuple[str, int], OutboxRecord] = {}
    inbox: dict[tuple[str, str, str], InboxRecord] = {}


class MemoryDatabase:
    """What stores are opened on, one after the other or side by side.

    Args:
        cluster_id: The id the database is given, as a UUID in text.
        now: Its clock, in nanoseconds, which judges the leases of nodes.
    """

    def __init__(
        self,
        cluster_id: str = "00000000-0000-4000-8000-000000000000",
        *,
        now: Callable[[], int] = time.time_ns,
    ) -> None:
        self.cluster_id = cluster_id
        self.tables = Tables()
        self.claims: dict[str, Claim] = {}
        self.members = Members(now)
        self._durable: list[tuple[Change, str, list[ShardMove]]] = []

    def make_durable(self, change: Change, moves: list[ShardMove], node: str, claim: Claim) -> None:
        """Keep a change for good, not visible yet."""
        self._durable.append((change, node, moves))
        self.claims[node] = claim

    def show_durable(self) -> None:
        """Make visible all that is durable."""
        for change, node, moves in self._durable:
            change.apply()
            self.members.move(node, moves)
        self._durable.clear()

    def bump(self, node: str) -> Claim:
        """Bump a node's incarnation, which fences who holds the one before; what is durable becomes visible."""
        self.show_durable()
        former = self.claims.get(node, Claim(0, 0))
        self.claims[node] = Claim(former.incarnation + 1, former.batch)
        return self.claims[node]


class Change:
    """What a batch would make of the tables: checked as a whole before anything is touched."""

    def __init__(self, tables: Tables, writes: Iterable[EntityWrite]) -> None:
        self._tables = tables
        self._runs: dict[str, RunRecord | None] = {}
        self._pending: dict[str, Pending] = {}
        self._events: dict[tuple[str, int], EventRecord] = {}
        self._current: dict[WorkflowKey, str] = {}
        self._deleted: list[str] = []
        self._mail: list[MailWrite] = []
        for write in writes:
            self._add(write)

    def apply(self) -> None:
        """Change the tables."""
        tables = self._tables
        for run_id, run in self._runs.items():
            self._replace_run(run_id, run)
        for run in self._runs.values():
            if run is not None and run.is_current:
                tables.current[WorkflowKey(run.namespace_id, run.workflow_id)] = run.run_id
        for run_id, pending in self._pending.items():
            tables.pending[run_id] = pending
        for event in self._events.values():
            tables.events.setdefault(event.run_id, {})[event.event_id] = event
        for run_id in self._deleted:
            tables.pending.pop(run_id, None)
            tables.events.pop(run_id, None)
        for mail in self._mail:
            self._exchange_mail(mail)

    def _exchange_mail(self, write: MailWrite) -> None:
        tables = self._tables
        for sent in write.outbox:
            tables.outbox[sent.run_id, sent.number] = sent
        for key in write.outbox_removed:
            tables.outbox.pop(key, None)
        for sender_run_id, namespace_id, workflow_id, number in write.inbox_removed:
            last = tables.inbox.get((sender_run_id, namespace_id, workflow_id))
            if last is not None and last.number <= number:
                del tables.inbox[sender_run_id, namespace_id, workflow_id]
        for received in write.inbox:
            tables.inbox[received.sender_run_id, received.namespace_id, received.workflow_id] = received

    def _replace_run(self, run_id: str, run: RunRecord | None) -> None:
        tables = self._tables
        former = tables.runs.pop(run_id, None)
        if former is not None and former.is_current:
            tables.current.pop(WorkflowKey(former.namespace_id, former.workflow_id), None)
        if run is not None:
            tables.runs[run_id] = run

    def _add(self, write: EntityWrite) -> None:
        for run in write.runs:
            self._add_run(run)
        for event in write.events:
            self._add_event(event)
        self._add_pending(write)
        if write.mail is not None:
            self._add_mail(write.mail)
        for run_id in write.runs_closed:
            self._pending[run_id] = Pending(request_ids=self._pending_of(run_id).request_ids)
        for run_id in write.runs_deleted:
            self._pending[run_id] = Pending()
            self._runs[run_id] = None
            self._deleted.append(run_id)
        self._check_one_current(write)

    def _run(self, run_id: str) -> RunRecord | None:
        return self._runs[run_id] if run_id in self._runs else self._tables.runs.get(run_id)

    def _add_run(self, run: RunRecord) -> None:
        stored = self._run(run.run_id)
        stored_version = 0 if stored is None else stored.version
        if stored_version != run.stored_version:
            raise StaleVersion(
                f"Run {run.run_id} is stored in version {stored_version}, not in the expected {run.stored_version}."
            )
        _check_texts(run.namespace_id, run.workflow_id, run.run_id, run.workflow_type, run.task_queue)
        self._runs[run.run_id] = copy.copy(run)

    def _add_event(self, event: EventRecord) -> None:
        key = (event.run_id, event.event_id)
        if key in self._events or event.event_id in self._tables.events.get(event.run_id, {}):
            raise BatchRejected(f"Event {event.event_id} of run {event.run_id} is stored already.")
        self._events[key] = event

    def _pending_of(self, run_id: str) -> Pending:
        if run_id not in self._pending:
            self._pending[run_id] = self._tables.pending.get(run_id, Pending()).copied()
        return self._pending[run_id]

    def _add_pending(self, write: EntityWrite) -> None:
        for activity in write.activities:
            _check_texts(activity.activity_id, activity.activity_type, activity.task_queue)
            self._pending_of(activity.run_id).activities[activity.scheduled_event_id] = activity
        for run_id, scheduled_event_id in write.activities_removed:
            self._pending_of(run_id).activities.pop(scheduled_event_id, None)
        for timer in write.timers:
            self._pending_of(timer.run_id).timers[timer.timer_id] = timer
        for run_id, timer_id in write.timers_removed:
            self._pending_of(run_id).timers.pop(timer_id, None)
        for run_id in write.buffered_cleared:
            self._pending_of(run_id).buffered.clear()
        for event in write.buffered:
            buffered = self._pending_of(event.run_id).buffered
            if event.position in buffered:
                raise BatchRejected(f"Buffered event {event.position} of run {event.run_id} is stored already.")
            buffered[event.position] = event
        for request in write.requests:
            self._pending_of(request.run_id).request_ids.add(request.request_id)

    def _add_mail(self, write: MailWrite) -> None:
        for child in write.children:
            _check_texts(child.child_workflow_id, child.child_workflow_type)
            self._pending_of(child.run_id).children[child.initiated_event_id] = child
        for run_id, initiated_event_id in write.children_removed:
            self._pending_of(run_id).children.pop(initiated_event_id, None)
        for sent in write.outbox:
            _check_texts(sent.receiver_workflow_id)
            if (sent.run_id, sent.number) in self._tables.outbox:
                raise BatchRejected(f"Message {sent.number} of run {sent.run_id} is stored already.")
        self._mail.append(write)

    def _check_one_current(self, write: EntityWrite) -> None:
        """Refuse a second current run of a workflow id, once the whole entity is written."""
        for record in write.runs:
            run = self._run(record.run_id)
            if run is None or not run.is_current:
                continue
            key = WorkflowKey(run.namespace_id, run.workflow_id)
            other_id = self._current.get(key) or self._tables.current.get(key, run.run_id)
            other = self._run(other_id)
            if other_id != run.run_id and other is not None and other.is_current:
                raise BatchRejected(f"Workflow {run.workflow_id} already has the current run {other_id}.")
            self._current[key] = run.run_id


def _check_texts(*texts: str) -> None:
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise BatchRejected(f"The database cannot hold a value: {error}") from error
