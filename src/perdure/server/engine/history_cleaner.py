"""The histories of deleted runs that are too long to go with them: a piece at a time, at a pace of their own.

Nobody sees them any more. Which there are is in the store, written in the transaction that deleted the run, so a crash
leaves nothing behind for ever.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from perdure.server.engine.background import run_for_ever
from perdure.server.engine.pace import Pace
from perdure.server.engine.settings import EngineSettings
from perdure.server.store.interface import Store, StoreError

_logger = logging.getLogger(__name__)

_PAGE: Final = 100
_RETRY_SECONDS: Final = 5.0


class HistoryCleaner:
    """Deletes discarded histories.

    Args:
        store: Where they are.
        settings: How much at once, how much per second, and how often to look for more.
    """

    def __init__(self, store: Store, settings: EngineSettings) -> None:
        self._store = store
        self._at_once = settings.events_deleted_at_once
        self._pace = Pace(settings.events_deleted_per_second)
        self._rescan_seconds = settings.discarded_rescan_seconds
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look for discarded histories."""
        self._task = run_for_ever(self._work_for_ever(), "deletion of histories")

    async def stop(self) -> None:
        """Stop; what is left is found after the next start."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _work_for_ever(self) -> None:
        while True:
            try:
                found = await self._clean()
            except StoreError as error:
                _logger.warning("a history cannot be deleted yet, trying again: %s", error)
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                if not found:
                    await asyncio.sleep(self._rescan_seconds)

    async def _clean(self) -> int:
        """Delete the first of the discarded histories, and return how many there were."""
        histories = await self._store.discarded_histories(_PAGE)
        for history in histories:
            is_gone = False
            while not is_gone:
                await self._pace.turn(self._at_once)
                is_gone = await self._store.delete_history(history.run_id, self._at_once)
        return len(histories)
