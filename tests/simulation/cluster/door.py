"""How clients and workers of the simulation speak to a node: by requests of the protocol, as through a front end.

They say what they want as to a lone engine; here it becomes the RPC that says so, and its reply what they expect.
"""

from __future__ import annotations

import asyncio
from typing import Final, TypeVar

from google.protobuf.message import Message
from temporalio.api.common.v1 import Payloads, WorkflowExecution
from temporalio.api.failure.v1 import ApplicationFailureInfo
from temporalio.api.workflowservice.v1 import (
    DeleteWorkflowExecutionRequest,
    DeleteWorkflowExecutionResponse,
    GetWorkflowExecutionHistoryRequest,
    GetWorkflowExecutionHistoryResponse,
    PollActivityTaskQueueRequest,
    PollActivityTaskQueueResponse,
    PollWorkflowTaskQueueRequest,
    PollWorkflowTaskQueueResponse,
    QueryWorkflowRequest,
    QueryWorkflowResponse,
    RecordActivityTaskHeartbeatRequest,
    RecordActivityTaskHeartbeatResponse,
    RequestCancelWorkflowExecutionResponse,
    RespondActivityTaskCanceledResponse,
    RespondActivityTaskCompletedResponse,
    RespondActivityTaskFailedResponse,
    RespondQueryTaskCompletedRequest,
    RespondQueryTaskCompletedResponse,
    RespondWorkflowTaskCompletedRequest,
    RespondWorkflowTaskCompletedResponse,
    RespondWorkflowTaskFailedResponse,
    ShutdownWorkerRequest,
    ShutdownWorkerResponse,
    SignalWithStartWorkflowExecutionResponse,
    SignalWorkflowExecutionResponse,
    StartWorkflowExecutionResponse,
    TerminateWorkflowExecutionResponse,
)

from perdure.server.core import tokens
from perdure.server.core.inputs import (
    AnswerQuery,
    CancelActivity,
    CompleteActivity,
    Delete,
    FailActivity,
    FailWorkflowTask,
    HeartbeatActivity,
    Input,
    RequestCancel,
    Signal,
    SignalWithStart,
    Start,
    Terminate,
)
from perdure.server.core.records import WorkflowKey
from perdure.server.core.replies import HeartbeatReply, StartReply
from perdure.server.core.tokens import QueryToken, WorkflowTaskToken
from perdure.server.engine.client_software import ClientSoftware
from perdure.server.handlers.call import DirectCall
from perdure.server.handlers.dispatch import Dispatcher
from perdure.server.handlers.registry import methods

R = TypeVar("R", bound=Message)

_METHODS: Final = {method.name: method for method in methods()}
_CALL_SECONDS: Final = 10.0
"""How long SDKs wait for a call that is no long poll."""
_TAIL_SECONDS: Final = 2.0
"""How much later than a long poll ends its caller gives up."""


class NodeDoor:
    """The front door of one node.

    Args:
        dispatcher: What answers.
    """

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    async def _rpc(
        self, name: str, request: Message, reply_class: type[R], deadline: float | None = None, client: str = ""
    ) -> R:
        if deadline is None:
            deadline = asyncio.get_running_loop().time() + _CALL_SECONDS
        call = DirectCall(deadline, ClientSoftware(client or "temporal-python", "1.0.0"))
        return reply_class.FromString(await self._dispatcher.serve(_METHODS[name], request.SerializeToString(), call))

    # --- workers ------------------------------------------------------------------------------------------------------

    async def poll_workflow_task(
        self, namespace_id: str, request: PollWorkflowTaskQueueRequest, deadline: float
    ) -> PollWorkflowTaskQueueResponse | bytes:
        reply = await self._rpc(
            "PollWorkflowTaskQueue", request, PollWorkflowTaskQueueResponse, deadline + _TAIL_SECONDS
        )
        return reply.SerializeToString() if reply.task_token else reply

    async def poll_activity_task(
        self, namespace_id: str, request: PollActivityTaskQueueRequest, deadline: float
    ) -> PollActivityTaskQueueResponse | bytes:
        reply = await self._rpc(
            "PollActivityTaskQueue", request, PollActivityTaskQueueResponse, deadline + _TAIL_SECONDS
        )
        return reply.SerializeToString() if reply.task_token else reply

    async def complete_workflow_task(
        self, token: WorkflowTaskToken, request: RespondWorkflowTaskCompletedRequest
    ) -> RespondWorkflowTaskCompletedResponse:
        return await self._rpc("RespondWorkflowTaskCompleted", request, RespondWorkflowTaskCompletedResponse)

    async def shutdown_worker(self, namespace_id: str, request: ShutdownWorkerRequest) -> None:
        await self._rpc("ShutdownWorker", request, ShutdownWorkerResponse)

    # --- clients ------------------------------------------------------------------------------------------------------

    async def query(self, namespace_id: str, request: QueryWorkflowRequest, deadline: float) -> QueryWorkflowResponse:
        return await self._rpc("QueryWorkflow", request, QueryWorkflowResponse, deadline)

    async def read_history(
        self, key: WorkflowKey, request: GetWorkflowExecutionHistoryRequest, deadline: float, *, for_worker: bool
    ) -> GetWorkflowExecutionHistoryResponse:
        client = "" if for_worker else "temporal-cli"
        name = "GetWorkflowExecutionHistory"
        until = deadline + _TAIL_SECONDS if request.wait_new_event else None
        return await self._rpc(name, request, GetWorkflowExecutionHistoryResponse, until, client)

    async def submit(self, key: WorkflowKey, given: Input) -> object:
        match given:
            case Start():
                start = await self._rpc("StartWorkflowExecution", given.request, StartWorkflowExecutionResponse)
                return StartReply(start.run_id, start.started, start.status)
            case SignalWithStart():
                name = "SignalWithStartWorkflowExecution"
                both = await self._rpc(name, given.request, SignalWithStartWorkflowExecutionResponse)
                return StartReply(both.run_id, both.started, 0)
            case HeartbeatActivity():
                return await self._heartbeat(given)
            case Signal() | RequestCancel() | Terminate() | Delete():
                await self._change(WorkflowExecution(workflow_id=key.workflow_id, run_id=given.run_id), given)
                return None
            case _:
                await self._answer(key, given)
                return None

    async def _change(self, execution: WorkflowExecution, given: Signal | RequestCancel | Terminate | Delete) -> None:
        if isinstance(given, Delete):
            request = DeleteWorkflowExecutionRequest(namespace="default", workflow_execution=execution)
            await self._rpc("DeleteWorkflowExecution", request, DeleteWorkflowExecutionResponse)
            return
        given.request.namespace = "default"
        given.request.workflow_execution.CopyFrom(execution)
        match given:
            case Signal():
                await self._rpc("SignalWorkflowExecution", given.request, SignalWorkflowExecutionResponse)
            case RequestCancel():
                name = "RequestCancelWorkflowExecution"
                await self._rpc(name, given.request, RequestCancelWorkflowExecutionResponse)
            case Terminate():
                await self._rpc("TerminateWorkflowExecution", given.request, TerminateWorkflowExecutionResponse)

    async def _answer(self, key: WorkflowKey, given: Input) -> None:
        match given:
            case AnswerQuery():
                await self._answer_query(key, given)
            case CompleteActivity():
                given.request.task_token = tokens.encode(given.token)
                await self._rpc("RespondActivityTaskCompleted", given.request, RespondActivityTaskCompletedResponse)
            case CancelActivity():
                given.request.task_token = tokens.encode(given.token)
                await self._rpc("RespondActivityTaskCanceled", given.request, RespondActivityTaskCanceledResponse)
            case FailActivity():
                given.request.task_token = tokens.encode(given.token)
                given.request.failure.application_failure_info.CopyFrom(ApplicationFailureInfo(type="Simulated"))
                await self._rpc("RespondActivityTaskFailed", given.request, RespondActivityTaskFailedResponse)
            case FailWorkflowTask():
                given.request.task_token = tokens.encode(given.token)
                await self._rpc("RespondWorkflowTaskFailed", given.request, RespondWorkflowTaskFailedResponse)
            case _:
                raise AssertionError(f"nobody outside says {type(given).__name__}")

    async def _answer_query(self, key: WorkflowKey, given: AnswerQuery) -> None:
        request = RespondQueryTaskCompletedRequest(
            namespace="default",
            task_token=tokens.encode(QueryToken(*key, given.run_id, given.query_id)),
            completed_type=given.result.result_type,
            query_result=given.result.answer,
            error_message=given.result.error_message,
        )
        await self._rpc("RespondQueryTaskCompleted", request, RespondQueryTaskCompletedResponse)

    async def _heartbeat(self, given: HeartbeatActivity) -> HeartbeatReply:
        request = RecordActivityTaskHeartbeatRequest(
            task_token=tokens.encode(given.token), identity=given.identity, details=Payloads.FromString(given.details)
        )
        reply = await self._rpc("RecordActivityTaskHeartbeat", request, RecordActivityTaskHeartbeatResponse)
        return HeartbeatReply(reply.cancel_requested)
