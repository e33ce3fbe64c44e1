"""Asyncio tasks that nobody awaits at once: each has an owner here and dies with it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine

_logger = logging.getLogger(__name__)


def run_for_ever(work: Coroutine[None, None, None], name: str) -> asyncio.Task[None]:
    """Start a loop that ends only when it is cancelled; if it ends by itself, that is logged."""
    task = asyncio.create_task(work, name=name)
    task.add_done_callback(_report_end)
    return task


def _report_end(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        _logger.critical("the task %s has ended: restart the server", task.get_name(), exc_info=task.exception())


class Background:
    """Owns tasks until they end."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[None, None, None], name: str) -> None:
        """Run a coroutine by itself; if it raises, that is logged."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _logger.error("%s failed", task.get_name(), exc_info=task.exception())

    async def finish(self) -> None:
        """Wait until all tasks have ended, those they start included."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def stop(self) -> None:
        """Cancel all tasks and wait for their end."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
