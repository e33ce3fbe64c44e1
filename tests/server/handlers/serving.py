"""What handler tests share: an engine that records what it is asked, and a server around it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

import msgspec
from temporalio.api.common.v1 import WorkflowType
from temporalio.api.taskqueue.v1 import TaskQueue
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
    StartWorkflowExecutionRequest,
)

from perdure.server.core.inputs import Input
from perdure.server.core.limits import Limits
from perdure.server.core.records import NamespaceRecord, WorkflowKey
from perdure.server.core.replies import WorkflowTaskStarted
from perdure.server.core.tokens import WorkflowTaskToken
from perdure.server.engine.cluster.status import ClusterStatus
from perdure.server.engine.matching.matcher import BacklogStats
from perdure.server.engine.matching.poller_history import PollerInfo
from perdure.server.engine.matching.task_queue import QueueKey
from perdure.server.engine.namespaces import Namespaces
from perdure.server.handlers.server import Server
from perdure.server.store.interface import Store

NOW = 1_767_225_600_000_000_000
CLUSTER_ID = "6f5b7c3e-3f0e-4a52-9f0e-0d9c1f6b6c11"


class StoppedClock:
    """A clock that shows one time."""

    def now(self) -> int:
        return NOW


class NamespaceRows:
    """A store of namespaces in memory."""

    def __init__(self, *rows: NamespaceRecord) -> None:
        self.rows = {row.namespace_id: row for row in rows}
        self.saves = 0

    async def list_namespaces(self) -> list[NamespaceRecord]:
        return sorted(map(msgspec.structs.replace, self.rows.values()), key=lambda row: row.name)

    async def save_namespace(self, namespace: NamespaceRecord, former: NamespaceRecord | None = None) -> None:
        self.saves += 1
        self.rows[namespace.namespace_id] = msgspec.structs.replace(namespace)

    async def delete_namespace(self, namespace_id: str) -> bool:
        self.rows.pop(namespace_id, None)
        return True


class FakeMatcher:
    """Task queues that tests fill by hand."""

    def __init__(self) -> None:
        self.known_pollers: dict[QueueKey, list[PollerInfo]] = {}
        self.known_backlogs: dict[QueueKey, BacklogStats] = {}

    async def pollers(self, key: QueueKey) -> list[PollerInfo]:
        return self.known_pollers.get(key, [])

    async def backlog(self, key: QueueKey) -> BacklogStats:
        return self.known_backlogs.get(key, BacklogStats(0, 0.0, 0.0, 0.0))


class RecordingEngine:
    """Records every call and answers what the test says: `answer` gives the reply of `submit`."""

    def __init__(self) -> None:
        self.submitted: list[tuple[WorkflowKey, Input]] = []
        self.calls: list[tuple[str, object]] = []
        self.deadlines: list[float] = []
        self.read_for_worker: bool | None = None
        self.history = b""
        self.answer: Callable[[Input], object] = lambda _: None
        self.clock = StoppedClock()
        self.queues = FakeMatcher()
        self.status = ClusterStatus("host:7233", 1, [])
        self.rows: object = None

    @property
    def store(self) -> Store:
        return cast(Store, self.rows)

    def cluster_status(self) -> ClusterStatus:
        return self.status

    async def task_queue_pollers(self, key: QueueKey) -> list[PollerInfo]:
        return await self.queues.pollers(key)

    async def task_queue_backlog(self, key: QueueKey) -> BacklogStats:
        return await self.queues.backlog(key)

    @property
    def last_input(self) -> Input:
        return self.submitted[-1][1]

    @property
    def last_key(self) -> WorkflowKey:
        return self.submitted[-1][0]

    async def submit(self, key: WorkflowKey, input: Input) -> object:
        self.submitted.append((key, input))
        return self.answer(input)

    async def with_history(self, task: WorkflowTaskStarted) -> PollWorkflowTaskQueueResponse:
        self.calls.append(("with_history", task))
        return task.response

    async def poll_workflow_task(
        self, namespace_id: str, request: PollWorkflowTaskQueueRequest, deadline: float
    ) -> PollWorkflowTaskQueueResponse | bytes:
        self.calls.append((namespace_id, request))
        self.deadlines.append(deadline)
        return b""

    async def poll_activity_task(
        self, namespace_id: str, request: PollActivityTaskQueueRequest, deadline: float
    ) -> PollActivityTaskQueueResponse | bytes:
        self.calls.append((namespace_id, request))
        self.deadlines.append(deadline)
        return b""

    async def poll_nexus_task(
        self, namespace_id: str, request: PollNexusTaskQueueRequest, deadline: float
    ) -> PollNexusTaskQueueResponse:
        self.calls.append((namespace_id, request))
        self.deadlines.append(deadline)
        return PollNexusTaskQueueResponse()

    async def complete_workflow_task(
        self, token: WorkflowTaskToken, request: RespondWorkflowTaskCompletedRequest
    ) -> RespondWorkflowTaskCompletedResponse | bytes:
        self.calls.append(("complete_workflow_task", token))
        return b""

    async def query(self, namespace_id: str, request: QueryWorkflowRequest, deadline: float) -> QueryWorkflowResponse:
        self.calls.append((namespace_id, request))
        self.deadlines.append(deadline)
        return QueryWorkflowResponse()

    async def read_history(
        self, key: WorkflowKey, request: GetWorkflowExecutionHistoryRequest, deadline: float, *, for_worker: bool
    ) -> GetWorkflowExecutionHistoryResponse | bytes:
        self.calls.append(("read_history", request))
        self.read_for_worker = for_worker
        self.deadlines.append(deadline)
        return self.history

    async def read_history_reverse(
        self, key: WorkflowKey, request: GetWorkflowExecutionHistoryReverseRequest
    ) -> GetWorkflowExecutionHistoryReverseResponse | bytes:
        self.calls.append(("read_history_reverse", request))
        return b""

    async def shutdown_worker(self, namespace_id: str, request: ShutdownWorkerRequest) -> None:
        self.calls.append((namespace_id, request))


class Served(msgspec.Struct):
    """A server under test with its parts."""

    server: Server
    engine: RecordingEngine
    namespaces: Namespaces
    rows: NamespaceRows


def namespace_row(name: str = "default", **changes: object) -> NamespaceRecord:
    """Return a registered namespace whose id is its name with `-id` behind."""
    fields: Mapping[str, object] = {
        "namespace_id": f"{name}-id",
        "name": name,
        "state": 1,
        "description": "",
        "owner_email": "",
        "data": {},
        "retention_seconds": 86_400,
        "created_at": NOW,
        **changes,
    }
    return msgspec.convert(fields, NamespaceRecord)


async def serve(*rows: NamespaceRecord, limits: Limits | None = None) -> Served:
    """Return a server with the namespaces `default`, `other` and the given ones."""
    store = NamespaceRows(namespace_row("default", search_attributes={"CustomInt": 3}), namespace_row("other"), *rows)
    engine = RecordingEngine()
    namespaces = Namespaces(store, engine.clock)
    await namespaces.load()
    server = Server(engine, namespaces, CLUSTER_ID, limits=limits or Limits())
    return Served(server, engine, namespaces, store)


def start_request(**changes: object) -> StartWorkflowExecutionRequest:
    """Return a start request nothing is wrong with, but for the changes; a change to None clears the field."""
    request = StartWorkflowExecutionRequest(
        namespace="default",
        workflow_id="w",
        workflow_type=WorkflowType(name="T"),
        task_queue=TaskQueue(name="q"),
        request_id="r",
    )
    for field, value in changes.items():
        request.ClearField(field)  # type: ignore[arg-type]  # the names are data here
        if value is not None:
            request.MergeFrom(StartWorkflowExecutionRequest(**{field: value}))  # type: ignore[arg-type]  # as above
    return request
