"""Namespaces that are being deleted: first all their runs, open ones too, and then the namespace itself.

The state of a namespace says that it is to go, so this goes on after a restart, and whoever closes the namespace only
has to wake it. It passes over the runs until there are none: what was let in just before the namespace was closed may
become durable behind the place that a pass has reached. Only runs of this node are deleted here. The namespace goes
when nothing is left of it anywhere; the store sees to that in the statement that removes it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from perdure.server.core.errors import ServerError
from perdure.server.core.inputs import Delete
from perdure.server.core.records import NamespaceRecord, WorkflowKey
from perdure.server.engine.background import run_for_ever
from perdure.server.engine.clock import Clock
from perdure.server.engine.cluster.ownership import Elsewhere
from perdure.server.engine.deletions import Deletions
from perdure.server.engine.namespaces import Namespaces
from perdure.server.store.interface import RunPosition, Store, StoreError

_logger = logging.getLogger(__name__)

_NANOS: Final = 1_000_000_000
_PAGE: Final = 500
_FIRST_PAUSE_SECONDS: Final = 0.1
_LAST_PAUSE_SECONDS: Final = 30.0

Settle = Callable[[], Awaitable[None]]


class NamespaceDrain:
    """Deletes what is in the namespaces that are to go.

    Args:
        store: Where the runs are.
        clock: The wall clock.
        namespaces: Which of them are to go.
        deletions: What deletes runs.
        settle: Waits until all that is collected for the store at this moment is durable, or has failed.
    """

    def __init__(
        self, store: Store, clock: Clock, namespaces: Namespaces, deletions: Deletions, settle: Settle
    ) -> None:
        self._store = store
        self._clock = clock
        self._namespaces = namespaces
        self._deletions = deletions
        self._settle = settle
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin, or go on."""
        self._task = run_for_ever(self._work_for_ever(), "deletion of namespaces")

    async def stop(self) -> None:
        """Stop; the next start goes on with what is left."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def look_again(self) -> None:
        """Look for namespaces that are to go: one may have come, or its delay may be another one."""
        self._wake.set()

    async def _work_for_ever(self) -> None:
        pause = _FIRST_PAUSE_SECONDS
        while True:
            self._wake.clear()
            doomed = [record for record in self._namespaces.all() if record.delete_delay_seconds is not None]
            for record in doomed:
                await self._drain_or_wait(record)
            if not doomed:
                await self._wake.wait()
            if await self._is_woken_within(pause):
                pause = _FIRST_PAUSE_SECONDS
            else:
                pause = min(2 * pause, _LAST_PAUSE_SECONDS)

    async def _is_woken_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                return await self._wake.wait()
        except TimeoutError:
            return False

    async def _drain_or_wait(self, record: NamespaceRecord) -> None:
        try:
            if not await self._delete_runs(record.namespace_id):
                await self._remove(record)
        except Elsewhere:
            # Another node removes it; this one has deleted what it owned of it.
            return
        except (ServerError, StoreError) as error:
            _logger.warning("a namespace cannot be deleted yet, trying again: %s", error)

    async def _delete_runs(self, namespace_id: str) -> int:
        """Pass over all runs once, and return how many there were."""
        await self._settle()
        found = 0
        after: RunPosition | None = None
        while rows := await self._store.page_runs(namespace_id, _PAGE, after):
            found += len(rows)
            await self._deletions.delete(
                [(WorkflowKey(namespace_id, row.workflow_id), Delete(row.run_id)) for row in rows]
            )
            after = RunPosition(rows[-1].started_at, rows[-1].run_id)
        return found

    async def _remove(self, record: NamespaceRecord) -> None:
        """Remove a namespace without runs, once its delay is over."""
        if record.delete_delay_seconds and not await self._is_delay_over(record):
            return
        if await self._namespaces.remove(record):
            _logger.info("a namespace is deleted", extra={"namespace": record.name})

    async def _is_delay_over(self, record: NamespaceRecord) -> bool:
        if not await self._store.is_namespace_empty(record.namespace_id):
            return False
        now = self._clock.now()
        if record.drained_at is None:

            def note(changed: NamespaceRecord) -> None:
                changed.drained_at = now

            record = await self._namespaces.change(record.name, note)
        assert record.drained_at is not None
        assert record.delete_delay_seconds is not None
        return now >= record.drained_at + record.delete_delay_seconds * _NANOS
