"""Several nodes in one event loop, in virtual time, on one database in memory: each a whole server but for its sockets.

Callers speak as clients do, in requests of the protocol to one node or another.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

from google.protobuf.message import Message
from temporalio.api.command.v1 import Command
from temporalio.api.common.v1 import Payload, Payloads, WorkflowExecution, WorkflowType
from temporalio.api.enums.v1 import HistoryEventFilterType, QueryResultType, TaskQueueKind
from temporalio.api.query.v1 import WorkflowQuery
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import (
    DescribeWorkflowExecutionRequest,
    DescribeWorkflowExecutionResponse,
    GetWorkflowExecutionHistoryRequest,
    GetWorkflowExecutionHistoryResponse,
    PollActivityTaskQueueRequest,
    PollActivityTaskQueueResponse,
    PollWorkflowTaskQueueRequest,
    PollWorkflowTaskQueueResponse,
    QueryWorkflowRequest,
    QueryWorkflowResponse,
    RespondActivityTaskCompletedRequest,
    RespondActivityTaskCompletedResponse,
    RespondQueryTaskCompletedRequest,
    RespondQueryTaskCompletedResponse,
    RespondWorkflowTaskCompletedRequest,
    RespondWorkflowTaskCompletedResponse,
    SignalWorkflowExecutionRequest,
    SignalWorkflowExecutionResponse,
    StartWorkflowExecutionRequest,
    StartWorkflowExecutionResponse,
)

from perdure.server.core.records import NamespaceRecord, StoredRun, WorkflowKey
from perdure.server.core.shards import SHARDS, shard_of
from perdure.server.engine.client_software import ClientSoftware
from perdure.server.engine.cluster.cluster import Cluster
from perdure.server.engine.cluster.placement import wished_owners
from perdure.server.engine.cluster.services import RPC
from perdure.server.engine.cluster.settings import ClusterSettings
from perdure.server.engine.engine import Engine
from perdure.server.engine.settings import EngineSettings
from perdure.server.handlers.call import DirectCall
from perdure.server.handlers.dispatch import Dispatcher
from perdure.server.handlers.registry import methods
from perdure.server.handlers.server import Server
from perdure.server.store.interface import Batch, ClusterView, MessagePosition, OutboxPage, PairState
from perdure.server.store.memory import MemoryDatabase
from tests.server.engine.cluster.network import Network
from tests.server.engine.node import (
    QUEUE,
    CountingClock,
    Faults,
    Gate,
    Store,
    event_names,
    key_of,
    new_database,
    seconds,
    unavailable,
)

R = TypeVar("R", bound=Message)

METHODS = {method.name: method for method in methods()}
LEASE_SECONDS = 5.0


class RemoteStore(Store):
    """A store whose node loses the database: for everything, or for its membership alone."""

    def __init__(self, database: MemoryDatabase, faults: Faults) -> None:
        super().__init__(database, faults)
        self.is_cut = False
        """Whether nothing gets through."""
        self.is_silent = False
        """Whether leases are not prolonged and views not read; batches get through."""
        self.reading_pairs = Gate()
        self.reading_outbox = Gate()
        self.reading_namespaces = Gate()

    def _require_way(self) -> None:
        if self.is_cut:
            raise unavailable()

    async def commit(self, batch: Batch) -> None:
        self._require_way()
        await super().commit(batch)

    async def renew(self, lease_seconds: float) -> int:
        self._require_way()
        if self.is_silent:
            raise unavailable()
        return await super().renew(lease_seconds)

    async def read_view(self) -> ClusterView:
        self._require_way()
        if self.is_silent:
            raise unavailable()
        return await super().read_view()

    async def take_over(self, node: str, session: str | None, shards: Mapping[str, Sequence[int]]) -> bool:
        self._require_way()
        return await super().take_over(node, session, shards)

    async def load_current_runs(self, keys: Sequence[WorkflowKey]) -> list[StoredRun | None]:
        self._require_way()
        return await super().load_current_runs(keys)

    async def list_namespaces(self) -> list[NamespaceRecord]:
        self._require_way()
        records = await super().list_namespaces()
        await self.reading_namespaces.passed()
        return records

    async def read_pair(self, receiver: WorkflowKey, sender_run_id: str, number: int) -> PairState:
        self._require_way()
        state = await super().read_pair(receiver, sender_run_id, number)
        await self.reading_pairs.passed()
        return state

    async def read_outbox(self, max_messages: int, max_bytes: int, after: MessagePosition | None = None) -> OutboxPage:
        head = await super().read_outbox(max_messages, max_bytes, after)
        await self.reading_outbox.passed()
        return head


class ClusterNode:
    """One node of a test's cluster."""

    def __init__(
        self, name: str, database: MemoryDatabase, network: Network, settings: EngineSettings, life: int = 1
    ) -> None:
        self.name = name
        self.faults = Faults()
        self.store = RemoteStore(database, self.faults)
        self.clock = CountingClock(f"{name}, life {life}")
        self.cluster = Cluster(self.store, self.clock, name, "test", network.dialer(name), settings.cluster)
        self.engine = Engine(self.store, self.clock, settings, self.cluster)
        server = Server(self.engine, self.engine.namespaces, database.cluster_id)
        self.dispatcher = Dispatcher(server, methods(), self.cluster.forwarding)
        self.cluster.services.offer(RPC, self.dispatcher.serve_forwarded)
        self._network = network

    async def start(self) -> None:
        await self.store.open()
        self._network.listen(self.name, self.cluster.accept)
        await self.engine.start()

    async def stop(self) -> None:
        await self.engine.stop()
        self._network.vanish(self.name)

    @property
    def shards(self) -> int:
        """How many shards it serves."""
        return len(self.cluster.ownership.served)

    def serves(self, workflow_id: str) -> bool:
        return self.cluster.ownership.serves(shard_of(key_of(workflow_id)))

    # --- what clients and workers call ----------------------------------------------------------------------------

    async def call(self, name: str, request: Message, reply_class: type[R], wait_seconds: float = 60) -> R:
        deadline = asyncio.get_running_loop().time() + wait_seconds
        call = DirectCall(deadline, ClientSoftware("temporal-python", "1.0.0"))
        return reply_class.FromString(await self.dispatcher.serve(METHODS[name], request.SerializeToString(), call))

    async def start_workflow(self, workflow_id: str, *, eager: bool = False) -> StartWorkflowExecutionResponse:
        request = StartWorkflowExecutionRequest(
            namespace="default",
            workflow_id=workflow_id,
            workflow_type=WorkflowType(name="type"),
            task_queue=TaskQueue(name=QUEUE),
            request_id=f"start {workflow_id}",
            request_eager_execution=eager,
        )
        return await self.call("StartWorkflowExecution", request, StartWorkflowExecutionResponse)

    async def signal(self, workflow_id: str) -> None:
        request = SignalWorkflowExecutionRequest(
            namespace="default",
            workflow_execution=WorkflowExecution(workflow_id=workflow_id),
            signal_name="signal",
        )
        await self.call("SignalWorkflowExecution", request, SignalWorkflowExecutionResponse)

    async def query(self, workflow_id: str, wait_seconds: float = 20) -> QueryWorkflowResponse:
        request = QueryWorkflowRequest(
            namespace="default",
            execution=WorkflowExecution(workflow_id=workflow_id),
            query=WorkflowQuery(query_type="query"),
        )
        return await self.call("QueryWorkflow", request, QueryWorkflowResponse, wait_seconds)

    async def answer_query(self, task: PollWorkflowTaskQueueResponse, data: bytes) -> None:
        request = RespondQueryTaskCompletedRequest(
            namespace="default",
            task_token=task.task_token,
            completed_type=QueryResultType.QUERY_RESULT_TYPE_ANSWERED,
            query_result=Payloads(payloads=[Payload(data=data)]),
        )
        await self.call("RespondQueryTaskCompleted", request, RespondQueryTaskCompletedResponse)

    async def result(self, workflow_id: str) -> GetWorkflowExecutionHistoryResponse:
        """Wait for the end of a workflow."""
        request = GetWorkflowExecutionHistoryRequest(
            namespace="default",
            execution=WorkflowExecution(workflow_id=workflow_id),
            wait_new_event=True,
            history_event_filter_type=HistoryEventFilterType.HISTORY_EVENT_FILTER_TYPE_CLOSE_EVENT,
        )
        return await self.call("GetWorkflowExecutionHistory", request, GetWorkflowExecutionHistoryResponse)

    async def history(self, workflow_id: str) -> list[str]:
        """Return the names of a workflow's events."""
        request = GetWorkflowExecutionHistoryRequest(
            namespace="default", execution=WorkflowExecution(workflow_id=workflow_id)
        )
        reply = await self.call("GetWorkflowExecutionHistory", request, GetWorkflowExecutionHistoryResponse)
        return event_names(reply.history.events)

    async def describe(self, workflow_id: str) -> DescribeWorkflowExecutionResponse:
        request = DescribeWorkflowExecutionRequest(
            namespace="default", execution=WorkflowExecution(workflow_id=workflow_id)
        )
        return await self.call("DescribeWorkflowExecution", request, DescribeWorkflowExecutionResponse)

    async def poll(self, *, sticky: str = "", wait_seconds: float = 60) -> PollWorkflowTaskQueueResponse:
        queue = TaskQueue(name=sticky or QUEUE)
        if sticky:
            queue.kind = TaskQueueKind.TASK_QUEUE_KIND_STICKY
            queue.normal_name = QUEUE
        request = PollWorkflowTaskQueueRequest(namespace="default", task_queue=queue, identity="worker")
        return await self.call("PollWorkflowTaskQueue", request, PollWorkflowTaskQueueResponse, wait_seconds)

    async def poll_activity(self, wait_seconds: float = 60) -> PollActivityTaskQueueResponse:
        request = PollActivityTaskQueueRequest(namespace="default", task_queue=TaskQueue(name=QUEUE), identity="worker")
        return await self.call("PollActivityTaskQueue", request, PollActivityTaskQueueResponse, wait_seconds)

    async def complete(
        self, task: PollWorkflowTaskQueueResponse, *commands: Command, sticky: str = ""
    ) -> RespondWorkflowTaskCompletedResponse:
        request = RespondWorkflowTaskCompletedRequest(
            namespace="default", task_token=task.task_token, identity="worker", commands=commands
        )
        if sticky:
            request.sticky_attributes.worker_task_queue.name = sticky
            request.sticky_attributes.schedule_to_start_timeout.CopyFrom(seconds(5))
        return await self.call("RespondWorkflowTaskCompleted", request, RespondWorkflowTaskCompletedResponse)

    async def complete_activity(self, task: PollActivityTaskQueueResponse) -> None:
        request = RespondActivityTaskCompletedRequest(
            namespace="default", task_token=task.task_token, identity="worker"
        )
        await self.call("RespondActivityTaskCompleted", request, RespondActivityTaskCompletedResponse)


class Town:
    """All nodes of a test."""

    def __init__(self, settings: EngineSettings) -> None:
        clock = CountingClock("database")
        self.database = new_database(clock.now)
        self.network = Network()
        self.settings = settings
        self.nodes: dict[str, ClusterNode] = {}
        self._lives = 0

    async def add(self, name: str) -> ClusterNode:
        """Start a node."""
        self._lives += 1
        node = self.nodes[name] = ClusterNode(name, self.database, self.network, self.settings, self._lives)
        await node.start()
        return node

    async def settle(self, wait_seconds: float = 2 * LEASE_SECONDS) -> None:
        """Let time pass, until every shard is served by the node that is wished for it."""
        await asyncio.sleep(wait_seconds)
        served = sum(node.shards for node in self.nodes.values())
        assert served == SHARDS, f"{served} shards are served: {[node.shards for node in self.nodes.values()]}"

    def somewhere_else(self, than: ClusterNode, prefix: str = "w") -> str:
        """Return a workflow id that another node serves."""
        return next(name for number in range(1000) if not than.serves(name := f"{prefix}{number}"))

    def wished_for(self, name: str, *others: str, prefix: str = "w") -> str:
        """Return a workflow id that a node is to serve, once it is there beside the others."""
        wishes = wished_owners(tuple(sorted((name, *others))))
        return next(each for number in range(1000) if wishes[shard_of(key_of(each := f"{prefix}{number}"))] == name)

    def here(self, node: ClusterNode, prefix: str = "w") -> str:
        """Return a workflow id that this node serves."""
        return next(name for number in range(1000) if node.serves(name := f"{prefix}{number}"))


@asynccontextmanager
async def town(*names: str, settings: EngineSettings | None = None) -> AsyncIterator[Town]:
    """Nodes that have started and share the shards; left as they are in the end."""
    settings = settings or EngineSettings(cluster=ClusterSettings(lease_seconds=LEASE_SECONDS))
    made = Town(settings)
    for name in names:
        await made.add(name)
    await made.settle()
    yield made
