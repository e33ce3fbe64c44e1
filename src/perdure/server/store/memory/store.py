"""The store's fake, for tests and the simulator: the same port on dicts, without threads, the same in every run.

`CommitFaults` stand before and after the moment a batch becomes durable. It must refuse what a real store refuses: both
run the same conformance suite.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Protocol

from perdure.server.core.records import (
    DiscardedHistory,
    EntityWrite,
    EventRecord,
    MailWrite,
    NamespaceRecord,
    OutboxRecord,
    RunRecord,
    StoredActivity,
    StoredChild,
    StoredMessage,
    StoredRun,
    WorkflowKey,
)
from perdure.server.core.shards import shard_of
from perdure.server.store.interface import (
    Backlog,
    Batch,
    BatchRejected,
    Claim,
    ClosedRun,
    ClusterView,
    CountGroup,
    DueAlarm,
    Fenced,
    ListPosition,
    MessagePosition,
    OutboxPage,
    PairState,
    ReadyTask,
    RunName,
    RunPosition,
    StoredEvent,
    StoreUnavailable,
)
from perdure.server.store.memory.database import Change, MemoryDatabase, Pending, Tables
from perdure.server.store.memory.members import Place
from perdure.server.store.namespace_rows import stale_namespace
from perdure.server.store.visibility.filter import Filter, matches


class CommitFaults(Protocol):
    """Where a test gets between a batch and its fate. Either may wait, and may raise one of the store's errors."""

    async def before(self, batch: Batch) -> None:
        """Called before the batch is looked at; raising leaves nothing written."""

    async def after(self, batch: Batch) -> None:
        """Called once the batch is durable; raising keeps it so."""


class MemoryStore:
    """A store in a `MemoryDatabase`.

    Args:
        database: What to open; None makes an empty one.
        faults: What stands before and after the moment a batch becomes durable; None for nothing.
    """

    def __init__(self, database: MemoryDatabase | None = None, *, faults: CommitFaults | None = None) -> None:
        self.database = database or MemoryDatabase()
        self._faults = faults
        self._claimed: tuple[str, int] | None = None
        self._place: Place | None = None
        self._shards: frozenset[int] | None = None
        self._is_open = False

    async def open(self) -> None:
        """See `Store.open`."""
        self._is_open = True

    async def close(self) -> None:
        """See `Store.close`."""
        self._is_open = False

    async def check(self) -> None:
        """See `Store.check`."""
        self._tables()

    async def cluster_id(self) -> str:
        """See `Store.cluster_id`."""
        self._tables()
        return self.database.cluster_id

    # --- writing --------------------------------------------------------------------------------------------------

    async def claim(self, node: str) -> Claim:
        """See `Store.claim`."""
        self._tables()
        return self._bump(node)

    async def commit(self, batch: Batch) -> None:
        """See `Store.commit`. The rows, and the fence to write through, are taken before the first await."""
        self._tables()
        claimed = self._claim_held()
        number, moves = batch.number, list(batch.moves)
        writes = [_taken(write) for write in batch.writes]
        if self._faults is not None:
            await self._faults.before(batch)
        node, held = self._held(claimed)
        if held.batch != number - 1:
            raise Fenced(f"Batch {number} of node {node!r} does not follow batch {held.batch}.")
        self.database.show_durable()
        change = Change(self._tables(), writes)
        self.database.make_durable(change, moves, node, Claim(held.incarnation, number))
        try:
            if self._faults is not None:
                await self._faults.after(batch)
        finally:
            self.database.show_durable()

    async def resolve(self) -> Claim:
        """See `Store.resolve`. Raises Fenced where another process has taken this node's place."""
        self._tables()
        node, _ = self._held(self._claim_held())
        return self._bump(node)

    def _claim_held(self) -> tuple[str, int]:
        assert self._claimed is not None, "claim the store before writing to it"
        return self._claimed

    def _held(self, claimed: tuple[str, int]) -> tuple[str, Claim]:
        node, incarnation = claimed
        stored = self.database.claims[node]
        if stored.incarnation != incarnation:
            raise Fenced(f"Another process has taken the place of node {node!r} since incarnation {incarnation}.")
        return node, stored

    def _bump(self, node: str) -> Claim:
        claim = self.database.bump(node)
        self._claimed = (node, claim.incarnation)
        return claim

    # --- the cluster ----------------------------------------------------------------------------------------------

    async def join(self, node: str, session: str, release: str, lease_seconds: float) -> Claim:
        """See `ClusterStore.join`."""
        self._tables()
        claim = self._bump(node)
        self._place = Place(node, session)
        self.database.members.join(self._place, release, lease_seconds)
        return claim

    async def renew(self, lease_seconds: float) -> int:
        """See `ClusterStore.renew`."""
        self._tables()
        return self.database.members.renew(self._place_held(), lease_seconds)

    async def read_view(self) -> ClusterView:
        """See `ClusterStore.read_view`."""
        self._tables()
        return self.database.members.view()

    async def take_over(self, node: str, session: str | None, shards: Mapping[str, Sequence[int]]) -> bool:
        """See `ClusterStore.take_over`."""
        self._tables()
        place = self._place_held()
        self.database.show_durable()
        if not self.database.members.may_be_taken_over(node, session):
            return False
        self.database.members.take_over(place, node, shards)
        self.database.bump(node)
        return True

    async def set_leaving(self) -> None:
        """See `ClusterStore.set_leaving`."""
        self._tables()
        self.database.members.set_leaving(self._place_held())

    async def leave(self) -> None:
        """See `ClusterStore.leave`."""
        self._tables()
        self.database.members.leave(self._place_held())

    def limit_to(self, shards: frozenset[int]) -> None:
        """See `ClusterStore.limit_to`."""
        self._shards = shards

    def _place_held(self) -> Place:
        assert self._place is not None, "join the cluster before speaking as a member"
        return self._place

    def _is_shown(self, namespace_id: str, workflow_id: str) -> bool:
        return self._shards is None or shard_of(WorkflowKey(namespace_id, workflow_id)) in self._shards

    # --- entities -------------------------------------------------------------------------------------------------

    async def load_current_runs(self, keys: Sequence[WorkflowKey]) -> list[StoredRun | None]:
        """See `Store.load_current_runs`."""
        current = self._tables().current
        return [self._stored_run(current[key]) if key in current else None for key in keys]

    async def load_run(self, key: WorkflowKey, run_id: str) -> StoredRun | None:
        """See `Store.load_run`."""
        run = self._tables().runs.get(run_id)
        if run is None or (run.namespace_id, run.workflow_id) != key:
            return None
        return self._stored_run(run_id)

    def _stored_run(self, run_id: str) -> StoredRun:
        tables = self._tables()
        pending = tables.pending.get(run_id, Pending())
        return StoredRun(
            run=_as_stored(tables.runs[run_id]),
            started_event=self._event_data(run_id, 1),
            activities=[
                StoredActivity(record, self._event_data(run_id, scheduled_event_id))
                for scheduled_event_id, record in sorted(pending.activities.items())
            ],
            timers=[timer for _, timer in sorted(pending.timers.items())],
            buffered=[event for _, event in sorted(pending.buffered.items())],
            request_ids=sorted(pending.request_ids),
            children=[
                StoredChild(record, self._event_data(run_id, initiated_event_id))
                for initiated_event_id, record in sorted(pending.children.items())
            ],
            messages=[
                StoredMessage(
                    number, sent.kind, sent.initiated_event_id, self._event_data(run_id, sent.initiated_event_id)
                )
                for (sender_run_id, number), sent in sorted(tables.outbox.items())
                if sender_run_id == run_id and sent.initiated_event_id
            ],
        )

    def _event_data(self, run_id: str, event_id: int) -> bytes:
        event = self._tables().events.get(run_id, {}).get(event_id)
        return b"" if event is None else event.data

    async def read_events(
        self, run_id: str, first_event_id: int, end_event_id: int, max_events: int, max_bytes: int
    ) -> list[StoredEvent]:
        """See `Store.read_events`."""
        events = self._tables().events.get(run_id, {})
        wanted = sorted(event_id for event_id in events if first_event_id <= event_id < end_event_id)
        return _page([events[event_id] for event_id in wanted[:max_events]], max_bytes)

    async def read_events_reverse(
        self, run_id: str, last_event_id: int, max_events: int, max_bytes: int
    ) -> list[StoredEvent]:
        """See `Store.read_events_reverse`."""
        events = self._tables().events.get(run_id, {})
        wanted = sorted((event_id for event_id in events if event_id <= last_event_id), reverse=True)
        return _page([events[event_id] for event_id in wanted[:max_events]], max_bytes)

    # --- indexes over the state -----------------------------------------------------------------------------------

    async def ready_workflow_tasks(self, namespace_id: str, task_queue: str, limit: int) -> list[ReadyTask]:
        """See `Store.ready_workflow_tasks`."""
        ready = [
            (run.task_ready_at or 0, run.run_id, run)
            for run in self._runs_of(namespace_id)
            if run.task_ready_queue == task_queue and self._is_shown(namespace_id, run.workflow_id)
        ]
        ready.sort(key=lambda item: item[:2])
        return [
            ReadyTask(namespace_id, run.workflow_id, run_id, 0, ready_at) for ready_at, run_id, run in ready[:limit]
        ]

    async def ready_activity_tasks(self, namespace_id: str, task_queue: str, now: int, limit: int) -> list[ReadyTask]:
        """See `Store.ready_activity_tasks`."""
        ready = [
            (activity.ready_at, activity.run_id, activity.scheduled_event_id, activity.workflow_id)
            for pending in self._tables().pending.values()
            for activity in pending.activities.values()
            if activity.namespace_id == namespace_id and activity.task_queue == task_queue
            if activity.ready_at is not None and activity.ready_at <= now
            if self._is_shown(namespace_id, activity.workflow_id)
        ]
        return [
            ReadyTask(namespace_id, workflow_id, run_id, scheduled_event_id, ready_at)
            for ready_at, run_id, scheduled_event_id, workflow_id in sorted(ready)[:limit]
        ]

    async def workflow_task_backlog(self, namespace_id: str, task_queue: str) -> Backlog:
        """See `Store.workflow_task_backlog`."""
        return _backlog(await self.ready_workflow_tasks(namespace_id, task_queue, len(self._tables().runs)))

    async def activity_task_backlog(self, namespace_id: str, task_queue: str, now: int) -> Backlog:
        """See `Store.activity_task_backlog`."""
        everything = sum(len(pending.activities) for pending in self._tables().pending.values())
        return _backlog(await self.ready_activity_tasks(namespace_id, task_queue, now, everything))

    async def due_alarms(self, before: int, limit: int) -> list[DueAlarm]:
        """See `Store.due_alarms`."""
        due = [
            (run.alarm_at, run.run_id, run)
            for run in self._tables().runs.values()
            if run.alarm_at is not None and run.alarm_at < before
            if self._is_shown(run.namespace_id, run.workflow_id)
        ]
        due.sort(key=lambda item: item[:2])
        return [DueAlarm(run.namespace_id, run.workflow_id, run_id, alarm_at) for alarm_at, run_id, run in due[:limit]]

    # --- deleting -------------------------------------------------------------------------------------------------

    async def closed_runs(self, namespace_id: str, limit: int, after: RunPosition | None) -> list[ClosedRun]:
        """See `Store.closed_runs`."""
        closed = sorted(
            (run.closed_at, run.run_id, run.workflow_id)
            for run in self._runs_of(namespace_id)
            if run.closed_at is not None and (after is None or (run.closed_at, run.run_id) > after)
            if self._is_shown(namespace_id, run.workflow_id)
        )
        return [ClosedRun(workflow_id, run_id, closed_at) for closed_at, run_id, workflow_id in closed[:limit]]

    async def page_runs(self, namespace_id: str, limit: int, after: RunPosition | None) -> list[RunName]:
        """See `Store.page_runs`."""
        runs = sorted(
            (run.started_at, run.run_id, run.workflow_id)
            for run in self._runs_of(namespace_id)
            if after is None or (run.started_at, run.run_id) > after
            if self._is_shown(namespace_id, run.workflow_id)
        )
        return [RunName(workflow_id, run_id, started_at) for started_at, run_id, workflow_id in runs[:limit]]

    async def discarded_histories(self, limit: int) -> list[DiscardedHistory]:
        """See `Store.discarded_histories`."""
        shown = [
            history
            for _, history in sorted(self._tables().discarded.items())
            if self._is_shown(history.namespace_id, history.workflow_id)
        ]
        return shown[:limit]

    async def delete_history(self, run_id: str, limit: int) -> bool:
        """See `Store.delete_history`."""
        tables = self._tables()
        if run_id not in tables.discarded:
            return True
        events = tables.events.get(run_id, {})
        requests = tables.pending.get(run_id, Pending()).request_ids
        for event_id in list(islice(events, limit)):
            del events[event_id]
        for request_id in list(islice(requests, limit)):
            requests.remove(request_id)
        if events or requests:
            return False
        for table in (tables.discarded, tables.events, tables.pending):
            table.pop(run_id, None)
        return True

    # --- messages -------------------------------------------------------------------------------------------------

    async def read_outbox(self, max_messages: int, max_bytes: int, after: MessagePosition | None = None) -> OutboxPage:
        """See `Store.read_outbox`."""
        outbox = [
            sent
            for name, sent in sorted(self._tables().outbox.items())
            if self._is_shown(sent.namespace_id, sent.workflow_id) and (after is None or name > after)
        ]
        page: list[OutboxRecord] = []
        total = 0
        for sent in outbox[:max_messages]:
            total += len(sent.body)
            if page and total > max_bytes:
                break
            page.append(sent)
        return OutboxPage(page, len(page) == len(outbox))

    async def read_pair(self, receiver: WorkflowKey, sender_run_id: str, number: int) -> PairState:
        """See `Store.read_pair`."""
        tables = self._tables()
        return PairState(tables.inbox.get((sender_run_id, *receiver)), (sender_run_id, number) in tables.outbox)

    # --- namespaces -----------------------------------------------------------------------------------------------

    async def list_namespaces(self) -> list[NamespaceRecord]:
        """See `Store.list_namespaces`."""
        namespaces = sorted(self._tables().namespaces.values(), key=lambda namespace: namespace.name)
        return copy.deepcopy(namespaces)

    async def save_namespace(self, namespace: NamespaceRecord, former: NamespaceRecord | None = None) -> None:
        """See `Store.save_namespace`."""
        namespaces = self._tables().namespaces
        stored = namespaces.get(namespace.namespace_id)
        if former is None and stored is not None:
            raise BatchRejected(f"Namespace {namespace.namespace_id} is there already.")
        if stored != former:
            raise stale_namespace(namespace)
        for other in namespaces.values():
            if other.name == namespace.name and other.namespace_id != namespace.namespace_id:
                raise BatchRejected(f"Namespace {other.namespace_id} already has the name {namespace.name!r}.")
        namespaces[namespace.namespace_id] = copy.deepcopy(namespace)
        self.database.members.note_change()

    async def is_namespace_empty(self, namespace_id: str) -> bool:
        """See `Store.is_namespace_empty`."""
        tables = self._tables()
        left = [run.namespace_id for run in tables.runs.values()]
        left += [history.namespace_id for history in tables.discarded.values()]
        for sent in tables.outbox.values():
            left += (sent.namespace_id, sent.receiver_namespace_id)
        return namespace_id not in left

    async def delete_namespace(self, namespace_id: str) -> bool:
        """See `Store.delete_namespace`."""
        is_empty = await self.is_namespace_empty(namespace_id)
        if is_empty and self._tables().namespaces.pop(namespace_id, None) is not None:
            self.database.members.note_change()
        return is_empty

    # --- visibility -----------------------------------------------------------------------------------------------

    async def list_runs(
        self, namespace_id: str, filter: Filter, limit: int, after: ListPosition | None
    ) -> list[RunRecord]:
        """See `Store.list_runs`."""
        found = [run for run in self._runs_of(namespace_id) if matches(filter, run)]
        if after is not None:
            found = [run for run in found if (run.started_at, run.run_id) < after]
        found.sort(key=lambda run: (run.started_at, run.run_id), reverse=True)
        return [_as_stored(run) for run in found[:limit]]

    async def count_runs(self, namespace_id: str, filter: Filter) -> int:
        """See `Store.count_runs`."""
        return sum(matches(filter, run) for run in self._runs_of(namespace_id))

    async def count_runs_by_status(self, namespace_id: str, filter: Filter) -> list[CountGroup]:
        """See `Store.count_runs_by_status`."""
        counts: dict[int, int] = {}
        for run in self._runs_of(namespace_id):
            if matches(filter, run):
                counts[run.status] = counts.get(run.status, 0) + 1
        return [CountGroup(status, count) for status, count in sorted(counts.items())]

    def _runs_of(self, namespace_id: str) -> list[RunRecord]:
        return [run for run in self._tables().runs.values() if run.namespace_id == namespace_id]

    def _tables(self) -> Tables:
        if not self._is_open:
            raise StoreUnavailable("The store is not open.")
        return self.database.tables


def _taken(write: EntityWrite) -> EntityWrite:
    """Copy what the caller may change after it gave the batch away; the rows other than runs cannot change."""
    names = [name for name in EntityWrite.__struct_fields__ if name not in ("key", "mail")]
    lists = {name: list(getattr(write, name)) for name in names}
    mail = None if write.mail is None else _taken_mail(write.mail)
    return EntityWrite(write.key, **{**lists, "runs": [copy.copy(run) for run in write.runs]}, mail=mail)


def _taken_mail(mail: MailWrite) -> MailWrite:
    return MailWrite(**{name: list(getattr(mail, name)) for name in MailWrite.__struct_fields__})


def _as_stored(run: RunRecord) -> RunRecord:
    read = copy.copy(run)
    read.stored_version = run.version
    return read


def _page(events: list[EventRecord], max_bytes: int) -> list[StoredEvent]:
    page: list[StoredEvent] = []
    total = 0
    for event in events:
        total += len(event.data)
        if page and total > max_bytes:
            break
        page.append(StoredEvent(event.event_id, event.data))
    return page


def _backlog(ready: Sequence[ReadyTask]) -> Backlog:
    return Backlog(len(ready), ready[0].ready_at if ready else None)
