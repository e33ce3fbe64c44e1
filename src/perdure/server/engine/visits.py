"""Polls that get their task at another node: the visiting half and the visited one. See `cluster/queues.py`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final, Protocol

import msgspec
from temporalio.api.workflowservice.v1 import PollActivityTaskQueueRequest, PollWorkflowTaskQueueRequest

from perdure.server.core.errors import ServerError
from perdure.server.engine import handed_out
from perdure.server.engine.cluster.link import Link
from perdure.server.engine.cluster.queues import NeighbourQueues, Queue, Visit, Visited
from perdure.server.engine.cluster.services import TAKE_BACK, VISIT, Asked
from perdure.server.engine.matching import QueueKey, QueueKind

_logger = logging.getLogger(__name__)
_PAUSE_SECONDS: Final = 0.1
"""Before a poll goes on that could not visit."""

_encode: Final = msgspec.msgpack.Encoder().encode
_visit: Final = msgspec.msgpack.Decoder(Visit)
_visited: Final = msgspec.msgpack.Decoder(Visited)


class LocalPolls(Protocol):
    """What this module asks of the polls of its node."""

    async def serve_visit(self, queue: QueueKey, request: bytes) -> tuple[bytes, int]:
        """Serve a poll with what there is at once; return its reply, empty for none, and how many offers are left."""

    async def take_back_tokens(self, task_tokens: list[bytes]) -> None:
        """Take back what was handed out."""


class Visits:
    """Makes visits.

    Args:
        queues: Who is told how they ended.
        link_to: The link to a node. Raises LinkDown where there is none.
        seconds: How long one may take. A node that does not answer for that long must not hold the polls of workers.
    """

    def __init__(self, queues: NeighbourQueues, link_to: Callable[[str], Link], seconds: float) -> None:
        self._queues = queues
        self._link_to = link_to
        self._seconds = seconds

    async def make(
        self, node: str, queue: QueueKey, request: PollWorkflowTaskQueueRequest | PollActivityTaskQueueRequest
    ) -> bytes | None:
        """Take a poll to a node and return the reply for its worker, None where it should go on polling."""
        visit = Visit(Queue(queue.namespace_id, queue.name, int(queue.kind)), request.SerializeToString())
        told: Visited | None = None
        try:
            async with asyncio.timeout(self._seconds):
                answer = await self._link_to(node).call(
                    VISIT, _encode(visit), late=lambda link, answer: _give_back(link, queue, answer)
                )
            told = _visited.decode(answer)
            return told.reply or None
        except TimeoutError:
            self._queues.gives_up(queue, node)
            _logger.warning("node %s did not answer a visit for %s seconds", node, self._seconds)
            return None
        except ServerError as error:
            _logger.info("a poll could not visit node %s: %s", node, error)
            await asyncio.sleep(_PAUSE_SECONDS)
            return None
        finally:
            self._queues.returns(queue, node, told)


class VisitedQueues:
    """Receives visits.

    Args:
        queues: Who is told what a visitor is told.
        polls: Who serves them.
    """

    def __init__(self, queues: NeighbourQueues, polls: LocalPolls) -> None:
        self._queues = queues
        self._polls = polls

    async def serve(self, asked: Asked) -> bytes:
        """Serve a visit."""
        visit = _visit.decode(asked.body)
        key = visit.queue.key
        reply, left = await self._polls.serve_visit(key, visit.request)
        return _encode(Visited(reply, left, self._queues.visited(key, asked.peer, left)))

    async def take_back(self, asked: Asked) -> bytes:
        """Take back tasks whose replies reached nobody."""
        await self._polls.take_back_tokens(handed_out.decode_tokens(asked.body))
        return b""


def give_back_tokens(link: Link, task_tokens: list[bytes]) -> None:
    """Have the node at the other end take tasks back. What does not get there waits for its timeout."""
    if task_tokens:
        link.tell(TAKE_BACK, handed_out.encode_tokens(task_tokens))


def _give_back(link: Link, queue: QueueKey, answer: bytes) -> None:
    reply = _visited.decode(answer).reply
    if queue.kind is QueueKind.WORKFLOW:
        give_back_tokens(link, handed_out.of_workflow_poll(reply))
    else:
        give_back_tokens(link, handed_out.of_activity_poll(reply))
