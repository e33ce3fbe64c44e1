"""Readiness: whether the store could write now, told to whoever asks a server's health.

The store is asked again and again, whether or not there is work. A server that is not ready answers calls all the same
and stops nothing: it goes on by itself when the store is back.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from perdure.server.engine.background import run_for_ever
from perdure.server.store.interface import StoreError

_log = logging.getLogger(__name__)


class CheckedStore(Protocol):
    """What this module needs of a store."""

    async def check(self) -> None:
        """Raise a store error where nothing could be written now."""


class Reporter(Protocol):
    """Who tells others."""

    async def report(self, *, is_ready: bool) -> None:
        """Tell from now on whether calls can be answered."""


class Readiness:
    """Watches a store.

    Args:
        store: What to watch.
        reporter: Whom to tell when it goes away and when it is back.
        pause_seconds: How long to wait between two looks.
    """

    def __init__(self, store: CheckedStore, reporter: Reporter, pause_seconds: float) -> None:
        self._store = store
        self._reporter = reporter
        self._pause_seconds = pause_seconds
        self._is_ready = True
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to watch."""
        self._task = run_for_ever(self._watch(), "readiness")

    async def stop(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._pause_seconds)
            await self._look()

    async def _look(self) -> None:
        try:
            await self._store.check()
        except StoreError as error:
            if self._is_ready:
                _log.error("not ready, nothing can be stored: %s", error)
                await self._tell(is_ready=False)
        else:
            if not self._is_ready:
                _log.info("ready again")
                await self._tell(is_ready=True)

    async def _tell(self, *, is_ready: bool) -> None:
        self._is_ready = is_ready
        await self._reporter.report(is_ready=is_ready)
