"""What DescribeTaskQueue tells of a queue: what this node knows, and what the others know, put together."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

import msgspec
from temporalio.api.common.v1 import WorkerVersionCapabilities
from temporalio.api.deployment.v1 import WorkerDeploymentOptions

from perdure.server.engine.cluster.queues import Queue
from perdure.server.engine.cluster.services import DESCRIBE_QUEUE, Asked
from perdure.server.engine.matching import BacklogStats, Matcher, Poller, PollerInfo, QueueKey

_logger = logging.getLogger(__name__)

AskAll = Callable[[str, bytes], Awaitable[list[bytes]]]
"""Asks all other nodes; those that do not answer are left out."""


class _Seen(msgspec.Struct, array_like=True):
    """A poller, for another node."""

    identity: str
    rate_per_second: float
    last_access_at: int
    capabilities: bytes | None
    deployment: bytes | None


class _Facts(msgspec.Struct, array_like=True):
    """What one node knows of a queue."""

    pollers: list[_Seen]
    backlog: BacklogStats | None


class _Question(msgspec.Struct, array_like=True):
    queue: Queue
    with_backlog: bool


_encode: Final = msgspec.msgpack.Encoder().encode
_facts: Final = msgspec.msgpack.Decoder(_Facts)
_question: Final = msgspec.msgpack.Decoder(_Question)


class QueueFacts:
    """What the whole cluster knows of its task queues.

    Args:
        matcher: What this node knows.
        ask_all: How to ask the others; None where there are none.
    """

    def __init__(self, matcher: Matcher, ask_all: AskAll | None) -> None:
        self._matcher = matcher
        self._ask_all = ask_all

    async def pollers(self, key: QueueKey) -> list[PollerInfo]:
        """Return who polled the queue in the last minutes, one entry per identity, the latest first."""
        local = self._matcher.pollers(key)
        if self._ask_all is None:
            return local
        others = await self._ask(key, with_backlog=False)
        latest: dict[str, PollerInfo] = {}
        everybody = [*local, *(_info(seen) for facts in others for seen in facts.pollers)]
        for info in sorted(everybody, key=lambda info: -info.last_access_at):
            latest.setdefault(info.poller.identity, info)
        return list(latest.values())

    async def backlog(self, key: QueueKey) -> BacklogStats:
        """Return how many tasks wait in the queue, since when, and how fast they come and go."""
        local = await self._matcher.backlog(key)
        if self._ask_all is None:
            return local
        others = await self._ask(key, with_backlog=True)
        return _sum([local, *(facts.backlog for facts in others if facts.backlog is not None)])

    async def serve(self, asked: Asked) -> bytes:
        """Tell another node what this one knows."""
        question = _question.decode(asked.body)
        key = question.queue.key
        backlog = await self._matcher.backlog(key) if question.with_backlog else None
        return _encode(_Facts([_seen(info) for info in self._matcher.pollers(key)], backlog))

    async def _ask(self, key: QueueKey, *, with_backlog: bool) -> list[_Facts]:
        assert self._ask_all is not None, "there are no other nodes"
        question = _Question(Queue(key.namespace_id, key.name, int(key.kind)), with_backlog)
        answers = await self._ask_all(DESCRIBE_QUEUE, _encode(question))
        return [facts for facts in map(_read, answers) if facts is not None]


def _read(answer: bytes) -> _Facts | None:
    """Return the answer of a node, None where it cannot be read: what the others know is told all the same."""
    try:
        return _facts.decode(answer)
    except msgspec.MsgspecError as error:
        _logger.warning("what another node tells of a task queue cannot be read: %s", error)
        return None


def _sum(backlogs: Iterable[BacklogStats]) -> BacklogStats:
    parts = list(backlogs)
    return BacklogStats(
        sum(part.approximate_backlog_count for part in parts),
        max(part.approximate_backlog_age_seconds for part in parts),
        sum(part.tasks_add_rate for part in parts),
        sum(part.tasks_dispatch_rate for part in parts),
    )


def _seen(info: PollerInfo) -> _Seen:
    poller = info.poller
    capabilities, deployment = poller.worker_version_capabilities, poller.deployment_options
    return _Seen(
        poller.identity,
        poller.rate_per_second,
        info.last_access_at,
        None if capabilities is None else capabilities.SerializeToString(),
        None if deployment is None else deployment.SerializeToString(),
    )


def _info(seen: _Seen) -> PollerInfo:
    poller = Poller(seen.identity, rate_per_second=seen.rate_per_second)
    if seen.capabilities is not None:
        poller.worker_version_capabilities = WorkerVersionCapabilities.FromString(seen.capabilities)
    if seen.deployment is not None:
        poller.deployment_options = WorkerDeploymentOptions.FromString(seen.deployment)
    return PollerInfo(poller, seen.last_access_at)
