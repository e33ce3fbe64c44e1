"""The engine: the asyncio runtime around the core, put together. Front ends and the embedded SDK call it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import msgspec
from temporalio.api.query.v1 import QueryRejected as QueryRejectedMessage
from temporalio.api.workflowservice.v1 import (
    GetWorkflowExecutionHistoryRequest,
    GetWorkflowExecutionHistoryResponse,
    GetWorkflowExecutionHistoryReverseRequest,
    GetWorkflowExecutionHistoryReverseResponse,
    PollActivityTaskQueueRequest,
    PollActivityTaskQueueResponse,
    PollNexusTaskQueueRequest,
    PollNexusTaskQueueResponse,
    PollWorkflowTaskQueueRequest,
    PollWorkflowTaskQueueResponse,
    QueryWorkflowRequest,
    QueryWorkflowResponse,
    RespondWorkflowTaskCompletedRequest,
    RespondWorkflowTaskCompletedResponse,
    ShutdownWorkerRequest,
)

from perdure import __version__
from perdure.server.core.effects import Effect
from perdure.server.core.errors import DataLoss, Refusal, ServerError
from perdure.server.core.inputs import AlarmDue, CompleteWorkflowTask, Input, Query, ResumeOffers, WithdrawQuery
from perdure.server.core.records import WorkflowKey
from perdure.server.core.replies import QueryAdmitted, QueryRejected, WorkflowTaskCompleted, WorkflowTaskStarted
from perdure.server.core.shards import SHARDS
from perdure.server.core.tokens import WorkflowTaskToken, decode_workflow_task
from perdure.server.core.wire import message_field, tags_of
from perdure.server.engine.alarms import Alarms
from perdure.server.engine.background import Background
from perdure.server.engine.cache import Cache
from perdure.server.engine.clock import Clock
from perdure.server.engine.cluster import services
from perdure.server.engine.cluster.ownership import Elsewhere, SoleOwner
from perdure.server.engine.cluster.status import ClusterStatus, NodeStatus
from perdure.server.engine.committer import Committer
from perdure.server.engine.deletions import Deletions
from perdure.server.engine.deliveries import Deliveries
from perdure.server.engine.history import Histories
from perdure.server.engine.history_cleaner import HistoryCleaner
from perdure.server.engine.matching import BacklogStats, Matcher, PollerInfo, QueueKey, QueueKind
from perdure.server.engine.namespace_drain import NamespaceDrain
from perdure.server.engine.namespace_fellows import NamespaceFellows
from perdure.server.engine.namespaces import DEFAULT_RETENTION_SECONDS, Namespaces
from perdure.server.engine.outbox import Outbox
from perdure.server.engine.polling import Polling
from perdure.server.engine.publisher import Publisher
from perdure.server.engine.query_board import QueryBoard
from perdure.server.engine.queue_facts import QueueFacts
from perdure.server.engine.retention import Retention
from perdure.server.engine.runner import Runner
from perdure.server.engine.settings import EngineSettings
from perdure.server.engine.tenure import Tenure
from perdure.server.engine.visits import VisitedQueues, Visits
from perdure.server.engine.waiters import Waiters
from perdure.server.store.interface import Store, StoreError

if TYPE_CHECKING:
    from perdure.server.engine.cluster.cluster import Cluster

_logger = logging.getLogger(__name__)
_RECOVERY_PAUSE_SECONDS: Final = 1.0
_WORKFLOW_TASK: Final = tags_of(RespondWorkflowTaskCompletedResponse)["workflow_task"]
_ACTIVITY_TASKS: Final = tags_of(RespondWorkflowTaskCompletedResponse)["activity_tasks"]


class _Shutdown(msgspec.Struct, array_like=True):
    """A worker that stops, for the other nodes."""

    namespace_id: str
    request: bytes


class Engine:
    """One node of the engine on one store.

    Args:
        store: Open; it is not closed by `stop`.
        clock: Time and fresh ids.
        settings: Limits and sizes.
        cluster: The other nodes on this store; None where it has no other.
    """

    def __init__(
        self, store: Store, clock: Clock, settings: EngineSettings | None = None, cluster: Cluster | None = None
    ) -> None:
        settings = settings or EngineSettings()
        self.store = store
        self.clock = clock
        self.settings = settings
        self.cluster = cluster
        self._started_at = clock.now()
        ownership = SoleOwner() if cluster is None else cluster.ownership
        self.namespaces = Namespaces(
            store, clock, settings.limits, None if cluster is None else NamespaceFellows(cluster)
        )
        self.matcher = Matcher(store, clock, settings.matcher, None if cluster is None else cluster.queues)
        self.background = Background()
        self._recoveries = Background()
        self.fenced_event = asyncio.Event()
        self._waiters = Waiters()
        self._queries = QueryBoard(self.matcher, settings.pending_queries)
        self._alarms = Alarms(store, clock, settings, self._ring)
        owners = None if cluster is None else cluster.forwarding
        self._deliveries = Deliveries(store, self._carry, self.background, ownership, owners, self.namespaces)
        self._outbox = Outbox(store, settings, self._carry, self._deliveries.deliver, ownership)
        self._publisher = Publisher(
            self.matcher, self._alarms, self._outbox, self._waiters, self._queries, self.background, self.submit
        )
        self._committer = Committer(store, self, settings)
        self._cache = Cache(
            store, bytes_max=settings.cache_bytes, load_keys=settings.load_keys, is_held=self._committer.holds
        )
        self._runner = Runner(self._cache, self._committer, self, self.namespaces, clock, settings, ownership)
        self._histories = Histories(self._runner, self._cache, store, self._waiters, settings)
        deletions = Deletions(self._delete, settings.deletions_per_second)
        self._retention = Retention(store, clock, self.namespaces, settings, deletions)
        self._namespace_drain = NamespaceDrain(store, clock, self.namespaces, deletions, self._committer.settle)
        self._cleaner = HistoryCleaner(store, settings)
        self.namespaces.tell_of_changes(self._retention.look_again)
        self.namespaces.tell_of_changes(self._namespace_drain.look_again)
        owners = None if cluster is None else cluster.forwarding
        visits = None if cluster is None else Visits(cluster.queues, cluster.links.to, settings.cluster.lease_seconds)
        self._polling = Polling(self.matcher, self._runner, self._histories, self.background, clock, visits, owners)
        self._queue_facts = QueueFacts(self.matcher, None if cluster is None else cluster.ask_all)
        if cluster is not None:
            self._attach(cluster)

    def _attach(self, cluster: Cluster) -> None:
        """Take part in a cluster: be told what is gained and lost, and do what others ask for."""
        cluster.attach(
            Tenure(
                cache=self._cache,
                committer=self._committer,
                matcher=self.matcher,
                alarms=self._alarms,
                outbox=self._outbox,
                waiters=self._waiters,
                queries=self._queries,
                namespaces=self.namespaces,
                deleters=(self._retention, self._namespace_drain),
                background=self._recoveries,
                fenced=self.fenced_event,
            )
        )
        cluster.queues.attach(self.matcher)
        visited = VisitedQueues(cluster.queues, self._polling)
        cluster.services.offer(services.VISIT, visited.serve)
        cluster.services.offer(services.TAKE_BACK, visited.take_back)
        cluster.services.offer(services.DELIVER, self._deliveries.serve)
        cluster.services.offer(services.DESCRIBE_QUEUE, self._queue_facts.serve)
        cluster.services.offer(services.SHUT_DOWN_WORKER, self._serve_shutdown)
        cluster.services.offer(services.READ_NAMESPACES, self._serve_namespaces)

    # --- life ---------------------------------------------------------------------------------------------------------

    async def start(
        self, namespaces: Sequence[str] = (), *, retention_seconds: int = DEFAULT_RETENTION_SECONDS
    ) -> None:
        """Take this node's place in the store, and begin to work.

        Args:
            namespaces: Namespaces that must exist besides `default`.
            retention_seconds: How long those made now keep closed runs.
        """
        claim = await (self.store.claim(self.settings.node) if self.cluster is None else self.cluster.join())
        await self.namespaces.load(namespaces, retention_seconds=retention_seconds)
        self._committer.start(claim)
        self._cache.start()
        await self.matcher.start()
        await self._alarms.start()
        await self._outbox.start()
        self._retention.start()
        self._namespace_drain.start()
        self._cleaner.start()
        if self.cluster is not None:
            await self.cluster.start()

    async def drain(self) -> None:
        """End everything that only waits: polls, long polls and queries; what is being changed goes on.

        In a cluster the shards go to the other nodes first, and what waits here for them goes on there.
        """
        self._committer.prepare_stop()
        if self.cluster is not None:
            await self.cluster.leave()
        await self.matcher.stop()
        self._queries.stop()
        self._histories.stop()
        if self.cluster is not None:
            await self.cluster.hang_up()

    async def stop(self) -> None:
        """Answer what waits and write what is collected. The store stays open."""
        await self.drain()
        await self._recoveries.stop()
        await self._retention.stop()
        await self._namespace_drain.stop()
        await self._cleaner.stop()
        await self._alarms.stop()
        await self._outbox.stop()
        await self.background.finish()
        await self._committer.stop()
        if self.cluster is not None:
            await self.cluster.stop()
        await self._cache.stop()
        await self._recoveries.stop()
        await self.background.stop()

    # --- the loop -----------------------------------------------------------------------------------------------------

    async def submit(self, key: WorkflowKey, given: Input) -> object:
        """Take an input through the loop; return its reply once what it depends on is durable.

        If the caller goes away before it has the reply, what the reply hands out is taken back.

        Raises:
            ServerError: A refusal of the rules, or that it could not be stored.
        """
        applied = await self._runner.apply(key, given)
        try:
            if applied.durable is not None:
                await applied.durable
        except asyncio.CancelledError:
            self._polling.take_back(key, applied.reply)
            raise
        return applied.reply

    async def _ring(self, key: WorkflowKey, run_id: str) -> None:
        await self._runner.submit(key, AlarmDue(run_id))

    async def _carry(self, key: WorkflowKey, given: Input) -> object:
        return await self._runner.submit(key, given)

    async def _delete(self, key: WorkflowKey, given: Input) -> None:
        """Take an input that deletes a run through the loop, and keep nothing in memory of what is gone."""
        await self._runner.submit(key, given)
        entity = self._cache.peek(key)
        if entity is not None and not entity.runs and not self._committer.holds(key):
            self._cache.drop(key)

    def publish(self, effects: Sequence[Effect]) -> None:
        """Perform effects whose transitions are durable."""
        self._publisher.publish(effects)

    def drop(self, keys: Sequence[WorkflowKey]) -> None:
        """Forget entities whose transitions did not become durable; what they have ready is offered again."""
        for key in keys:
            entity = self._cache.peek(key)
            if entity is None:
                continue
            run_ids = list(entity.runs)
            self._cache.drop(key)
            self._queries.drop(run_ids)
            for run_id in run_ids:
                self._waiters.wake(run_id)
            self._recoveries.start(self._recover(key), f"recovery of {key.workflow_id}")

    def drop_everything(self) -> None:
        """Forget all entities: the database does not hold what it had confirmed."""
        self.drop(self._cache.keys())
        self._outbox.forget_everything()
        self._waiters.wake_all()

    async def _recover(self, key: WorkflowKey) -> None:
        """Read an entity anew and offer what it has ready: its offers and alarms may have been lost with it.

        Not at once: what failed may be due again, and would fail in a circle.
        """
        while not self.fenced_event.is_set():
            await asyncio.sleep(_RECOVERY_PAUSE_SECONDS)
            try:
                await self._runner.submit(key, ResumeOffers(""))
                return
            except (Refusal, DataLoss, Elsewhere):
                return
            except (ServerError, StoreError) as error:
                if self._committer.is_stopped:
                    return
                _logger.warning("a workflow cannot be read anew yet: %s", error, extra={"workflow_id": key.workflow_id})

    def fenced(self) -> None:
        """Stop serving: another process has taken this node's place. In a cluster it may join anew."""
        if self.cluster is not None:
            self.cluster.membership.replaced()
        else:
            self.fenced_event.set()

    # --- workers ------------------------------------------------------------------------------------------------------

    async def poll_workflow_task(
        self, namespace_id: str, request: PollWorkflowTaskQueueRequest, deadline: float
    ) -> PollWorkflowTaskQueueResponse | bytes:
        """Wait for a workflow task until the deadline (`loop.time()`); an empty reply means there was none."""
        return await self._polling.workflow_task(namespace_id, request, deadline)

    async def poll_activity_task(
        self, namespace_id: str, request: PollActivityTaskQueueRequest, deadline: float
    ) -> PollActivityTaskQueueResponse | bytes:
        """Wait for an activity task until the deadline (`loop.time()`); an empty reply means there was none."""
        return await self._polling.activity_task(namespace_id, request, deadline)

    async def poll_nexus_task(
        self, namespace_id: str, request: PollNexusTaskQueueRequest, deadline: float
    ) -> PollNexusTaskQueueResponse:
        """Wait for a Nexus task until the deadline (`loop.time()`); an empty reply means there was none."""
        return await self._polling.nexus_task(namespace_id, request, deadline)

    async def complete_workflow_task(
        self, token: WorkflowTaskToken, request: RespondWorkflowTaskCompletedRequest
    ) -> bytes:
        """Take a worker's answer to a workflow task.

        Returns:
            The `RespondWorkflowTaskCompletedResponse`, serialised, with what the worker asked to have in it.

        Raises:
            NotFound: The token does not name the present task.
            InvalidArgument: A command was bad; the task has been failed for it.
        """
        key = WorkflowKey(token.namespace_id, token.workflow_id)
        applied = await self._runner.apply(key, CompleteWorkflowTask(token.run_id, token, request))
        reply = applied.reply
        assert isinstance(reply, WorkflowTaskCompleted)
        try:
            if applied.durable is not None:
                await applied.durable
            if reply.refusal is not None:
                raise reply.refusal
            parts = [message_field(_ACTIVITY_TASKS, activity.data) for activity in reply.activities]
            if reply.next_task is not None:
                next_task = await self._polling.finish_workflow_task(key, reply.next_task)
                parts.append(message_field(_WORKFLOW_TASK, next_task))
            return b"".join(parts)
        except BaseException:
            # The worker has gone, or is told of an error: either way it gets none of this.
            for handed_out in (reply.next_task, *reply.activities):
                self._polling.take_back(key, handed_out)
            raise

    async def with_history(self, task: WorkflowTaskStarted) -> PollWorkflowTaskQueueResponse:
        """Return a started task's reply with its events filled in."""
        token = decode_workflow_task(task.token)
        key = WorkflowKey(token.namespace_id, token.workflow_id)
        try:
            data = await self._polling.finish_workflow_task(key, task)
        except BaseException:
            self._polling.take_back(key, task)
            raise
        return PollWorkflowTaskQueueResponse.FromString(data)

    async def shutdown_worker(self, namespace_id: str, request: ShutdownWorkerRequest) -> None:
        """End the polls of a worker that stops, on all nodes, and offer its sticky tasks to others."""
        self._shut_down_worker(namespace_id, request)
        if self.cluster is not None:
            body = msgspec.msgpack.encode(_Shutdown(namespace_id, request.SerializeToString()))
            await self.cluster.ask_all(services.SHUT_DOWN_WORKER, body)

    async def _serve_shutdown(self, asked: services.Asked) -> bytes:
        shutdown = msgspec.msgpack.decode(asked.body, type=_Shutdown)
        self._shut_down_worker(shutdown.namespace_id, ShutdownWorkerRequest.FromString(shutdown.request))
        return b""

    def _shut_down_worker(self, namespace_id: str, request: ShutdownWorkerRequest) -> None:
        sticky = QueueKey(namespace_id, request.sticky_task_queue, QueueKind.WORKFLOW)
        self.matcher.shutdown_worker(
            namespace_id,
            request.worker_instance_key,
            task_queue=request.task_queue,
            sticky_queue=request.sticky_task_queue,
        )
        if request.sticky_task_queue:
            for offer in self.matcher.offers(sticky):
                key = WorkflowKey(namespace_id, offer.workflow_id)
                self._publisher.give_up_stickiness(key, offer.run_id, request.sticky_task_queue)

    async def task_queue_pollers(self, key: QueueKey) -> list[PollerInfo]:
        """Return who polled a task queue in the last minutes, on any node."""
        return await self._queue_facts.pollers(key)

    async def task_queue_backlog(self, key: QueueKey) -> BacklogStats:
        """Return how many tasks wait in a task queue, since when, and how fast they come and go, on all nodes."""
        return await self._queue_facts.backlog(key)

    async def _serve_namespaces(self, asked: services.Asked) -> bytes:
        await self.namespaces.read_again()
        # What was let in before is written before whoever asks goes on: it may remove the namespace.
        await self._committer.settle()
        return b""

    def cluster_status(self) -> ClusterStatus:
        """Return what this node knows of its cluster; one that is alone knows itself."""
        if self.cluster is not None:
            return self.cluster.status()
        alone = NodeStatus(self.settings.node, __version__, self._started_at, 0.0, True, False, True, SHARDS)
        return ClusterStatus(self.settings.node, 0, [alone])

    # --- clients ------------------------------------------------------------------------------------------------------

    async def query(self, namespace_id: str, request: QueryWorkflowRequest, deadline: float) -> QueryWorkflowResponse:
        """Ask a run a question and wait for the answer until the deadline (`loop.time()`).

        Raises:
            InvalidArgument: The workflow's answer is a failure.
            DeadlineExceeded: Nobody answered.
        """
        key = WorkflowKey(namespace_id, request.execution.workflow_id)
        query_id = self.clock.new_run_id()
        future = self._queries.open(query_id)
        run_id = request.execution.run_id
        wait_until = self.clock.now() + int((deadline - asyncio.get_running_loop().time()) * 1e9)
        try:
            given = Query(run_id, query_id, request.query, request.query_reject_condition, wait_until)
            applied = await self._runner.apply(key, given)
            if isinstance(applied.reply, QueryRejected):
                if applied.durable is not None:
                    await applied.durable
                rejected = QueryRejectedMessage(status=applied.reply.status)  # type: ignore[arg-type]  # a plain number
                return QueryWorkflowResponse(query_rejected=rejected)
            assert isinstance(applied.reply, QueryAdmitted)
            run_id = applied.reply.run_id
            self._queries.admitted(query_id, run_id)
            return await self._queries.wait(future, deadline)
        finally:
            if self._queries.close(query_id, run_id):
                self.background.start(self._withdraw(key, run_id, query_id), f"withdrawal of query {query_id}")

    async def _withdraw(self, key: WorkflowKey, run_id: str, query_id: str) -> None:
        try:
            await self._runner.submit(key, WithdrawQuery(run_id, query_id))
        except (ServerError, StoreError) as error:
            _logger.info("a query was not withdrawn: %s", error, extra={"run_id": run_id})

    async def read_history(
        self, key: WorkflowKey, request: GetWorkflowExecutionHistoryRequest, deadline: float, *, for_worker: bool
    ) -> GetWorkflowExecutionHistoryResponse | bytes:
        """Return a page of history, waiting for new events until the deadline where the request asks for it.

        Args:
            key: The workflow.
            request: Validated.
            deadline: Until when to wait for new events, as `loop.time()`.
            for_worker: Whether the caller may be a worker, which needs the events of its undurable task too.
        """
        return await self._histories.read(key, request, deadline, for_worker=for_worker)

    async def read_history_reverse(
        self, key: WorkflowKey, request: GetWorkflowExecutionHistoryReverseRequest
    ) -> GetWorkflowExecutionHistoryReverseResponse | bytes:
        """Return a page of history, newest events first."""
        return await self._histories.read_reverse(key, request)
