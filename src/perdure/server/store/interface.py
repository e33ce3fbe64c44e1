"""The port between the engine and a database.

A store keeps rows and knows no rule of the engine. A node writes to it through `commit`, one batch at a time, fenced:
a node whose incarnation another node has bumped can write nothing more. Reads see committed data only.

A database that several nodes share (`ClusterStore`) also says who they are, until when each may be taken for alive, and
which of them owns which shard. A lease tells when a node may be declared dead; only the fence makes that so.

All times are integer nanoseconds since the Unix epoch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, Protocol

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
    """What is stored of a run or namespace is not the expected: what the write was computed on has changed."""


class Fenced(StoreError):
    """Another process has taken this node's place; nothing was written and nothing ever will be."""


class CommitUnknown(StoreError):
    """The commit was sent and its fate is not known; `resolve` tells."""


class StoreMismatch(StoreError):
    """The database was made by a release this one cannot work with."""


LOST_ID: Final = "The database is damaged: the table meta has no row cluster_id. Restore a backup."
"""What a StoreMismatch says of a database that `Store.cluster_id` finds without one."""


class ShardMove(NamedTuple):
    """A shard that its owner gives away, and the node that gets it."""

    shard: int
    to: str


class Batch(msgspec.Struct):
    """What one transaction writes: the changes of many entities, in the order of their transitions."""

    number: int
    """One more than the last committed batch of this incarnation; the fence compares it."""
    writes: list[EntityWrite]
    moves: list[ShardMove] = []
    """Shards to give away, after the writes. A move is passed over where this node does not own the shard, or where the
    other node is not a member or is leaving: `ClusterStore.read_view` tells what came of it."""


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


class MessagePosition(NamedTuple):
    """Where the outbox is read on: behind this message, in ascending order."""

    run_id: str
    number: int


BEFORE_ALL_MESSAGES: Final = MessagePosition("", 0)
"""Messages of a run are counted from 1."""


class OutboxPage(NamedTuple):
    """Messages of the outbox that follow one another, and whether there are none behind them."""

    records: list[OutboxRecord]
    is_last: bool


class PairState(NamedTuple):
    """What is stored of the messages from one run to one workflow id, all of it at the same moment."""

    inbox: InboxRecord | None
    """The last message that had an effect on the receiver; None for none."""
    is_pending: bool
    """Whether the message asked about is in the outbox still: neither acknowledged nor withdrawn."""


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


class Member(NamedTuple):
    """A node of the cluster. Its times are by the database's clock."""

    node: str
    """The address it is reached at, as host:port."""
    session: str
    """The life of the process that has this place; another one brings another session."""
    release: str
    started_at: int
    lease_until: int
    is_leaving: bool
    """Whether it gives its shards away and should get no others."""
    is_alive: bool
    """Whether the lease ran when this was read. One that is not alive is a member until somebody takes over."""


class ShardOwner(NamedTuple):
    """Who owns a shard. The epoch grows by one with each change of owner."""

    shard: int
    owner: str
    epoch: int


class ClusterView(NamedTuple):
    """The cluster at one moment."""

    version: int
    """Grows with every change of a member, its lease left out, of a shard's owner, and of a namespace."""
    members: list[Member]
    """In the order of their nodes."""
    shards: list[ShardOwner]
    """In the order of the shards. All of them, once a node has joined; an owner may be no member any more."""


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

    async def read_outbox(self, max_messages: int, max_bytes: int, after: MessagePosition | None = None) -> OutboxPage:
        """Return messages that are not acknowledged, in the order of (run_id, number).

        Stops after `max_messages`, or before the sum of the bodies passes `max_bytes`; always returns at least one
        message where one exists.

        Args:
            max_messages: Most messages.
            max_bytes: Most bytes of their bodies.
            after: The message behind which the page begins; None for the first one.
        """

    async def read_pair(self, receiver: WorkflowKey, sender_run_id: str, number: int) -> PairState:
        """Return what there is of the messages from a run to a workflow id, and whether one of them waits still."""

    # --- namespaces -----------------------------------------------------------------------------------------------

    async def list_namespaces(self) -> list[NamespaceRecord]:
        """Return all namespaces, in name order."""

    async def save_namespace(self, namespace: NamespaceRecord, former: NamespaceRecord | None = None) -> None:
        """Insert a namespace, or put it in the place of its former state.

        Not fenced: who replaces what another process has changed meanwhile is refused.

        Args:
            namespace: As it is to be.
            former: As it was read; None for a new one.

        Raises:
            StaleVersion: What is stored is not `former` any more. Nothing was written.
            BatchRejected: Another one has its name, or a new one its id.
        """

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


class ClusterStore(Store, Protocol):
    """A database that several nodes share. Each node has a store of its own on it.

    A node is a member while it has a row, alive while the lease in it runs by the database's clock. Shards have owners,
    and only two things change an owner: the owner's own batch (`Batch.moves`), or a takeover, which bumps the owner's
    fence in the same transaction. So a shard never has two nodes that can commit for it.
    """

    async def join(self, node: str, session: str, release: str, lease_seconds: float) -> Claim:
        """Take the place of any process that was `node`: become a member, with a fresh lease, in one transaction.

        Bumps the fence as `claim` does. The node keeps the shards it owned before and gets those that nobody ever did.

        Args:
            node: The address it is reached at, as host:port.
            session: Names this life of the process; no two may have the same.
            release: The version of the program, for people and for rolling upgrades.
            lease_seconds: How long the lease is, from the database's now.
        """

    async def renew(self, lease_seconds: float) -> int:
        """Prolong our lease to so long from the database's now, and return the cluster's version.

        Waits for nobody's batch, our own included, and gives up within a third of the lease.

        Raises:
            Fenced: We are no member any more: somebody took over, or another process took our place.
            StoreUnavailable: The database did not answer in time. The lease may have been prolonged all the same.
        """

    async def read_view(self) -> ClusterView:
        """Return members and owners, as of one moment."""

    async def take_over(self, node: str, session: str | None, shards: Mapping[str, Sequence[int]]) -> bool:
        """Declare a node dead and give its shards to others, in one transaction that bumps its fence first.

        A batch of the dead node that has passed the fence is waited for: it is either committed before, or undone. The
        shards it does not own any more, and those for a node that is no member, are passed over.

        Args:
            node: Who is dead.
            session: The life of it that is dead; it must be the member still, and its lease must have ended by the
                database's clock. None for a node that owns shards and is no member.
            shards: Who gets which shards.

        Returns:
            Whether that happened. False, with nothing changed, where the node is alive or another one was faster.

        Raises:
            Fenced: We are no member ourselves. Nothing was changed.
            StoreUnavailable: The database was away or busy. Nothing was changed.
            CommitUnknown: The fate of the transaction is not known; `read_view` tells.
        """

    async def set_leaving(self) -> None:
        """Say that this node should be given no shards any more. Does nothing where we are no member."""

    async def leave(self) -> None:
        """Be no member any more; the shards were given away before. Does nothing where we are none."""

    def limit_to(self, shards: frozenset[int]) -> None:
        """Let ready tasks, backlogs, due alarms, the outbox and what is to be deleted show rows of these shards only.

        What is to be deleted: closed runs, the pages of all runs, and discarded histories.

        It counts for calls that begin afterwards. Before it was called they show all rows.
        """
