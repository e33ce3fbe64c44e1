"""Polls: a matched offer becomes a started task in the poller's hands, or the task is offered again.

A task is started by a transition of its run; its reply goes out once that is durable. If the poller goes away before,
a second transition takes the start back. Once the reply was handed over, never.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple, Protocol

from temporalio.api.enums.v1 import TaskQueueKind
from temporalio.api.workflowservice.v1 import (
    PollActivityTaskQueueRequest,
    PollActivityTaskQueueResponse,
    PollNexusTaskQueueRequest,
    PollNexusTaskQueueResponse,
    PollWorkflowTaskQueueRequest,
    PollWorkflowTaskQueueResponse,
)

from perdure.server.core import tokens
from perdure.server.core.errors import DataLoss, NotFound, ServerError
from perdure.server.core.inputs import (
    Input,
    ReturnActivity,
    ReturnQuery,
    ReturnWorkflowTask,
    StartActivity,
    StartWorkflowTask,
    TakeQuery,
)
from perdure.server.core.records import WorkflowKey
from perdure.server.core.replies import ActivityTaskStarted, QueryTask, StaleTask, StartReply, WorkflowTaskStarted
from perdure.server.core.tokens import ActivityToken, QueryToken, WorkflowTaskToken
from perdure.server.core.wire import message_field, tags_of
from perdure.server.engine.background import Background
from perdure.server.engine.clock import Clock
from perdure.server.engine.cluster.ownership import Elsewhere
from perdure.server.engine.cluster.services import TAKE_BACK
from perdure.server.engine.handed_out import encode_tokens
from perdure.server.engine.history import Histories
from perdure.server.engine.matching import DEFAULT_RATE_PER_SECOND, Matcher, Offer, Poller, QueueKey, QueueKind, Visit
from perdure.server.engine.runner import Runner
from perdure.server.engine.wire import history_field
from perdure.server.store.interface import StoreError

_logger = logging.getLogger(__name__)
_STICKY: Final = TaskQueueKind.TASK_QUEUE_KIND_STICKY
_HISTORY: Final = tags_of(PollWorkflowTaskQueueResponse)["history"]
_NEXT_PAGE_TOKEN: Final = tags_of(PollWorkflowTaskQueueResponse)["next_page_token"]
_PAUSE_SECONDS: Final = 0.1
"""Before a poll goes on after a start that could not be stored."""

Finish = Callable[[WorkflowKey, object], Awaitable[bytes]]


class _Poll(NamedTuple):
    """A poll: for which queue, whose, as which request, and how its task is started and its reply made."""

    queue: QueueKey
    poller: Poller
    request: PollWorkflowTaskQueueRequest | PollActivityTaskQueueRequest
    start: Callable[[Offer], Input]
    finish: Finish


class Owners(Protocol):
    """How to ask the owner of a shard."""

    async def ask_owner(self, shard: int, service: str, body: bytes) -> bytes | None:
        """Have the node that owns a shard answer; None where that is this node. Raises ServerError."""


class Visits(Protocol):
    """How a poll gets a task at another node."""

    async def make(
        self, node: str, queue: QueueKey, request: PollWorkflowTaskQueueRequest | PollActivityTaskQueueRequest
    ) -> bytes | None:
        """Take a poll to a node and return the reply for its worker, None where it should go on polling."""


class Polling:
    """Serves polls for workflow and activity tasks."""

    def __init__(
        self,
        matcher: Matcher,
        runner: Runner,
        histories: Histories,
        background: Background,
        clock: Clock,
        visits: Visits | None = None,
        owners: Owners | None = None,
    ) -> None:
        self._visits = visits
        self._owners = owners
        self._matcher = matcher
        self._runner = runner
        self._histories = histories
        self._background = background
        self._clock = clock

    async def workflow_task(
        self, namespace_id: str, request: PollWorkflowTaskQueueRequest, deadline: float
    ) -> PollWorkflowTaskQueueResponse | bytes:
        """Wait for a workflow task or a query; an empty reply means there was none before the deadline."""
        poll = self._workflow_task_poll(namespace_id, request)
        reply = await self._serve(poll, deadline)
        return PollWorkflowTaskQueueResponse() if reply is None else reply

    def _workflow_task_poll(self, namespace_id: str, request: PollWorkflowTaskQueueRequest) -> _Poll:
        queue = QueueKey(namespace_id, request.task_queue.name, QueueKind.WORKFLOW)
        is_sticky = request.task_queue.kind == _STICKY
        sticky_queue = request.task_queue.name if is_sticky else ""
        poller = Poller(request.identity, request.worker_instance_key, is_sticky)

        def start(offer: Offer) -> Input:
            if offer.query_id:
                return TakeQuery(offer.run_id, offer.query_id, sticky_queue)
            return StartWorkflowTask(offer.run_id, request.identity, self._clock.new_nonce(), sticky_queue)

        return _Poll(queue, poller, request, start, self.finish_workflow_task)

    async def activity_task(
        self, namespace_id: str, request: PollActivityTaskQueueRequest, deadline: float
    ) -> PollActivityTaskQueueResponse | bytes:
        """Wait for an activity task; an empty reply means there was none before the deadline."""
        poll = self._activity_task_poll(namespace_id, request)
        reply = await self._serve(poll, deadline)
        return PollActivityTaskQueueResponse() if reply is None else reply

    def _activity_task_poll(self, namespace_id: str, request: PollActivityTaskQueueRequest) -> _Poll:
        queue = QueueKey(namespace_id, request.task_queue.name, QueueKind.ACTIVITY)
        rate = DEFAULT_RATE_PER_SECOND
        if request.task_queue_metadata.HasField("max_tasks_per_second"):
            rate = request.task_queue_metadata.max_tasks_per_second.value
        poller = Poller(request.identity, request.worker_instance_key, rate_per_second=rate)

        def start(offer: Offer) -> Input:
            return StartActivity(offer.run_id, offer.scheduled_event_id, request.identity, self._clock.new_nonce())

        return _Poll(queue, poller, request, start, _finish_activity)

    async def nexus_task(
        self, namespace_id: str, request: PollNexusTaskQueueRequest, deadline: float
    ) -> PollNexusTaskQueueResponse:
        """Wait for a Nexus task. No operation makes one yet, so the poll ends empty."""
        queue = QueueKey(namespace_id, request.task_queue.name, QueueKind.NEXUS)
        offer = await self._matcher.poll(queue, Poller(request.identity, request.worker_instance_key), deadline)
        assert offer is None, "nothing offers Nexus tasks"
        return PollNexusTaskQueueResponse()

    async def finish_workflow_task(self, key: WorkflowKey, reply: object) -> bytes:
        """Return a started task's or a query's reply with its history, as bytes."""
        assert isinstance(reply, WorkflowTaskStarted | QueryTask)
        events, page_token = await self._histories.for_task(key, reply.history)
        head = reply.data if isinstance(reply, WorkflowTaskStarted) else reply.response.SerializeToString()
        if page_token:
            head += message_field(_NEXT_PAGE_TOKEN, page_token)
        return b"".join((head, history_field(_HISTORY, events)))

    async def serve_visit(self, queue: QueueKey, request: bytes) -> tuple[bytes, int]:
        """Serve a poll that has come to another node, with what there is at once.

        Returns:
            The reply for its worker, empty for none, and how many offers are left.
        """
        if queue.kind is QueueKind.WORKFLOW:
            poll = self._workflow_task_poll(queue.namespace_id, PollWorkflowTaskQueueRequest.FromString(request))
        else:
            poll = self._activity_task_poll(queue.namespace_id, PollActivityTaskQueueRequest.FromString(request))
        for _ in range(self._matcher.offer_count(queue)):
            offer = self._matcher.take(queue)
            reply = await self._start(poll, offer) if offer is not None else None
            if reply is not None:
                return reply, self._matcher.offer_count(queue)
        return b"", self._matcher.offer_count(queue)

    async def _serve(self, poll: _Poll, deadline: float) -> bytes | None:
        while True:
            given = await self._matcher.poll(poll.queue, poll.poller, deadline)
            if given is None:
                return None
            reply = await (self._visit(poll, given) if isinstance(given, Visit) else self._start(poll, given))
            if reply is not None:
                return reply

    async def _visit(self, poll: _Poll, visit: Visit) -> bytes | None:
        assert self._visits is not None, "there are no other nodes"
        return await self._visits.make(visit.node, poll.queue, poll.request)

    async def _start(self, poll: _Poll, offer: Offer) -> bytes | None:
        """Start an offered task; None where the poll should go on."""
        queue, finish = poll.queue, poll.finish
        key = WorkflowKey(queue.namespace_id, offer.workflow_id)
        try:
            applied = await self._runner.apply(key, poll.start(offer))
        except (StaleTask, NotFound, DataLoss, Elsewhere):
            self._matcher.stale(queue, offer)
            return None
        except (ServerError, StoreError) as error:
            await self._pause(queue, offer, error)
            return None
        except asyncio.CancelledError:
            self._matcher.give_back(queue, offer)
            raise
        except Exception:
            self._matcher.stale(queue, offer)
            raise
        try:
            if applied.durable is not None:
                await applied.durable
            finished = await finish(key, applied.reply)
        except (ServerError, StoreError) as error:
            self.take_back(key, applied.reply)
            await self._pause(queue, offer, error)
            return None
        except asyncio.CancelledError:
            self._matcher.started(queue, offer)
            self.take_back(key, applied.reply)
            raise
        except Exception:
            self._matcher.stale(queue, offer)
            self.take_back(key, applied.reply)
            raise
        self._matcher.started(queue, offer)
        return finished

    async def _pause(self, queue: QueueKey, offer: Offer, error: Exception) -> None:
        _logger.warning("a task could not be started: %s", error, extra={"run_id": offer.run_id})
        self._matcher.give_back(queue, offer)
        await asyncio.sleep(_PAUSE_SECONDS)

    def take_back(self, key: WorkflowKey, reply: object) -> None:
        """Offer a started task, or a query, again whose worker never got the reply."""
        given = _return_of(reply)
        if given is not None:
            self._background.start(self._return(key, given), f"return of a task of {given.run_id}")

    async def _return(self, key: WorkflowKey, given: Input) -> None:
        try:
            await self._runner.submit(key, given)
        except Elsewhere as elsewhere:
            await self._return_elsewhere(elsewhere.shard, given)
        except (ServerError, StoreError) as error:
            # What is left is a started task that nobody has: its timeout brings it back.
            _logger.info("a task waits for its timeout: %s", error, extra={"run_id": given.run_id})

    async def _return_elsewhere(self, shard: int, given: Input) -> None:
        """Have the node take a start back that has come to own the run meanwhile. A query went with its caller."""
        if self._owners is None or not isinstance(given, ReturnWorkflowTask | ReturnActivity):
            return
        try:
            await self._owners.ask_owner(shard, TAKE_BACK, encode_tokens([tokens.encode(given.token)]))
        except ServerError as error:
            _logger.info("a task waits for its timeout: %s", error, extra={"run_id": given.run_id})

    async def take_back_tokens(self, task_tokens: Sequence[bytes]) -> None:
        """Take back what was handed out to a caller at another node that has gone."""
        for task_token in task_tokens:
            token = tokens.decode_any(task_token)
            key = WorkflowKey(token.namespace_id, token.workflow_id)
            self._background.start(self._return(key, _return_by_token(token)), f"return of a task of {token.run_id}")


def _return_of(reply: object) -> Input | None:
    if isinstance(reply, StartReply):
        reply = reply.eager_task
    if isinstance(reply, WorkflowTaskStarted) and not reply.is_repeated:
        return _return_by_token(tokens.decode_workflow_task(reply.token))
    if isinstance(reply, ActivityTaskStarted):
        return _return_by_token(tokens.decode_activity(reply.token))
    if isinstance(reply, QueryTask):
        return _return_by_token(tokens.decode_query(reply.response.task_token))
    return None


def _return_by_token(token: WorkflowTaskToken | ActivityToken | QueryToken) -> Input:
    if isinstance(token, WorkflowTaskToken):
        return ReturnWorkflowTask(token.run_id, token)
    if isinstance(token, ActivityToken):
        return ReturnActivity(token.run_id, token)
    return ReturnQuery(token.run_id, token.query_id)


async def _finish_activity(key: WorkflowKey, reply: object) -> bytes:
    assert isinstance(reply, ActivityTaskStarted)
    return reply.data
