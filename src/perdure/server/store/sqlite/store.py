"""The store on SQLite: which connection does what.

One thread writes, and nothing else does: a batch is a transaction on its connection. A file has two more connections
with a thread each, one for what the engine waits for and one for listings, so that a listing over a million runs delays
neither. Without a file (`:memory:`) there is one connection for all.

It must never be used by two event loops.
"""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from typing import Final

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
    StoreMismatch,
    StoreUnavailable,
)
from perdure.server.store.rounds import Fence, gather
from perdure.server.store.schema import SCHEMA_VERSION
from perdure.server.store.sqlite import batches, deletions, listings, nodes, queries
from perdure.server.store.sqlite.adapters import register_adapters
from perdure.server.store.sqlite.migrations import migrate
from perdure.server.store.sqlite.thread import DatabaseThread
from perdure.server.store.steps import told_not_to
from perdure.server.store.visibility.filter import Filter

OLDEST_SQLITE = (3, 38, 0)
"""STRICT tables, UPDATE FROM, RETURNING and the JSON functions, all built in."""

PRAGMAS: Mapping[str, str] = {
    "journal_mode": "wal",
    "synchronous": "full",
    # Pages of the log before they are copied into the file: 16 MiB, so that one that changes often is copied once.
    "wal_autocheckpoint": "4000",
    # How long to wait for another process that writes (an operator's shell) before a batch fails.
    "busy_timeout": "5000",
    # KiB of pages kept per connection; the operating system keeps the rest of a file better than we could.
    "cache_size": "-16384",
    "temp_store": "memory",
}
"""What every connection is set to where nothing else was asked for."""

_PERSISTENT: Final = "journal_mode"
"""The one of these that changes the file."""

_CACHED_STATEMENTS = 256

_MEMORY = ":memory:"


class SqliteStore:
    """A store in an SQLite database.

    Args:
        path: The database file, made where it is missing; None keeps everything in memory.
        pragmas: Settings by name, over those of `PRAGMAS`, applied to every connection in their order.
        migrates: Whether `open` makes and leads the schema; else it refuses a database where that is to be done.

    Raises:
        ValueError: A pragma's value is not a plain word or number, or this SQLite has no such pragma.
    """

    def __init__(self, path: str | None, pragmas: Mapping[str, str] = {}, *, migrates: bool = True) -> None:
        for name, value in pragmas.items():
            if not re.fullmatch(r"[a-z_]+", name) or not re.fullmatch(r"[\w+-]+", value):
                raise ValueError(f"Not a pragma: {name}={value}. Give a name and a plain word or number.")
        _require_known(pragmas)
        self._path = path or _MEMORY
        self._migrates = migrates
        self._pragmas = {**PRAGMAS, **pragmas}
        self._claimed: tuple[str, int] | None = None
        self._has_failed_to_write = False
        self._writer = DatabaseThread("perdure-store-writer", self._connect_to_write)
        self._reader = self._lister = self._writer
        if self._path != _MEMORY:
            self._reader = DatabaseThread("perdure-store-reader", self._connect_to_read)
            self._lister = DatabaseThread("perdure-store-lister", self._connect_to_read)

    def require_made(self) -> None:
        """Refuse a file that this store would have to make, and is not to; nothing is touched.

        Raises:
            StoreMismatch: It is not there, or empty.
        """
        if not self._migrates and self._path != _MEMORY and not self._has_content():
            raise StoreMismatch(told_not_to(None, SCHEMA_VERSION))

    async def open(self) -> None:
        """See `Store.open`. Also raises StoreMismatch where the SQLite library is too old."""
        if sqlite3.sqlite_version_info < OLDEST_SQLITE:
            oldest = ".".join(map(str, OLDEST_SQLITE))
            raise StoreMismatch(f"SQLite {oldest} or newer is needed; this Python has {sqlite3.sqlite_version}.")
        started: list[DatabaseThread] = []
        try:
            for thread in self._threads():
                await thread.start()
                started.append(thread)
        except BaseException:
            for thread in reversed(started):
                await thread.stop()
            raise

    async def close(self) -> None:
        """See `Store.close`."""
        for thread in reversed(self._threads()):
            await thread.stop()

    async def check(self) -> None:
        """See `Store.check`. After a batch that failed, something is written: a full disk can still be read."""
        if not self._has_failed_to_write:
            await self._writer.run(nodes.cluster_id)
            return
        await self._writer.run(nodes.prove_room)
        self._has_failed_to_write = False

    async def cluster_id(self) -> str:
        """See `Store.cluster_id`."""
        return await self._reader.run(nodes.cluster_id)

    # --- writing --------------------------------------------------------------------------------------------------

    async def claim(self, node: str) -> Claim:
        """See `Store.claim`."""
        claim = await self._writer.run(lambda connection: nodes.claim(connection, node))
        self._claimed = (node, claim.incarnation)
        return claim

    async def commit(self, batch: Batch) -> None:
        """See `Store.commit`. The rows are taken from the batch before the first await."""
        assert not batch.moves, "one node owns all that is in an SQLite database"
        fence = Fence(*self._claim_held(), batch.number)
        rounds = gather(batch.writes)
        try:
            await self._writer.run(lambda connection: batches.write_batch(connection, fence, rounds))
        except (StoreUnavailable, CommitUnknown):
            self._has_failed_to_write = True
            raise

    async def resolve(self) -> Claim:
        """See `Store.resolve`. Raises Fenced where another process has taken this node's place."""
        node, incarnation = self._claim_held()
        claim = await self._writer.run(lambda connection: nodes.resolve(connection, node, incarnation))
        self._claimed = (node, claim.incarnation)
        return claim

    # --- entities -------------------------------------------------------------------------------------------------

    async def load_current_runs(self, keys: Sequence[WorkflowKey]) -> list[StoredRun | None]:
        """See `Store.load_current_runs`."""
        return await self._reader.run(lambda connection: queries.load_current_runs(connection, keys))

    async def load_run(self, key: WorkflowKey, run_id: str) -> StoredRun | None:
        """See `Store.load_run`."""
        return await self._reader.run(lambda connection: queries.load_run(connection, key, run_id))

    async def read_events(
        self, run_id: str, first_event_id: int, end_event_id: int, max_events: int, max_bytes: int
    ) -> list[StoredEvent]:
        """See `Store.read_events`."""
        return await self._reader.run(
            lambda connection: queries.read_events(
                connection, run_id, first_event_id, end_event_id, max_events, max_bytes
            )
        )

    async def read_events_reverse(
        self, run_id: str, last_event_id: int, max_events: int, max_bytes: int
    ) -> list[StoredEvent]:
        """See `Store.read_events_reverse`."""
        return await self._reader.run(
            lambda connection: queries.read_events_reverse(connection, run_id, last_event_id, max_events, max_bytes)
        )

    # --- indexes over the state -----------------------------------------------------------------------------------

    async def ready_workflow_tasks(self, namespace_id: str, task_queue: str, limit: int) -> list[ReadyTask]:
        """See `Store.ready_workflow_tasks`."""
        return await self._reader.run(
            lambda connection: queries.ready_workflow_tasks(connection, namespace_id, task_queue, limit)
        )

    async def ready_activity_tasks(self, namespace_id: str, task_queue: str, now: int, limit: int) -> list[ReadyTask]:
        """See `Store.ready_activity_tasks`."""
        return await self._reader.run(
            lambda connection: queries.ready_activity_tasks(connection, namespace_id, task_queue, now, limit)
        )

    async def workflow_task_backlog(self, namespace_id: str, task_queue: str) -> Backlog:
        """See `Store.workflow_task_backlog`."""
        return await self._lister.run(
            lambda connection: queries.workflow_task_backlog(connection, namespace_id, task_queue)
        )

    async def activity_task_backlog(self, namespace_id: str, task_queue: str, now: int) -> Backlog:
        """See `Store.activity_task_backlog`."""
        return await self._lister.run(
            lambda connection: queries.activity_task_backlog(connection, namespace_id, task_queue, now)
        )

    async def due_alarms(self, before: int, limit: int) -> list[DueAlarm]:
        """See `Store.due_alarms`."""
        return await self._reader.run(lambda connection: queries.due_alarms(connection, before, limit))

    # --- deleting -------------------------------------------------------------------------------------------------

    async def closed_runs(self, namespace_id: str, limit: int, after: RunPosition | None) -> list[ClosedRun]:
        """See `Store.closed_runs`."""
        return await self._reader.run(lambda connection: deletions.closed_runs(connection, namespace_id, limit, after))

    async def page_runs(self, namespace_id: str, limit: int, after: RunPosition | None) -> list[RunName]:
        """See `Store.page_runs`."""
        return await self._reader.run(lambda connection: deletions.page_runs(connection, namespace_id, limit, after))

    async def discarded_histories(self, limit: int) -> list[DiscardedHistory]:
        """See `Store.discarded_histories`."""
        return await self._reader.run(lambda connection: deletions.discarded_histories(connection, limit))

    async def delete_history(self, run_id: str, limit: int) -> bool:
        """See `Store.delete_history`."""
        return await self._writer.run(lambda connection: deletions.delete_history(connection, run_id, limit))

    # --- messages -------------------------------------------------------------------------------------------------

    async def read_outbox(self, max_messages: int, max_bytes: int, after: MessagePosition | None = None) -> OutboxPage:
        """See `Store.read_outbox`."""
        return await self._reader.run(
            lambda connection: queries.read_outbox(connection, max_messages, max_bytes, after)
        )

    async def read_pair(self, receiver: WorkflowKey, sender_run_id: str, number: int) -> PairState:
        """See `Store.read_pair`."""
        return await self._reader.run(lambda connection: queries.read_pair(connection, receiver, sender_run_id, number))

    # --- namespaces -----------------------------------------------------------------------------------------------

    async def list_namespaces(self) -> list[NamespaceRecord]:
        """See `Store.list_namespaces`."""
        return await self._reader.run(nodes.list_namespaces)

    async def save_namespace(self, namespace: NamespaceRecord, former: NamespaceRecord | None = None) -> None:
        """See `Store.save_namespace`."""
        await self._writer.run(lambda connection: nodes.save_namespace(connection, namespace, former))

    async def is_namespace_empty(self, namespace_id: str) -> bool:
        """See `Store.is_namespace_empty`."""
        return await self._reader.run(lambda connection: deletions.is_namespace_empty(connection, namespace_id))

    async def delete_namespace(self, namespace_id: str) -> bool:
        """See `Store.delete_namespace`."""
        return await self._writer.run(lambda connection: deletions.delete_namespace(connection, namespace_id))

    # --- visibility -----------------------------------------------------------------------------------------------

    async def list_runs(
        self, namespace_id: str, filter: Filter, limit: int, after: ListPosition | None
    ) -> list[RunRecord]:
        """See `Store.list_runs`."""
        return await self._lister.run(
            lambda connection: listings.list_runs(connection, namespace_id, filter, limit, after)
        )

    async def count_runs(self, namespace_id: str, filter: Filter) -> int:
        """See `Store.count_runs`."""
        return await self._lister.run(lambda connection: listings.count_runs(connection, namespace_id, filter))

    async def count_runs_by_status(self, namespace_id: str, filter: Filter) -> list[CountGroup]:
        """See `Store.count_runs_by_status`."""
        return await self._lister.run(
            lambda connection: listings.count_runs_by_status(connection, namespace_id, filter)
        )

    # --- connections ----------------------------------------------------------------------------------------------

    def _threads(self) -> list[DatabaseThread]:
        if self._reader is self._writer:
            return [self._writer]
        return [self._writer, self._reader, self._lister]

    def _claim_held(self) -> tuple[str, int]:
        assert self._claimed is not None, "claim the store before writing to it"
        return self._claimed

    def _has_content(self) -> bool:
        try:
            return os.path.getsize(self._path) > 0
        except OSError:
            return False

    def _connect_to_write(self) -> sqlite3.Connection:
        self.require_made()
        connection = self._connect()
        try:
            if self._path != _MEMORY and self._has_content():
                # Before the pragmas that change the file: one that is refused must stay as it is.
                self._set(connection, PRAGMAS.keys() - {_PERSISTENT})
                migrate(connection, may_change=self._migrates)
                self._set(connection, self._pragmas)
            else:
                # After them: some hold for what they find empty.
                self._set(connection, self._pragmas)
                migrate(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _connect_to_read(self) -> sqlite3.Connection:
        connection = self._connect()
        try:
            self._set(connection, self._pragmas)
        except BaseException:
            connection.close()
            raise
        connection.execute("PRAGMA query_only = on")
        return connection

    def _connect(self) -> sqlite3.Connection:
        register_adapters()
        return sqlite3.connect(self._path, isolation_level=None, cached_statements=_CACHED_STATEMENTS)

    def _set(self, connection: sqlite3.Connection, names: Iterable[str]) -> None:
        for name in names:
            connection.execute(f"PRAGMA {name} = {self._pragmas[name]}").fetchall()


def _require_known(pragmas: Iterable[str]) -> None:
    """Refuse pragmas that SQLite does not have, since it would say nothing. Raises ValueError."""
    if not pragmas:
        return
    with closing(sqlite3.connect(_MEMORY)) as connection:
        known = {str(name) for (name,) in connection.execute("PRAGMA pragma_list")}
    # An SQLite may be built without the list; then all are let through.
    if known and (unknown := sorted(set(pragmas) - known)):
        raise ValueError(f"SQLite {sqlite3.sqlite_version} has no pragma {', '.join(unknown)}: see the spelling.")
