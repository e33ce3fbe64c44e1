"""A client of a running server, over gRPC, for tests that see it from outside."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message
from temporalio.api.command.v1 import Command
from temporalio.api.common.v1 import Payload, Payloads, WorkflowExecution, WorkflowType
from temporalio.api.enums.v1 import EventType, HistoryEventFilterType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import (
    CountWorkflowExecutionsRequest,
    CountWorkflowExecutionsResponse,
    GetWorkflowExecutionHistoryRequest,
    GetWorkflowExecutionHistoryResponse,
    PollActivityTaskQueueRequest,
    PollActivityTaskQueueResponse,
    PollWorkflowTaskQueueRequest,
    PollWorkflowTaskQueueResponse,
    RespondActivityTaskCompletedRequest,
    RespondActivityTaskCompletedResponse,
    RespondWorkflowTaskCompletedRequest,
    RespondWorkflowTaskCompletedResponse,
    SignalWorkflowExecutionRequest,
    SignalWorkflowExecutionResponse,
    StartWorkflowExecutionRequest,
    StartWorkflowExecutionResponse,
    TerminateWorkflowExecutionRequest,
    TerminateWorkflowExecutionResponse,
)

from tests.server.engine.node import QUEUE

_SERVICE = "temporal.api.workflowservice.v1.WorkflowService"

R = TypeVar("R", bound=Message)


class Client:
    """A client of one server.

    Args:
        channel: Leads to it.
    """

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel

    async def call(self, request: Message, reply: type[R], *, timeout: float = 20) -> R:
        """Call the RPC that the request is named for, once."""
        name = type(request).__name__.removesuffix("Request")
        method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = self.channel.unary_unary(f"/{_SERVICE}/{name}")
        return reply.FromString(await method(request.SerializeToString(), timeout=timeout))

    async def until_answered(self, request: Message, reply: type[R]) -> R:
        """Call as an SDK does, which tries again where the server is unavailable."""
        while True:
            try:
                return await self.call(request, reply)
            except grpc.aio.AioRpcError as error:
                assert error.code() is grpc.StatusCode.UNAVAILABLE, error.details()
                await asyncio.sleep(0)

    async def start(self, workflow_id: str) -> str:
        """Start a workflow, the same request each time, and return its run id."""
        return (await self.call(_start(workflow_id), StartWorkflowExecutionResponse)).run_id

    async def start_until_answered(self, workflow_id: str) -> str:
        """Start a workflow, again and again where the server is unavailable, and return its run id."""
        return (await self.until_answered(_start(workflow_id), StartWorkflowExecutionResponse)).run_id

    async def signal_until_answered(self, workflow_id: str, token: str) -> None:
        """Signal a workflow, the same request each time for a token."""
        request = SignalWorkflowExecutionRequest(
            namespace="default",
            workflow_execution=WorkflowExecution(workflow_id=workflow_id),
            signal_name=token,
            request_id=token,
        )
        await self.until_answered(request, SignalWorkflowExecutionResponse)

    async def terminate(self, workflow_id: str) -> None:
        """Terminate a workflow."""
        request = TerminateWorkflowExecutionRequest(
            namespace="default", workflow_execution=WorkflowExecution(workflow_id=workflow_id)
        )
        await self.call(request, TerminateWorkflowExecutionResponse)

    async def count(self) -> int:
        """Count the workflows there are."""
        request = CountWorkflowExecutionsRequest(namespace="default")
        return (await self.until_answered(request, CountWorkflowExecutionsResponse)).count

    async def signals(self, workflow_id: str) -> list[str]:
        """Return the names of all signals in a history."""
        request = GetWorkflowExecutionHistoryRequest(
            namespace="default", execution=WorkflowExecution(workflow_id=workflow_id), maximum_page_size=10_000
        )
        history = (await self.until_answered(request, GetWorkflowExecutionHistoryResponse)).history
        return [
            event.workflow_execution_signaled_event_attributes.signal_name
            for event in history.events
            if event.event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED
        ]

    async def closing_event(self, workflow_id: str) -> EventType.ValueType:
        """Wait until a workflow closes, and return how, as a client that asks for its result."""
        request = GetWorkflowExecutionHistoryRequest(
            namespace="default",
            execution=WorkflowExecution(workflow_id=workflow_id),
            wait_new_event=True,
            history_event_filter_type=HistoryEventFilterType.HISTORY_EVENT_FILTER_TYPE_CLOSE_EVENT,
        )
        while True:
            reply = await self.until_answered(request, GetWorkflowExecutionHistoryResponse)
            if reply.history.events:
                return reply.history.events[-1].event_type
            request.next_page_token = reply.next_page_token

    async def poll(self, *, timeout: float = 20) -> PollWorkflowTaskQueueResponse:
        """Poll for a workflow task."""
        request = PollWorkflowTaskQueueRequest(namespace="default", task_queue=TaskQueue(name=QUEUE), identity="worker")
        return await self.call(request, PollWorkflowTaskQueueResponse, timeout=timeout)

    async def complete(self, task: PollWorkflowTaskQueueResponse, *commands: Command) -> None:
        """Answer a workflow task."""
        request = RespondWorkflowTaskCompletedRequest(
            namespace="default", task_token=task.task_token, identity="worker", commands=commands
        )
        await self.call(request, RespondWorkflowTaskCompletedResponse)

    async def complete_activity(self, task: PollActivityTaskQueueResponse) -> None:
        """Complete an activity."""
        request = RespondActivityTaskCompletedRequest(
            namespace="default", task_token=task.task_token, identity="worker"
        )
        await self.call(request, RespondActivityTaskCompletedResponse)

    async def poll_activity(self, *, timeout: float = 20) -> PollActivityTaskQueueResponse:
        """Poll for an activity task."""
        request = PollActivityTaskQueueRequest(namespace="default", task_queue=TaskQueue(name=QUEUE), identity="worker")
        return await self.call(request, PollActivityTaskQueueResponse, timeout=timeout)


@asynccontextmanager
async def client_of(port: int) -> AsyncIterator[Client]:
    """Give a client of the server on a loopback port."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Client(channel)


def _start(workflow_id: str) -> StartWorkflowExecutionRequest:
    return StartWorkflowExecutionRequest(
        namespace="default",
        workflow_id=workflow_id,
        workflow_type=WorkflowType(name="Order"),
        task_queue=TaskQueue(name=QUEUE),
        input=Payloads(payloads=[Payload(data=b"1")]),
        request_id=workflow_id,
    )
