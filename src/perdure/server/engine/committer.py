"""The committer: makes transitions durable in batches, and only then lets their answers and effects out.

One batch is being written while the next collects; an idle node writes at once, a busy one lets its batches gather for
a moment, because a transaction costs far more than one entity more in it: the longer, the longer one takes. What a
caller is told depends on the last transition of the entity it looked at, so refusals and reads wait here too. If a
batch fails, everything collected since was computed on its results and fails with it: those entities leave the cache
and are read anew from the store.

It writes what it is given and must never change an entity.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Final, Protocol

import msgspec

from perdure.server.core.effects import Effect
from perdure.server.core.errors import Aborted, InvalidArgument, ServerError, Unavailable
from perdure.server.core.records import EntityWrite, WorkflowKey
from perdure.server.core.workflow import Workflow
from perdure.server.engine.background import run_for_ever
from perdure.server.engine.settings import EngineSettings
from perdure.server.store.interface import (
    Batch,
    BatchRejected,
    Claim,
    CommitUnknown,
    Fenced,
    ShardMove,
    StaleVersion,
    Store,
    StoreError,
    StoreUnavailable,
)

_logger = logging.getLogger(__name__)
_RESOLVE_PAUSE_SECONDS: Final = 0.2
_LONGEST_RESOLVE_PAUSE_SECONDS: Final = 1.0
_GATHERED_PER_WRITTEN: Final = 2
"""How much longer than it took to write a batch the next one gathers."""
_STOPPING: Final = "the server is stopping"
_REPLACED: Final = "this node has been replaced; connect to the one that is running"


class AcknowledgedWorkLost(StoreError):
    """The database ends before a batch that it had confirmed: nothing in memory can be relied on."""


class Outcomes(Protocol):
    """Who has to know how a batch ended."""

    def publish(self, effects: Sequence[Effect]) -> None:
        """Perform effects whose transitions are durable, in order. Never raises."""

    def drop(self, keys: Sequence[WorkflowKey]) -> None:
        """Forget entities whose transitions did not become durable, and offer again what they have ready."""

    def drop_everything(self) -> None:
        """Forget all entities: the database does not hold what it had confirmed."""

    def fenced(self) -> None:
        """Stop serving: another process has taken this node's place."""


class _Entry(msgspec.Struct):
    """One answer and what goes out with it, in the order of the transitions."""

    key: WorkflowKey
    effects: Sequence[Effect]
    waiter: asyncio.Future[None] | None


class _Batch(msgspec.Struct):
    entities: dict[WorkflowKey, Workflow] = {}
    entries: list[_Entry] = []
    moves: list[ShardMove] = []
    """Shards to be given away behind all of it."""
    movers: list[asyncio.Future[None]] = []


class Committer:
    """Writes batches one after the other.

    Args:
        store: Where to.
        outcomes: Who performs effects and forgets entities.
        settings: How large batches are, and how long they gather.
    """

    def __init__(self, store: Store, outcomes: Outcomes, settings: EngineSettings) -> None:
        self._store = store
        self._outcomes = outcomes
        self._batch_entities = settings.batch_entities
        self._gather_seconds = settings.gather_seconds
        self._gather_seconds_max = settings.gather_seconds_max
        self._collecting = _Batch()
        self._in_flight = _Batch()
        self._number = 0
        self._wake = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop
        self._task: asyncio.Task[None] | None = None
        self._writing = asyncio.Lock()
        self._refusal: ServerError | None = None
        """What everybody is told once this node must not write any more."""
        self._silence: ServerError | None = None
        """What newcomers are told while the database does not tell the fate of a batch."""
        self._is_to_stop = False

    def start(self, claim: Claim) -> None:
        """Begin to write as the node that holds this claim."""
        self._number = claim.batch
        self._loop = asyncio.get_running_loop()
        self._task = run_for_ever(self._write_for_ever(), "committer")

    def prepare_stop(self) -> None:
        """Go on writing, but wait no more for a database that does not tell the fate of a batch: that may take long."""
        self._is_to_stop = True

    async def stop(self) -> None:
        """Write what is collected, then end; what comes later is refused."""
        self.prepare_stop()
        self._refusal = self._refusal or Unavailable(_STOPPING)
        while self._collecting.entities or self._in_flight.entities:
            await self._wait_for_batch()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def settle(self) -> None:
        """Wait until all that is collected at this moment is durable, or has failed."""
        batch = self._collecting if self._collecting.entities else self._in_flight
        if batch.entities:
            # Of a batch that is too large for one transaction, the last entity is in the last one.
            waiter = self._loop.create_future()
            batch.entries.append(_Entry(next(reversed(batch.entities)), (), waiter))
            await asyncio.gather(waiter, return_exceptions=True)

    async def _wait_for_batch(self) -> None:
        waiter: asyncio.Future[None] = self._loop.create_future()
        batch = self._in_flight if self._in_flight.entities else self._collecting
        batch.entries.append(_Entry(next(iter(batch.entities)), (), waiter))
        await asyncio.gather(waiter, return_exceptions=True)

    def holds(self, key: WorkflowKey) -> bool:
        """Whether transitions of the entity are not durable yet."""
        return key in self._collecting.entities or key in self._in_flight.entities

    @property
    def is_stopped(self) -> bool:
        """Whether this node must not serve any more."""
        return self._refusal is not None

    def refuse_if_unable(self) -> None:
        """Raise what a caller is told when this node must not serve any more, or cannot write for now."""
        refusal = self._refusal or self._silence
        if refusal is not None:
            raise refusal

    def add(self, entity: Workflow, effects: Sequence[Effect]) -> asyncio.Future[None]:
        """Take in an entity that changed; the result is done when that is durable."""
        batch = self._collecting
        if not batch.entities:
            self._wake.set()
        batch.entities[entity.key] = entity
        waiter: asyncio.Future[None] = self._loop.create_future()
        batch.entries.append(_Entry(entity.key, effects, waiter))
        return waiter

    def follow(self, key: WorkflowKey, effects: Sequence[Effect]) -> asyncio.Future[None] | None:
        """Let an answer that changed nothing wait for what it has seen; None where all of that is durable."""
        if key in self._collecting.entities:
            batch = self._collecting
        elif key in self._in_flight.entities:
            batch = self._in_flight
        else:
            self._outcomes.publish(effects)
            return None
        waiter: asyncio.Future[None] = self._loop.create_future()
        batch.entries.append(_Entry(key, effects, waiter))
        return waiter

    def give_away(self, moves: Sequence[ShardMove]) -> asyncio.Future[None]:
        """Move shards to other nodes behind all that was taken in for them; nothing may be taken in any more.

        The result is done when the moves were tried; the store's view tells which were made.
        """
        self._wake.set()
        mover: asyncio.Future[None] = self._loop.create_future()
        self._collecting.moves.extend(moves)
        self._collecting.movers.append(mover)
        return mover

    async def replaced(self) -> None:
        """Refuse all that is collected, and all that comes: this node was replaced. Done when nothing is being written.

        Else a batch begun under the old claim would end under a new one.
        """
        self._refusal = refusal = Unavailable(_REPLACED)
        async with self._writing:
            self._refuse_all(refusal)

    def resume(self, claim: Claim) -> None:
        """Write again, after this node was replaced, as the holder of a new claim."""
        if claim.batch < self._number:
            _tell_of_lost_work(self._number, claim)
        self._number = claim.batch
        self._refusal = None

    def void(self, key: WorkflowKey, reason: ServerError) -> None:
        """Give up what an entity has collected: a step of it broke off in the middle."""
        if self._collecting.entities.pop(key, None) is None:
            return
        kept = []
        for entry in self._collecting.entries:
            if entry.key == key:
                _refuse(entry, reason)
            else:
                kept.append(entry)
        self._collecting.entries = kept

    # --- the loop -----------------------------------------------------------------------------------------------------

    async def _write_for_ever(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._collecting.entities or self._collecting.moves:
                async with self._writing:
                    began = self._loop.time()
                    are_several_at_work = await self._write_next()
                    took = self._loop.time() - began
                if are_several_at_work:
                    longer = min(took * _GATHERED_PER_WRITTEN, self._gather_seconds_max)
                    await asyncio.sleep(max(longer, self._gather_seconds))

    async def _write_next(self) -> bool:
        """Write a batch; return whether several workflows are at work, so that the next one had better gather."""
        batch = self._in_flight = self._cut()
        try:
            await self._write(batch)
        except StoreError as error:
            self._fail_everything(error)
        except Exception as error:
            _logger.exception("writing a batch failed")
            self._fail_everything(error)
        return len(batch.entities) > 1 or not self._collecting.entities.keys() <= batch.entities.keys()

    async def _write(self, batch: _Batch) -> None:
        writes = [entity.take_write() for entity in batch.entities.values()]
        try:
            await self._commit(writes, batch.moves)
        except BatchRejected as error:
            # The moves wait until all before them is written.
            self._collecting.moves[:0] = batch.moves
            self._collecting.movers += batch.movers
            batch.moves, batch.movers = [], []
            await self._write_one_by_one(batch, writes, error)
            return
        self._in_flight = _Batch()
        self._release(batch.entries)
        _end_movers(batch, None)

    def _cut(self) -> _Batch:
        """Take the collected batch, or its first part where it is too large for one transaction."""
        whole = self._collecting
        if len(whole.entities) <= self._batch_entities:
            self._collecting = _Batch()
            return whole
        keys = list(whole.entities)
        first = {key: whole.entities[key] for key in keys[: self._batch_entities]}
        self._collecting = _Batch(
            {key: whole.entities[key] for key in keys[self._batch_entities :]},
            [entry for entry in whole.entries if entry.key not in first],
            whole.moves,
            whole.movers,
        )
        return _Batch(first, [entry for entry in whole.entries if entry.key in first])

    async def _commit(self, writes: list[EntityWrite], moves: list[ShardMove]) -> None:
        try:
            await self._store.commit(Batch(self._number + 1, writes, moves))
        except CommitUnknown:
            if not await self._was_committed():
                raise
        else:
            self._number += 1

    async def _was_committed(self) -> bool:
        """Find out the fate of the last batch, before anyone is answered."""
        number = self._number + 1
        claim = await self._resolve()
        self._number = claim.batch
        if claim.batch < number - 1:
            _tell_of_lost_work(number - 1, claim)
            raise AcknowledgedWorkLost(f"batch {number - 1} was durable, the database now ends at {claim.batch}")
        return claim.batch == number

    async def _resolve(self) -> Claim:
        """Ask until the database tells; it must, before anything else is written or anyone is answered.

        Who comes once it has failed to is refused: it may be long until it tells. A node that is to stop asks no more:
        it writes nothing further, and tells those who wait that it does not know.
        """
        try:
            return await self._ask_for_fate()
        finally:
            self._silence = None

    async def _ask_for_fate(self) -> Claim:
        pause_seconds = _RESOLVE_PAUSE_SECONDS
        while True:
            try:
                return await self._store.resolve()
            except (StoreUnavailable, CommitUnknown) as error:
                if self.is_stopped or self._is_to_stop:
                    self._refusal = self._refusal or Unavailable(_STOPPING)
                    raise
                _logger.warning("the fate of a batch cannot be found out yet, asking again: %s", error)
                self._silence = Unavailable(f"the change cannot be stored now, try again: {error}")
            await asyncio.sleep(pause_seconds)
            pause_seconds = min(pause_seconds * 2, _LONGEST_RESOLVE_PAUSE_SECONDS)

    async def _write_one_by_one(self, batch: _Batch, writes: list[EntityWrite], error: BatchRejected) -> None:
        """Find the entity whose rows the database refuses, by halves, and refuse only that one."""
        if not writes:
            raise error
        if len(writes) > 1:
            _logger.warning("a batch of %d entities was refused, looking for the culprit: %s", len(writes), error)
        culprits: dict[WorkflowKey, StoreError] = {}
        await self._bisect(batch, writes, culprits, error)
        self._in_flight = _Batch()
        for key, reason in culprits.items():
            _logger.error(
                "the database refuses a workflow's rows: %s",
                reason,
                extra={"namespace_id": key.namespace_id, "workflow_id": key.workflow_id},
            )
            self.void(key, Unavailable("an earlier change of this workflow was refused by the database; try again"))
        for entry in batch.entries:
            _refuse(entry, _refusal_of(culprits[entry.key]))
        self._outcomes.drop(list(culprits))

    async def _bisect(
        self, batch: _Batch, writes: list[EntityWrite], culprits: dict[WorkflowKey, StoreError], error: BatchRejected
    ) -> None:
        if len(writes) == 1:
            culprits[writes[0].key] = error
            return
        middle = len(writes) // 2
        for half in (writes[:middle], writes[middle:]):
            try:
                await self._commit(half, [])
            except BatchRejected as rejected:
                await self._bisect(batch, half, culprits, rejected)
            else:
                # At once: should the rest fail, these are durable, and what they have to tell must be told.
                self._release_part(batch, {write.key for write in half})

    def _release_part(self, batch: _Batch, keys: set[WorkflowKey]) -> None:
        entries = [entry for entry in batch.entries if entry.key in keys]
        batch.entries = [entry for entry in batch.entries if entry.key not in keys]
        for key in keys:
            del batch.entities[key]
        self._release(entries)

    def _release(self, entries: Sequence[_Entry]) -> None:
        for entry in entries:
            # First who asked, then who is told of it: a worker should know that its answer was taken before a caller
            # sees the result and acts on it.
            if entry.waiter is not None and not entry.waiter.done():
                entry.waiter.set_result(None)
            if entry.effects:
                self._outcomes.publish(entry.effects)

    def _fail_everything(self, error: Exception) -> None:
        if isinstance(error, Fenced):
            _logger.critical("another process has taken this node's place: %s", error)
            self._refusal = Unavailable(_REPLACED)
        else:
            _logger.error("a batch was not written; its callers are told to try again: %s", error)
        if isinstance(error, AcknowledgedWorkLost):
            self._outcomes.drop_everything()
        self._refuse_all(self._refusal or Unavailable(f"the change could not be stored, try again: {error}"))
        if isinstance(error, Fenced):
            self._outcomes.fenced()

    def _refuse_all(self, reason: ServerError) -> None:
        batches = (self._in_flight, self._collecting)
        self._in_flight, self._collecting = _Batch(), _Batch()
        self._outcomes.drop([key for batch in batches for key in batch.entities])
        for batch in batches:
            for entry in batch.entries:
                _refuse(entry, reason)
            _end_movers(batch, reason)


def _tell_of_lost_work(durable: int, claim: Claim) -> None:
    _logger.critical(
        "the database has lost acknowledged work: batch %d was durable, it now ends at %d; "
        "check its storage and its synchronous settings",
        durable,
        claim.batch,
    )


def _refusal_of(error: StoreError) -> ServerError:
    if isinstance(error, StaleVersion):
        return Aborted(f"the workflow was changed by somebody else meanwhile, try again: {error}")
    return InvalidArgument(f"the database refuses this: {error}")


def _end_movers(batch: _Batch, reason: ServerError | None) -> None:
    for mover in batch.movers:
        if mover.done():
            continue
        if reason is None:
            mover.set_result(None)
        else:
            mover.set_exception(type(reason)(reason.message))
            mover.add_done_callback(_look_at)


def _refuse(entry: _Entry, reason: ServerError) -> None:
    if entry.waiter is not None and not entry.waiter.done():
        entry.waiter.set_exception(type(reason)(reason.message))
        # Whoever waited may have gone: then nobody reads the exception, and that is no mistake.
        entry.waiter.add_done_callback(_look_at)


def _look_at(future: asyncio.Future[None]) -> None:
    if not future.cancelled():
        future.exception()
