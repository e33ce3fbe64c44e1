"""What every handler is given: the engine, the namespaces, the limits and what the server says of itself.

This module declares; it must never decide.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

from perdure.server.core.limits import Limits

if TYPE_CHECKING:
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

    from perdure.server.core.inputs import Input
    from perdure.server.core.records import WorkflowKey
    from perdure.server.core.replies import WorkflowTaskStarted
    from perdure.server.core.tokens import WorkflowTaskToken
    from perdure.server.engine.cluster.status import ClusterStatus
    from perdure.server.engine.matching import BacklogStats, PollerInfo, QueueKey
    from perdure.server.engine.namespaces import Clock, Namespaces
    from perdure.server.store.interface import Store


class Engine(Protocol):
    """What handlers ask the engine. Every method raises the errors of `core.errors`."""

    @property
    def store(self) -> Store:
        """The store, for reads of visibility and of the indexes."""

    @property
    def clock(self) -> Clock:
        """The wall clock."""

    async def task_queue_pollers(self, key: QueueKey) -> list[PollerInfo]:
        """Return who polled a task queue in the last minutes, one entry per identity, the latest first."""

    async def task_queue_backlog(self, key: QueueKey) -> BacklogStats:
        """Return how many tasks wait in a task queue, since when, and how fast they come and go."""

    async def submit(self, key: WorkflowKey, given: Input) -> object:
        """Take an input through the loop; return its reply once what it saw is durable."""

    async def with_history(self, task: WorkflowTaskStarted) -> PollWorkflowTaskQueueResponse:
        """Return a started task's reply with its events filled in."""

    async def poll_workflow_task(
        self, namespace_id: str, request: PollWorkflowTaskQueueRequest, deadline: float
    ) -> PollWorkflowTaskQueueResponse | bytes:
        """Wait for a workflow task until the deadline (`loop.time()`); an empty reply means there was none."""

    async def poll_activity_task(
        self, namespace_id: str, request: PollActivityTaskQueueRequest, deadline: float
    ) -> PollActivityTaskQueueResponse | bytes:
        """Wait for an activity task until the deadline (`loop.time()`); an empty reply means there was none."""

    async def poll_nexus_task(
        self, namespace_id: str, request: PollNexusTaskQueueRequest, deadline: float
    ) -> PollNexusTaskQueueResponse:
        """Wait for a Nexus task until the deadline (`loop.time()`); an empty reply means there was none."""

    async def complete_workflow_task(
        self, token: WorkflowTaskToken, request: RespondWorkflowTaskCompletedRequest
    ) -> RespondWorkflowTaskCompletedResponse | bytes:
        """Take a worker's answer to a workflow task."""

    async def query(self, namespace_id: str, request: QueryWorkflowRequest, deadline: float) -> QueryWorkflowResponse:
        """Ask a run a question and wait for the answer until the deadline (`loop.time()`)."""

    async def read_history(
        self, key: WorkflowKey, request: GetWorkflowExecutionHistoryRequest, deadline: float, *, for_worker: bool
    ) -> GetWorkflowExecutionHistoryResponse | bytes:
        """Return a page of history, waiting for new events until the deadline where the request asks for it.

        A worker also needs the events of its own task, which may not be stored yet; people are not shown them.
        """

    async def read_history_reverse(
        self, key: WorkflowKey, request: GetWorkflowExecutionHistoryReverseRequest
    ) -> GetWorkflowExecutionHistoryReverseResponse | bytes:
        """Return a page of history, newest events first."""

    def cluster_status(self) -> ClusterStatus:
        """Return what this node knows of its cluster."""

    async def shutdown_worker(self, namespace_id: str, request: ShutdownWorkerRequest) -> None:
        """End the polls of a worker that stops, and give up its sticky queue."""


class Server(msgspec.Struct, frozen=True):
    """What a handler works with. Made once by the composition root."""

    engine: Engine
    namespaces: Namespaces
    cluster_id: str
    """The id of the database, a UUID."""
    store_name: str = "sqlite"
    """What kind of store it is, for GetClusterInfo."""
    limits: Limits = Limits()
