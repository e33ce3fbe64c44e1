"""The entities in memory: loaded once however many ask, and forgotten, least recently used first, beyond a size.

What is not durable yet, or only held in memory, is never forgotten. The cache reads and must never change an entity.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from itertools import islice
from typing import Final

from perdure.server.core.errors import DataLoss, ServerError, Unavailable
from perdure.server.core.records import RunRecord, StoredRun, WorkflowKey
from perdure.server.core.run import Run
from perdure.server.core.stored import restore
from perdure.server.core.workflow import Workflow
from perdure.server.engine.background import run_for_ever
from perdure.server.store.interface import Store, StoreError

_logger = logging.getLogger(__name__)

_RUN_BYTES: Final = 6_000
"""What a run costs in memory apart from what it holds: measured with `tracemalloc` on one-activity runs."""
_ACTIVITY_BYTES: Final = 2_500
_TIMER_BYTES: Final = 400
_REQUEST_ID_BYTES: Final = 120
_PENDING_MESSAGE_BYTES: Final = 2_000
"""A pending child, signal or cancel request, about as an activity."""
_LOOK_AT_ONCE: Final = 64
"""Entities considered when the cache is too large: it costs the same however many there are."""


class Cache:
    """Entities by key.

    Args:
        store: Where they are loaded from.
        bytes_max: About how much memory they may take.
        load_keys: Most entities one read loads.
        is_held: Whether transitions of an entity are not durable yet.
    """

    def __init__(self, store: Store, *, bytes_max: int, load_keys: int, is_held: Callable[[WorkflowKey], bool]) -> None:
        self._store = store
        self._bytes_max = bytes_max
        self._load_keys = load_keys
        self._is_held = is_held
        self._entities: OrderedDict[WorkflowKey, Workflow] = OrderedDict()
        self._sizes: dict[WorkflowKey, int] = {}
        self._bytes = 0
        self._era = 0
        self._told_unreadable: set[str] = set()
        """Runs whose rows could not be read back: operators were told, and are not told again."""
        self._wanted: dict[WorkflowKey, list[asyncio.Future[Workflow]]] = {}
        self._loop: asyncio.AbstractEventLoop
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to load."""
        self._loop = asyncio.get_running_loop()
        self._task = run_for_ever(self._load_for_ever(), "entity loader")

    async def stop(self) -> None:
        """Stop loading; who waits is refused."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for waiting in self._wanted.values():
            _refuse(waiting, Unavailable("the server is stopping"))
        self._wanted.clear()

    @property
    def bytes(self) -> int:
        """About how much memory the entities take."""
        return self._bytes

    def __len__(self) -> int:
        return len(self._entities)

    def keys(self) -> list[WorkflowKey]:
        """Return which entities are in memory."""
        return list(self._entities)

    def peek(self, key: WorkflowKey) -> Workflow | None:
        """Return an entity if it is in memory."""
        return self._entities.get(key)

    async def load(self, key: WorkflowKey) -> Workflow:
        """Return an entity with its current run, reading it where it is not in memory.

        Raises:
            Unavailable: The store cannot be read.
            DataLoss: What is stored of the run makes no sense.
        """
        entity = self._entities.get(key)
        if entity is not None:
            return entity
        future: asyncio.Future[Workflow] = self._loop.create_future()
        self._wanted.setdefault(key, []).append(future)
        self._wake.set()
        return await future

    async def load_run(self, entity: Workflow, run_id: str) -> None:
        """Read a run of an entity that is not its current one; without effect where there is none.

        Raises:
            Unavailable: The store cannot be read.
            DataLoss: What is stored of the run makes no sense.
        """
        era = self._era
        try:
            stored = await self._store.load_run(entity.key, run_id)
        except StoreError as error:
            raise _unreadable(error) from error
        if era != self._era:
            raise Unavailable("the run may have been changed by another node while it was read; try again")
        if stored is not None and not entity.has_loaded(run_id) and self._entities.get(entity.key) is entity:
            entity.add(self._restored(stored))

    def drop(self, key: WorkflowKey) -> None:
        """Forget an entity, whatever it holds."""
        if self._entities.pop(key, None) is not None:
            self._bytes -= self._sizes.pop(key)

    def begin_era(self) -> None:
        """Read anew what is being read now: another node may write what it is about."""
        self._era += 1

    def used(self, entity: Workflow) -> None:
        """Note that an entity was looked at; one that holds more or less than its current run is measured anew."""
        if len(entity.runs) != 1 or entity.leaving:
            self.changed(entity)
        elif self._entities.get(entity.key) is entity:
            self._entities.move_to_end(entity.key)

    def changed(self, entity: Workflow) -> None:
        """Note that an entity has changed: measure it anew, and forget others where there are too many."""
        key = entity.key
        if self._entities.get(key) is not entity:
            return
        if not entity.runs:
            self.drop(key)
            return
        self._entities.move_to_end(key)
        if (len(entity.runs) > 1 or entity.leaving) and not self._is_held(key):
            entity.drop_old_runs()
        size = 0
        for run in entity.runs.values():
            size += _run_bytes(run)
        self._bytes += size - self._sizes[key]
        self._sizes[key] = size
        if self._bytes > self._bytes_max:
            self._shrink()

    def _shrink(self) -> None:
        """Forget the least recently used entities; what must stay is looked at again when the others are gone."""
        for key, entity in list(islice(self._entities.items(), _LOOK_AT_ONCE)):
            if self._bytes <= self._bytes_max:
                return
            if self._is_held(key) or entity.holds_undurable_state():
                self._entities.move_to_end(key)
            else:
                self.drop(key)

    def _add(self, key: WorkflowKey, stored: StoredRun | None) -> Workflow:
        entity = Workflow(key)
        if stored is not None:
            entity.add(self._restored(stored))
        self._entities[key] = entity
        self._sizes[key] = 0
        return entity

    def _restored(self, stored: StoredRun) -> Run:
        try:
            return restore(stored)
        except Exception as error:
            raise self._data_loss(stored.run, error) from error

    def _data_loss(self, record: RunRecord, error: Exception) -> DataLoss:
        """Tell operators, once, of a run whose rows make no sense; return what its callers are told."""
        if record.run_id not in self._told_unreadable:
            self._told_unreadable.add(record.run_id)
            _logger.error(
                "a run cannot be read back from its rows and is left alone: restore the database from a backup,"
                " or run the release that wrote it",
                exc_info=error,
                extra={
                    "namespace_id": record.namespace_id,
                    "workflow_id": record.workflow_id,
                    "run_id": record.run_id,
                },
            )
        return DataLoss(
            f"run {record.run_id} of workflow {record.workflow_id} cannot be read back from its rows: {error!r}."
            " Trying again does not help: restore the database from a backup, or run the release that wrote it."
        )

    async def _load_for_ever(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._wanted:
                await self._load_some()

    async def _load_some(self) -> None:
        keys = list(self._wanted)[: self._load_keys]
        era = self._era
        try:
            loaded = await self._store.load_current_runs(keys)
        except StoreError as error:
            for key in keys:
                _refuse(self._wanted.pop(key), _unreadable(error))
            return
        if era != self._era:
            # What was read may be older than what another node has written since.
            return
        for key, stored in zip(keys, loaded, strict=True):
            waiting = self._wanted.pop(key)
            try:
                entity = self._add(key, stored)
            except DataLoss as error:
                # One row that cannot be read back must not keep all others waiting for ever.
                _refuse(waiting, error)
                continue
            for future in waiting:
                if not future.done():
                    future.set_result(entity)


def _unreadable(error: StoreError) -> Unavailable:
    return Unavailable(f"the store cannot be read, try again: {error}")


def _refuse(waiting: list[asyncio.Future[Workflow]], reason: ServerError) -> None:
    for future in waiting:
        if not future.done():
            future.set_exception(type(reason)(reason.message))
            # Whoever waited may have gone: then nobody reads the exception, and that is no mistake.
            future.add_done_callback(_look_at)


def _look_at(future: asyncio.Future[Workflow]) -> None:
    if not future.cancelled():
        future.exception()


def _run_bytes(run: Run) -> int:
    return (
        _RUN_BYTES
        + run.tail_bytes
        + len(run.tail) * 60
        + len(run.activities) * _ACTIVITY_BYTES
        + len(run.timers) * _TIMER_BYTES
        + len(run.request_ids) * _REQUEST_ID_BYTES
        + (0 if run.mail is None else run.mail.pending * _PENDING_MESSAGE_BYTES)
    )
