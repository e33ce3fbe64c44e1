"""The port between the engine and a database.

A store keeps rows and knows no rule of the engine. One node writes to it through `commit`, one batch at a time, fenced:
a node whose incarnation another node has bumped can write nothing more. Reads see committed data only.

All times are integer nanoseconds since the Unix epoch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import msgspec

from perdure.server.core.records import (
    DiscardedHistory,
    EntityWrite,
    InboxRecord,
    NamespaceRecord,
    OutboxRecord,
    RunRecord,
    StoredRun,
    WorkflowKey,
)
from perdure.server.store.visibility.filter import Filter


class StoreError(Exception):
    """The root of what a store raises."""


class StoreUnavailable(StoreError):
    """The database could not be reached or was busy; nothing was written and the same call may succeed later."""


class BatchRejected(StoreError):
    """The database refuses the batch for what is in it (a constraint, a version, a value); nothing was written."""


class StaleVersion(BatchRejected):
    """A run's stored version is not the expected one: what the batch was computed on has changed."""


class Fenced(StoreError):
    """Another process has taken this node's place; nothing was written and nothing ever will be."""


class CommitUnknown(StoreError):
    """The commit was sent and its fate is not known; `resolve` tells."""


class StoreMismatch(StoreError):
    """The database was made by a release this one cannot work with."""


class Batch(msgspec.Struct):
    """What one transaction writes: the changes of many entities, in the order of their transitions."""

    number: int
    """One more than the last committed batch of this incarnation; the fence compares it."""
    writes: list[EntityWrite]


class Claim(NamedTuple):
    """What a node holds after it claimed the store: the fence it writes through."""

    incarnation: int
    batch: int
    """The number of the last committed batch."""


class StoredEvent(NamedTuple):
    """One history event as stored."""

    event_id: int
    data: bytes


class ReadyTask(NamedTuple):
    """A row of the index of ready tasks. For a workflow task `scheduled_event_id` is 0."""

    namespace_id: str
    workflow_id: str
    run_id: str
    scheduled_event_id: int
    ready_at: int


class DueAlarm(NamedTuple):
    """A row of the alarm index."""

    namespace_id: str
    workflow_id: str
    run_id: str
    alarm_at: int


class RunName(NamedTuple):
    """One run of a namespace that is looked through."""

    workflow_id: str
    run_id: str
    started_at: int


class ClosedRun(NamedTuple):
    """A row of the index of closed runs."""

    workflow_id: str
    run_id: str
    closed_at: int


class OutboxHead(NamedTuple):
    """The first messages of the outbox, and whether there are no others."""

    records: list[OutboxRecord]
    is_all: bool


class ListPosition(NamedTuple):
    """Where a listing goes on: after this run, in (started_at descending, run_id descending) order."""

    started_at: int
    run_id: str


class RunPosition(NamedTuple):
    """Where runs are read on: after this one, in ascending order of (time, run_id)."""

    time: int
    run_id: str


class CountGroup(msgspec.Struct, frozen=True):
    """One group of a count: the value grouped by and how many runs have it."""

    value: int
    count: int


class Backlog(msgspec.Struct, frozen=True):
    """How many tasks are ready in a queue and since when the oldest is (None where there is none)."""

    count: int
    oldest_ready_at: int | None


class Store(Protocol):
    """What the engine needs of a database."""

    async def open(self) -> None:
        """Connect, and create or migrate the schema. Raises StoreMismatch for a database of an unknown release."""

    async def close(self) -> None:
        """Finish what is being written and disconnect. No call may follow."""

    async def check(self) -> None:
        """Do nothing, if the store could write now. Raises StoreUnavailable where it could not."""

    async def cluster_id(self) -> str:
        """Return the id given to this database when it was created (a UUID)."""

    # --- writing --------------------------------------------------------------------------------------------------

    async def claim(self, node: str) -> Claim:
        """Take the place of any process that wrote as `node`: bump its incarnation, which fences it."""

    async def commit(self, batch: Batch) -> None:
        """Write the whole batch in one durable transaction, or nothing of it.

        Raises:
            StoreUnavailable: The database is away or busy. Nothing was written.
            BatchRejected: A row was refused. Nothing was written.
            StaleVersion: A run's stored version is not the expected one. Nothing was written.
            Fenced: This node's incarnation is not the stored one any more.
            CommitUnknown: The fate of the transaction is not known.
        """

    async def resolve(self) -> Claim:
        """Bump our own incarnation and return it with the last batch number that is durable (after CommitUnknown)."""

    # --- entities -------------------------------------------------------------------------------------------------

    async def load_current_runs(self, keys: Sequence[WorkflowKey]) -> list[StoredRun | None]:
        """Return the current run of each workflow id, in the order of the keys; None where there is none."""

    async def load_run(self, key: WorkflowKey, run_id: str) -> StoredRun | None:
        """Return one run, current or not; None where there is none of that workflow id and run id."""

    async def read_events(
        self, run_id: str, first_event_id: int, end_event_id: int, max_events: int, max_bytes: int
    ) -> list[StoredEvent]:
        """Return events from `first_event_id` up to, not including, `end_event_id`, in ascending order.

        Stops after `max_events`, or before the sum of the sizes passes `max_bytes`; always returns at least one event
        where one exists.
        """

    async def read_events_reverse(
        self, run_id: str, last_event_id: int, max_events: int, max_bytes: int
    ) -> list[StoredEvent]:
        """Return events from `last_event_id` down, in descending order, within the same limits."""

    # --- indexes over the state -----------------------------------------------------------------------------------

    async def ready_workflow_tasks(self, namespace_id: str, task_queue: str, limit: int) -> list[ReadyTask]:
        """Return the head of the index of ready workflow tasks in a queue, oldest first."""

    async def ready_activity_tasks(self, namespace_id: str, task_queue: str, now: int, limit: int) -> list[ReadyTask]:
        """Return the head of the index of activities in a queue that are ready by `now`, oldest first."""

    async def workflow_task_backlog(self, namespace_id: str, task_queue: str) -> Backlog:
        """Count the ready workflow tasks of a queue."""

    async def activity_task_backlog(self, namespace_id: str, task_queue: str, now: int) -> Backlog:
        """Count the activities of a queue that are ready by `now`."""

    async def due_alarms(self, before: int, limit: int) -> list[DueAlarm]:
        """Return runs whose alarm is before a time, earliest first."""

    # --- deleting -------------------------------------------------------------------------------------------------

    async def closed_runs(self, namespace_id: str, limit: int, after: RunPosition | None) -> list[ClosedRun]:
        """Return closed runs of a namespace, those that closed first first (then by run id).

        Args:
            namespace_id: Whose.
            limit: How many at most.
            after: Where to go on, by the time of the close; None for the beginning.
        """

    async def page_runs(self, namespace_id: str, limit: int, after: RunPosition | None) -> list[RunName]:
        """Return runs of a namespace, open and closed, those that started first first (then by run id).

        Args:
            namespace_id: Whose.
            limit: How many at most.
            after: Where to go on, by the time of the start; None for the beginning.
        """

    async def discarded_histories(self, limit: int) -> list[DiscardedHistory]:
        """Return histories of deleted runs of which something is left, in the order of run ids."""

    async def delete_history(self, run_id: str, limit: int) -> bool:
        """Delete so many events, and as many request ids, of a discarded history; return whether nothing is left.

        Not fenced: nobody reads or writes what is discarded, so it does no harm if two processes delete it.
        """

    # --- messages ---------------------------------------------------------------------------------------------------

    async def read_outbox(self, max_messages: int, max_bytes: int) -> OutboxHead:
        """Return the head of the outbox: messages that are not acknowledged, in the order of (run_id, number).

        Stops after `max_messages`, or before the sum of the bodies passes `max_bytes`; always returns at least one
        message where one exists.
        """

    async def read_inbox(self, receiver: WorkflowKey, sender_run_id: str) -> InboxRecord | None:
        """Return the row of the last message from a run that had an effect on a workflow id, None for none."""

    # --- namespaces -----------------------------------------------------------------------------------------------

    async def list_namespaces(self) -> list[NamespaceRecord]:
        """Return all namespaces, in name order."""

    async def save_namespace(self, namespace: NamespaceRecord) -> None:
        """Insert or replace a namespace, by id. Raises BatchRejected where another one has its name."""

    async def is_namespace_empty(self, namespace_id: str) -> bool:
        """Return whether nothing is left of a namespace: no run, no message from or to it, no discarded history."""

    async def delete_namespace(self, namespace_id: str) -> bool:
        """Remove a namespace of which nothing is left; return whether it is gone now, or was before."""

    # --- visibility -----------------------------------------------------------------------------------------------

    async def list_runs(
        self, namespace_id: str, filter: Filter, limit: int, after: ListPosition | None
    ) -> list[RunRecord]:
        """Return the runs of a namespace that match, newest start first (then run id descending)."""

    async def count_runs(self, namespace_id: str, filter: Filter) -> int:
        """Count the runs of a namespace that match."""

    async def count_runs_by_status(self, namespace_id: str, filter: Filter) -> list[CountGroup]:
        """Count the runs of a namespace that match, by `WorkflowExecutionStatus`, in ascending order of status."""
