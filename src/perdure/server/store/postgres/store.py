"""The store on PostgreSQL, and on what speaks its protocol: which connection does what.

One connection writes, and nothing else does: a batch is a transaction on it. What the engine waits for is read through
one pool and listings through another, so that a listing over a million runs delays neither. Everything runs on the
event loop of the caller.

It must never be used by two event loops.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from perdure.server.core.records import InboxRecord, NamespaceRecord, RunRecord, StoredRun, WorkflowKey
from perdure.server.store.interface import (
    Backlog,
    Batch,
    Claim,
    CountGroup,
    DueAlarm,
    ListPosition,
    OutboxHead,
    ReadyTask,
    StoredEvent,
    StoreUnavailable,
)
from perdure.server.store.postgres import batches, listings, nodes, queries
from perdure.server.store.postgres.connections import Connection, Readers, Writer, listing_session, reading_session
from perdure.server.store.postgres.dialect import POSTGRES, PostgresDialect
from perdure.server.store.postgres.migrations import migrate
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
    """

    def __init__(self, url: str, settings: PostgresSettings | None = None, dialect: PostgresDialect = POSTGRES) -> None:
        settings = settings or PostgresSettings()
        self._settings = settings
        self._dialect = dialect
        self._claimed: tuple[str, int] | None = None
        self._nonce = str(uuid.uuid4())
        """Of the next resolve; kept for the one after that, while the fate of one is not known."""
        self._writer = Writer(url, settings, dialect)
        reading, listing = reading_session(settings, dialect), listing_session(settings, dialect)
        self._reader = Readers(url, settings, dialect, reading, settings.read_connections)
        self._lister = Readers(url, settings, dialect, listing, settings.list_connections)

    async def open(self) -> None:
        """See `Store.open`."""
        await self._writer.open(lambda connection: migrate(connection, dialect=self._dialect))
        await self._reader.open()
        await self._lister.open()

    async def close(self) -> None:
        """See `Store.close`."""
        await self._lister.close()
        await self._reader.close()
        await self._writer.close()

    async def check(self) -> None:
        """See `Store.check`."""
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
        rounds = gather(batch.writes)

        async def write(connection: Connection) -> None:
            await in_transaction(connection, lambda: batches.write_batch(connection, fence, rounds), self._settings)

        await self._writer.run(write)

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
        return await queries.ready_workflow_tasks(self._reader, namespace_id, task_queue, limit)

    async def ready_activity_tasks(self, namespace_id: str, task_queue: str, now: int, limit: int) -> list[ReadyTask]:
        """See `Store.ready_activity_tasks`."""
        return await queries.ready_activity_tasks(self._reader, namespace_id, task_queue, now, limit)

    async def workflow_task_backlog(self, namespace_id: str, task_queue: str) -> Backlog:
        """See `Store.workflow_task_backlog`."""
        return await queries.workflow_task_backlog(self._lister, namespace_id, task_queue)

    async def activity_task_backlog(self, namespace_id: str, task_queue: str, now: int) -> Backlog:
        """See `Store.activity_task_backlog`."""
        return await queries.activity_task_backlog(self._lister, namespace_id, task_queue, now)

    async def due_alarms(self, before: int, limit: int) -> list[DueAlarm]:
        """See `Store.due_alarms`."""
        return await queries.due_alarms(self._reader, before, limit)

    # --- messages -------------------------------------------------------------------------------------------------

    async def read_outbox(self, max_messages: int, max_bytes: int) -> OutboxHead:
        """See `Store.read_outbox`."""
        return await queries.read_outbox(self._reader, max_messages, max_bytes)

    async def read_inbox(self, receiver: WorkflowKey, sender_run_id: str) -> InboxRecord | None:
        """See `Store.read_inbox`."""
        return await queries.read_inbox(self._reader, receiver, sender_run_id)

    # --- namespaces -----------------------------------------------------------------------------------------------

    async def list_namespaces(self) -> list[NamespaceRecord]:
        """See `Store.list_namespaces`."""
        return await nodes.list_namespaces(self._reader)

    async def save_namespace(self, namespace: NamespaceRecord) -> None:
        """See `Store.save_namespace`."""
        await self._writer.ask(lambda connection: nodes.save_namespace(connection, namespace))

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
