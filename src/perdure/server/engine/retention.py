"""Retention: deletes closed runs when their namespace keeps them no longer.

When a run is to go follows from when it closed and what its namespace says now. So the index of closed runs is looked
through from its beginning, and a changed retention holds at once for all of them. Between looks nothing is asked of the
store: the run that closed first says when the next one is due, and where there is none, nothing that closes from now on
can be due before a whole retention has passed.

However many runs are due, they are deleted at the node's pace for that; the namespaces take turns, a page each.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

import msgspec

from perdure.server.core.inputs import EndRetention
from perdure.server.core.records import NamespaceRecord, WorkflowKey
from perdure.server.engine.background import run_for_ever
from perdure.server.engine.clock import Clock
from perdure.server.engine.deletions import Deletions
from perdure.server.engine.namespaces import Namespaces
from perdure.server.engine.settings import EngineSettings
from perdure.server.store.interface import RunPosition, Store, StoreError

_logger = logging.getLogger(__name__)

_NANOS: Final = 1_000_000_000
_PAGE: Final = 500
_RETRY: Final = 5 * _NANOS


class _Progress(msgspec.Struct):
    """How far the runs of a namespace are looked through."""

    look_at: int = 0
    after: RunPosition | None = None
    has_failures: bool = False
    """Whether runs that are due could not be deleted since the beginning."""


class Retention:
    """The retention of this node's runs.

    Args:
        store: Where the index of closed runs is.
        clock: The wall clock.
        namespaces: What says how long they keep closed runs.
        settings: How often to look without a reason.
        deletions: What deletes.
    """

    def __init__(
        self, store: Store, clock: Clock, namespaces: Namespaces, settings: EngineSettings, deletions: Deletions
    ) -> None:
        self._store = store
        self._clock = clock
        self._namespaces = namespaces
        self._rescan = int(settings.retention_rescan_seconds * _NANOS)
        self._deletions = deletions
        self._progress: dict[str, _Progress] = {}
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look for runs that are due."""
        self._task = run_for_ever(self._work_for_ever(), "retention")

    async def stop(self) -> None:
        """Stop looking; what is left is found after the next start."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def look_again(self) -> None:
        """Look through all namespaces from the beginning: a retention has changed, or runs have come from elsewhere."""
        self._progress.clear()
        self._wake.set()

    async def _work_for_ever(self) -> None:
        while True:
            self._wake.clear()
            next_look = self._clock.now() + self._rescan
            for namespace in self._namespaces.all():
                if namespace.delete_delay_seconds is None:
                    next_look = min(next_look, await self._look_or_wait(namespace))
            await self._sleep((next_look - self._clock.now()) / _NANOS)

    async def _sleep(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _look_or_wait(self, namespace: NamespaceRecord) -> int:
        """Delete a page of runs if a look is due, and return when the next one is."""
        progress = self._progress.setdefault(namespace.namespace_id, _Progress())
        if progress.look_at <= self._clock.now():
            try:
                await self._look(namespace, progress)
            except StoreError as error:
                _logger.warning("the index of closed runs cannot be read, trying again: %s", error)
                progress.look_at = self._clock.now() + _RETRY
        return progress.look_at

    async def _look(self, namespace: NamespaceRecord, progress: _Progress) -> None:
        now = self._clock.now()
        retention = namespace.retention_seconds * _NANOS
        rows = await self._store.closed_runs(namespace.namespace_id, _PAGE, progress.after)
        due = [row for row in rows if row.closed_at + retention <= now]
        failures = await self._deletions.delete(
            [(WorkflowKey(namespace.namespace_id, row.workflow_id), EndRetention(row.run_id)) for row in due]
        )
        progress.has_failures = progress.has_failures or failures > 0
        if len(due) == _PAGE:
            progress.after = RunPosition(due[-1].closed_at, due[-1].run_id)
            return
        first_kept = rows[len(due)].closed_at if len(due) < len(rows) else now
        progress.look_at = min(first_kept + retention, now + self._rescan)
        if progress.has_failures:
            progress.look_at = min(progress.look_at, self._clock.now() + _RETRY)
        progress.after = None
        progress.has_failures = False
