"""What gaining and losing shards does to the parts of this node's engine.

What is gained is read from the store's indexes. What is lost is forgotten: entities, their waiters and queries, their
messages. Offers and alarms of lost shards may stay: whoever follows one finds that it is another node's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

from perdure.server.core.records import WorkflowKey
from perdure.server.core.shards import shard_of
from perdure.server.engine.alarms import Alarms
from perdure.server.engine.background import Background
from perdure.server.engine.cache import Cache
from perdure.server.engine.cluster.ownership import Elsewhere
from perdure.server.engine.committer import Committer
from perdure.server.engine.matching import Matcher
from perdure.server.engine.namespace_drain import NamespaceDrain
from perdure.server.engine.namespaces import Namespaces
from perdure.server.engine.outbox import Outbox
from perdure.server.engine.query_board import QueryBoard
from perdure.server.engine.retention import Retention
from perdure.server.engine.waiters import Waiters
from perdure.server.store.interface import Claim, ShardMove, StoreError

_logger = logging.getLogger(__name__)
_RETRY_SECONDS: Final = 1.0


class Tenure:
    """The engine of one node, as its cluster knows it."""

    def __init__(
        self,
        *,
        cache: Cache,
        committer: Committer,
        matcher: Matcher,
        alarms: Alarms,
        outbox: Outbox,
        waiters: Waiters,
        queries: QueryBoard,
        namespaces: Namespaces,
        deleters: Sequence[Retention | NamespaceDrain],
        background: Background,
        fenced: asyncio.Event,
    ) -> None:
        self._cache = cache
        self._committer = committer
        self._matcher = matcher
        self._alarms = alarms
        self._outbox = outbox
        self._waiters = waiters
        self._queries = queries
        self._namespaces = namespaces
        self._deleters = deleters
        self._background = background
        self._fenced = fenced
        self._is_reading_due = False
        self._is_reading = False

    def gained(self, shards: frozenset[int]) -> None:
        """Read what this node has come to own."""
        # What is in memory of these shards, or being read, may be older than what another node has written since.
        self._forget(self._held(shards))
        self._matcher.look_everywhere()
        self._alarms.look_again()
        self._outbox.look_again()
        for deleter in self._deleters:
            deleter.look_again()

    def released(self, shards: frozenset[int]) -> None:
        """Forget what is held of shards that are another node's from now on."""
        self._outbox.release(shards)
        self._alarms.release(shards)
        self._forget(self._held(shards))

    async def give_away(self, moves: Sequence[ShardMove]) -> None:
        """Write the moves behind all that is collected for their shards."""
        await self._committer.give_away(moves)

    async def replaced(self) -> None:
        """Write nothing more, and forget everything."""
        await self._committer.replaced()
        self._outbox.forget_everything()
        self._alarms.forget_everything()
        self._forget(self._cache.keys())

    def resume(self, claim: Claim) -> None:
        """Begin to write again, as the holder of a new claim."""
        self._committer.resume(claim)
        self.linked()

    def give_up(self) -> None:
        """Stop serving: another process uses this node's name."""
        self._fenced.set()

    def view_changed(self) -> None:
        """Read the namespaces anew: a change of them changes the view, too, and may not have been heard."""
        self._read_namespaces_soon()

    def linked(self) -> None:
        """Read the namespaces anew: a change may not have been heard."""
        self._read_namespaces_soon()

    def _read_namespaces_soon(self) -> None:
        self._is_reading_due = True
        if not self._is_reading:
            self._is_reading = True
            self._background.start(self._read_namespaces(), "reading of namespaces")

    async def _read_namespaces(self) -> None:
        """Read them until it succeeds, and once more if that was asked for meanwhile: the read may have come before."""
        try:
            while self._is_reading_due:
                self._is_reading_due = False
                if not await self._have_read_namespaces():
                    self._is_reading_due = True
                    await asyncio.sleep(_RETRY_SECONDS)
        finally:
            self._is_reading = False

    async def _have_read_namespaces(self) -> bool:
        try:
            await self._namespaces.read_again()
        except StoreError as error:
            _logger.warning("the namespaces cannot be read anew yet: %s", error)
            return False
        return True

    def _held(self, shards: frozenset[int]) -> list[WorkflowKey]:
        keys = self._cache.keys()
        return [key for key in keys if shard_of(key) in shards]

    def _forget(self, keys: Sequence[WorkflowKey]) -> None:
        self._cache.begin_era()
        # Also who waits for a run that is not in memory: it looks again, and may find it at another node.
        self._waiters.wake_all()
        for key in keys:
            entity = self._cache.peek(key)
            if entity is None:
                continue
            run_ids = list(entity.runs)
            self._cache.drop(key)
            self._queries.move(run_ids, Elsewhere(shard_of(key)))
