"""The loop: load, step, commit, publish. Everything that happens to a workflow comes through `submit`.

Thin, and to stay thin: the rules are in the core, durability is the committer's, effects are the publisher's.
Between loading an entity and the end of its step nothing is awaited.
"""

from __future__ import annotations

import asyncio
import logging

import msgspec

from perdure.server.core.errors import Refusal, Unavailable
from perdure.server.core.inputs import Input
from perdure.server.core.records import WorkflowKey
from perdure.server.core.shards import shard_of
from perdure.server.core.transition import Circumstances
from perdure.server.core.workflow import Workflow
from perdure.server.engine.cache import Cache
from perdure.server.engine.clock import Clock
from perdure.server.engine.cluster.ownership import Elsewhere, Ownership
from perdure.server.engine.committer import Committer, Outcomes
from perdure.server.engine.namespaces import Namespaces
from perdure.server.engine.settings import EngineSettings

_logger = logging.getLogger(__name__)


class Applied(msgspec.Struct):
    """A step that was taken; its reply may go out once `durable` is done."""

    reply: object
    durable: asyncio.Future[None] | None


class Runner:
    """Takes inputs through the loop, with its collaborators passed in."""

    def __init__(
        self,
        cache: Cache,
        committer: Committer,
        outcomes: Outcomes,
        namespaces: Namespaces,
        clock: Clock,
        settings: EngineSettings,
        ownership: Ownership,
    ) -> None:
        self._cache = cache
        self._committer = committer
        self._outcomes = outcomes
        self._namespaces = namespaces
        self._clock = clock
        self._limits = settings.limits
        self._ownership = ownership

    async def submit(self, key: WorkflowKey, given: Input) -> object:
        """Take an input through the loop.

        Returns:
            The core's reply, once everything it depends on is durable.

        Raises:
            ServerError: A refusal of the rules, or that it could not be stored.
        """
        applied = await self.apply(key, given)
        if applied.durable is not None:
            await applied.durable
        return applied.reply

    async def apply(self, key: WorkflowKey, given: Input) -> Applied:
        """Take an input's step without waiting for it to be durable; for callers that may have to undo it."""
        term = self._ownership.require(key)
        self._committer.refuse_if_unable()
        entity = self._cache.peek(key)
        if entity is None or not entity.has_loaded(given.run_id):
            entity = await self._load(key, given.run_id)
            # It may have stopped meanwhile, or given the shard away: then nobody would write what is collected now. If
            # it has got it back since, the input may be of the past: a message that was delivered elsewhere meanwhile.
            if self._ownership.require(key) != term:
                raise Elsewhere(shard_of(key))
            self._committer.refuse_if_unable()
        try:
            step = entity.step(given, self._circumstances(key))
        except Refusal as refusal:
            self._cache.used(entity)
            depends_on = self._committer.follow(key, ())
            if depends_on is not None:
                await depends_on
            raise refusal
        except Exception as error:
            raise self._void(entity, error) from error
        durable: asyncio.Future[None] | None
        if step.is_dirty:
            durable = self._committer.add(entity, step.effects)
            self._cache.changed(entity)
        else:
            durable = self._committer.follow(key, step.effects)
            self._cache.used(entity)
        return Applied(step.reply, durable)

    async def _load(self, key: WorkflowKey, run_id: str) -> Workflow:
        while True:
            entity = self._cache.peek(key)
            if entity is None:
                await self._wait_for_dropped(key)
                await self._cache.load(key)
            elif not entity.has_loaded(run_id):
                await self._cache.load_run(entity, run_id)
                if self._cache.peek(key) is entity:
                    return entity
            else:
                return entity

    async def _wait_for_dropped(self, key: WorkflowKey) -> None:
        """Let a batch end that still writes an entity no longer in memory: then the store tells the truth."""
        in_flight = self._committer.follow(key, ())
        if in_flight is not None:
            await asyncio.gather(in_flight, return_exceptions=True)

    def _circumstances(self, key: WorkflowKey) -> Circumstances:
        clock = self._clock
        namespace = self._namespaces.by_id(key.namespace_id)
        return Circumstances(clock.now(), clock.new_run_id, clock.new_nonce, namespace, self._limits)

    def _void(self, entity: Workflow, error: Exception) -> Unavailable:
        """Give the entity up after a bug of ours broke off its step: memory may hold half of it, the store does not."""
        key = entity.key
        _logger.error(
            "a step broke off; the workflow is read anew from the store",
            exc_info=error,
            extra={"namespace_id": key.namespace_id, "workflow_id": key.workflow_id},
        )
        reason = Unavailable(f"an error in the server broke off a change of workflow {key.workflow_id}; it was undone")
        self._committer.void(key, reason)
        self._outcomes.drop([key])
        return reason
