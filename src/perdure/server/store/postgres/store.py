"""The store on PostgreSQL, and on what speaks its protocol: which connection does what.

One connection writes batches: each is a transaction on it. What the engine waits for is read through one pool and
listings through another, so that a listing over a million runs delays neither. A member of a cluster has one more
connection, which renews its lease and waits for none of the others; a takeover, which may have to wait, gets its own.
Everything runs on the event loop of the caller.

It must never be used by two event loops.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence

from perdure.server.core.records import (
    DiscardedHistory,
    NamespaceRecord,
    RunRecord,
    StoredRun,
    WorkflowKey,
)
from perdure.server.store.interface import (
    Backlog,
    Batch,
    Claim,
    ClosedRun,
    ClusterView,
    CommitUnknown,
    CountGroup,
    DueAlarm,
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
from perdure.server.store.postgres import batches, deletions, listings, members, nodes, queries
from perdure.server.store.postgres.connections import (
    Connection,
    Readers,
    Writer,
    keeper,
    listing_session,
    reading_session,
)
from perdure.server.store.postgres.dialect import POSTGRES, PostgresDialect
from perdure.server.store.postgres.migrations import migrate
from perdure.server.store.postgres.statements import FewRows
from perdure.server.store.postgres.transactions import in_transaction
from perdure.server.store.rounds import Fence, gather
from perdure.server.store.settings import PostgresSettings
from perdure.server.store.visibility.filter import Filter


class PostgresStore:
    """A store in a PostgreSQL database.

    Args:
        url: `postgresql://user:password@host:port/database`; what it leaves out is taken from the environment, as
            PostgreSQL's own programs do.
        settings: Sizes and times.
        dialect: Which kind of database it is.
        migrates: Whether `open` makes and leads the schema; else it refuses a database where that is to be done.
    """

    def __init__(
        self,
        url: str,
        settings: PostgresSettings | None = None,
        dialect: PostgresDialect = POSTGRES,
        *,
        migrates: bool = True,
    ) -> None:
        self._migrates = migrates
        settings = settings or PostgresSettings()
        self._url = url
        self._settings = settings
        self._dialect = dialect
        self._claimed: tuple[str, int] | None = None
        self._has_failed_to_write = False
        self._nonce = str(uuid.uuid4())
        """Of the next resolve; kept for the one after that, while the fate of one is not known."""
        self._place: tuple[str, str] | None = None
        """The node and the session we joined as."""
        self._shown = queries.ALL_SHARDS
        self._writer = Writer(url, settings, dialect)
        self._few = FewRows()
        self._keeper: Writer | None = None
        reading, listing = reading_session(settings, dialect), listing_session(settings, dialect)
        self._reader = Readers(url, settings, dialect, reading, settings.read_connections)
        self._lister = Readers(url, settings, dialect, listing, settings.list_connections)

    async def open(self) -> None:
        """See `Store.open`."""
        await self._writer.open(
            lambda connection: migrate(connection, dialect=self._dialect, may_change=self._migrates)
        )
        await self._reader.open()
        await self._lister.open()

    async def close(self) -> None:
        """See `Store.close`."""
        await self._lister.close()
        await self._reader.close()
        if self._keeper is not None:
            await self._keeper.close()
        await self._writer.close()

    async def check(self) -> None:
        """See `Store.check`. After a batch that failed, something is written: a full disk can still be read."""
        if self._has_failed_to_write and self._dialect.prove_room is not None:
            prove_room = self._dialect.prove_room
            await self._writer.ask(lambda connection: connection.execute(prove_room))
        self._has_failed_to_write = False
        try:
            await self._writer.ask(nodes.check)
        except StoreUnavailable:
            # The connection may have been lost since it was last used, which says nothing of the database.
            await self._writer.ask(nodes.check)

    async def cluster_id(self) -> str:
        """See `Store.cluster_id`."""
        return await nodes.cluster_id(self._reader)

    # --- writing --------------------------------------------------------------------------------------------------

    async def claim(self, node: str) -> Claim:
        """See `Store.claim`."""
        claim = await self._writer.ask(lambda connection: nodes.claim(connection, node))
        self._claimed = (node, claim.incarnation)
        return claim

    async def commit(self, batch: Batch) -> None:
        """See `Store.commit`. The rows are taken from the batch before the first await."""
        fence = Fence(*self._claim_held(), batch.number)
        rounds, moves = gather(batch.writes), list(batch.moves)
        try:
            await self._writer.run(
                lambda connection: batches.write_batch(
                    connection, fence, rounds, moves, self._dialect, self._settings, self._few
                )
            )
        except (StoreUnavailable, CommitUnknown):
            self._has_failed_to_write = True
            raise

    async def resolve(self) -> Claim:
        """See `Store.resolve`. Raises Fenced where another process has taken this node's place."""
        return await self._writer.run(self._resolve)

    async def _resolve(self, connection: Connection) -> Claim:
        node, incarnation = self._claim_held()
        claim = await in_transaction(
            connection, lambda: nodes.resolve(connection, node, incarnation, self._nonce), self._settings
        )
        self._claimed = (node, claim.incarnation)
        self._nonce = str(uuid.uuid4())
        return claim

    # --- the cluster ----------------------------------------------------------------------------------------------

    async def join(self, node: str, session: str, release: str, lease_seconds: float) -> Claim:
        """See `ClusterStore.join`. Where its fate is not known, joining once more does no harm."""

        async def join(connection: Connection) -> Claim:
            return await in_transaction(
                connection,
                lambda: members.join(connection, node, session, release, lease_seconds),
                self._settings,
            )

        try:
            claim = await self._writer.run(join)
        except CommitUnknown as error:
            raise StoreUnavailable(f"The database did not say whether we have joined: {error}") from error
        self._claimed = (node, claim.incarnation)
        self._place = (node, session)
        if self._keeper is not None:
            await self._keeper.close()
        self._keeper = keeper(self._url, self._settings, self._dialect, lease_seconds)
        await self._keeper.open()
        return claim

    async def renew(self, lease_seconds: float) -> int:
        """See `ClusterStore.renew`."""
        place = self._place_held()
        assert self._keeper is not None
        return await self._keeper.ask(lambda connection: members.renew(connection, *place, lease_seconds))

    async def read_view(self) -> ClusterView:
        """See `ClusterStore.read_view`. A member reads it as hastily as it renews, whatever keeps the readers busy."""
        if self._keeper is None:
            return await members.read_view(self._reader)
        return await self._keeper.ask(members.read_view)

    async def take_over(self, node: str, session: str | None, shards: Mapping[str, Sequence[int]]) -> bool:
        """See `ClusterStore.take_over`. It may wait for a batch of that node, so no batch of ours waits for it."""
        place = self._place_held()

        async def take_over(connection: Connection) -> bool:
            return await in_transaction(
                connection, lambda: members.take_over(connection, place, node, session, shards), self._settings
            )

        writer = Writer(self._url, self._settings, self._dialect, name="perdure takeover")
        await writer.open()
        try:
            return await writer.run(take_over)
        finally:
            await writer.close()

    async def set_leaving(self) -> None:
        """See `ClusterStore.set_leaving`."""
        place = self._place_held()
        await self._writer.ask(lambda connection: members.set_leaving(connection, *place))

    async def leave(self) -> None:
        """See `ClusterStore.leave`."""
        place = self._place_held()
        await self._writer.ask(lambda connection: members.leave(connection, *place))

    def limit_to(self, shards: frozenset[int]) -> None:
        """See `ClusterStore.limit_to`."""
        self._shown = queries.shown(shards)

    def _place_held(self) -> tuple[str, str]:
        assert self._place is not None, "join the cluster before speaking as a member"
        return self._place

    # --- entities -------------------------------------------------------------------------------------------------

    async def load_current_runs(self, keys: Sequence[WorkflowKey]) -> list[StoredRun | None]:
        """See `Store.load_current_runs`."""
        return await queries.load_current_runs(self._reader, keys)

    async def load_run(self, key: WorkflowKey, run_id: str) -> StoredRun | None:
        """See `Store.load_run`."""
        return await queries.load_run(self._reader, key, run_id)

    async def read_events(
        self, run_id: str, first_event_id: int, end_event_id: int, max_events: int, max_bytes: int
    ) -> list[StoredEvent]:
        """See `Store.read_events`."""
        return await queries.read_events(self._reader, run_id, first_event_id, end_event_id, max_events, max_bytes)

    async def read_events_reverse(
        self, run_id: str, last_event_id: int, max_events: int, max_bytes: int
    ) -> list[StoredEvent]:
        """See `Store.read_events_reverse`."""
        return await queries.read_events_reverse(self._reader, run_id, last_event_id, max_events, max_bytes)

    # --- indexes over the state -----------------------------------------------------------------------------------

    async def ready_workflow_tasks(self, namespace_id: str, task_queue: str, limit: int) -> list[ReadyTask]:
        """See `Store.ready_workflow_tasks`."""
        return await queries.ready_workflow_tasks(self._reader, self._shown, namespace_id, task_queue, limit)

    async def ready_activity_tasks(self, namespace_id: str, task_queue: str, now: int, limit: int) -> list[ReadyTask]:
        """See `Store.ready_activity_tasks`."""
        return await queries.ready_activity_tasks(self._reader, self._shown, namespace_id, task_queue, now, limit)

    async def workflow_task_backlog(self, namespace_id: str, task_queue: str) -> Backlog:
        """See `Store.workflow_task_backlog`."""
        return await queries.workflow_task_backlog(self._lister, self._shown, namespace_id, task_queue)

    async def activity_task_backlog(self, namespace_id: str, task_queue: str, now: int) -> Backlog:
        """See `Store.activity_task_backlog`."""
        return await queries.activity_task_backlog(self._lister, self._shown, namespace_id, task_queue, now)

    async def due_alarms(self, before: int, limit: int) -> list[DueAlarm]:
        """See `Store.due_alarms`."""
        return await queries.due_alarms(self._reader, self._shown, before, limit)

    # --- deleting -------------------------------------------------------------------------------------------------

    async def closed_runs(self, namespace_id: str, limit: int, after: RunPosition | None) -> list[ClosedRun]:
        """See `Store.closed_runs`."""
        return await deletions.closed_runs(self._reader, self._shown, namespace_id, limit, after)

    async def page_runs(self, namespace_id: str, limit: int, after: RunPosition | None) -> list[RunName]:
        """See `Store.page_runs`."""
        return await deletions.page_runs(self._reader, self._shown, namespace_id, limit, after)

    async def discarded_histories(self, limit: int) -> list[DiscardedHistory]:
        """See `Store.discarded_histories`."""
        return await deletions.discarded_histories(self._reader, self._shown, limit)

    async def delete_history(self, run_id: str, limit: int) -> bool:
        """See `Store.delete_history`."""
        return await self._writer.ask(lambda connection: deletions.delete_history(connection, run_id, limit))

    # --- messages -------------------------------------------------------------------------------------------------

    async def read_outbox(self, max_messages: int, max_bytes: int, after: MessagePosition | None = None) -> OutboxPage:
        """See `Store.read_outbox`."""
        return await queries.read_outbox(self._reader, self._shown, max_messages, max_bytes, after)

    async def read_pair(self, receiver: WorkflowKey, sender_run_id: str, number: int) -> PairState:
        """See `Store.read_pair`."""
        return await queries.read_pair(self._reader, receiver, sender_run_id, number)

    # --- namespaces -----------------------------------------------------------------------------------------------

    async def list_namespaces(self) -> list[NamespaceRecord]:
        """See `Store.list_namespaces`."""
        return await nodes.list_namespaces(self._reader)

    async def save_namespace(self, namespace: NamespaceRecord, former: NamespaceRecord | None = None) -> None:
        """See `Store.save_namespace`."""
        await self._writer.ask(lambda connection: nodes.save_namespace(connection, namespace, former))

    async def is_namespace_empty(self, namespace_id: str) -> bool:
        """See `Store.is_namespace_empty`."""
        return await deletions.is_namespace_empty(self._lister, namespace_id)

    async def delete_namespace(self, namespace_id: str) -> bool:
        """See `Store.delete_namespace`."""
        return await self._writer.ask(lambda connection: deletions.delete_namespace(connection, namespace_id))

    # --- visibility -----------------------------------------------------------------------------------------------

    async def list_runs(
        self, namespace_id: str, filter: Filter, limit: int, after: ListPosition | None
    ) -> list[RunRecord]:
        """See `Store.list_runs`."""
        return await listings.list_runs(self._lister, namespace_id, filter, limit, after)

    async def count_runs(self, namespace_id: str, filter: Filter) -> int:
        """See `Store.count_runs`."""
        return await listings.count_runs(self._lister, namespace_id, filter)

    async def count_runs_by_status(self, namespace_id: str, filter: Filter) -> list[CountGroup]:
        """See `Store.count_runs_by_status`."""
        return await listings.count_runs_by_status(self._lister, namespace_id, filter)

    def _claim_held(self) -> tuple[str, int]:
        assert self._claimed is not None, "claim the store before writing to it"
        return self._claimed
