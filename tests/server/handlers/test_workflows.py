"""Signal, signal with start, cancel, terminate, delete, describe."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias, cast

import pytest
from google.protobuf.message import Message
from temporalio.api.common.v1 import Payload, Payloads, WorkflowExecution, WorkflowType
from temporalio.api.enums.v1 import WorkflowIdConflictPolicy
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import (
    DeleteWorkflowExecutionRequest,
    DescribeWorkflowExecutionRequest,
    DescribeWorkflowExecutionResponse,
    GetWorkflowExecutionHistoryRequest,
    GetWorkflowExecutionHistoryReverseRequest,
    QueryWorkflowRequest,
    RequestCancelWorkflowExecutionRequest,
    ResetStickyTaskQueueRequest,
    SignalWithStartWorkflowExecutionRequest,
    SignalWorkflowExecutionRequest,
    TerminateWorkflowExecutionRequest,
)

from perdure.server.core.errors import InvalidArgument, NotFound
from perdure.server.core.inputs import (
    Delete,
    Describe,
    Input,
    RequestCancel,
    ResetStickiness,
    Signal,
    SignalWithStart,
    Terminate,
)
from perdure.server.core.replies import StartReply
from perdure.server.handlers.call import Call, DirectCall
from perdure.server.handlers.registry import HANDLERS, WORKFLOW_SERVICE
from perdure.server.handlers.server import Server
from perdure.server.handlers.signal_with_start import signal_with_start_workflow_execution
from perdure.server.handlers.workflows import (
    delete_workflow_execution,
    describe_workflow_execution,
    request_cancel_workflow_execution,
    signal_workflow_execution,
    terminate_workflow_execution,
)
from tests.server.handlers.serving import namespace_row, serve

CALL = DirectCall()
RUN_ID = "01a1fdb3-d312-740f-80a9-38bd920672ec"
TOO_LARGE = Payloads(payloads=[Payload(data=b"x" * (2 * 1024 * 1024))])
AnyHandler: TypeAlias = Callable[[Server, Message, Call], Awaitable[Message | bytes]]

BY_EXECUTION = {
    "SignalWorkflowExecution": (SignalWorkflowExecutionRequest, "workflow_execution"),
    "RequestCancelWorkflowExecution": (RequestCancelWorkflowExecutionRequest, "workflow_execution"),
    "TerminateWorkflowExecution": (TerminateWorkflowExecutionRequest, "workflow_execution"),
    "DeleteWorkflowExecution": (DeleteWorkflowExecutionRequest, "workflow_execution"),
    "DescribeWorkflowExecution": (DescribeWorkflowExecutionRequest, "execution"),
    "GetWorkflowExecutionHistory": (GetWorkflowExecutionHistoryRequest, "execution"),
    "GetWorkflowExecutionHistoryReverse": (GetWorkflowExecutionHistoryReverseRequest, "execution"),
    "QueryWorkflow": (QueryWorkflowRequest, "execution"),
    "ResetStickyTaskQueue": (ResetStickyTaskQueueRequest, "execution"),
}
"""Every RPC that names a workflow execution, and the field it does so with."""


def execution(workflow_id: str = "w", run_id: str = "") -> WorkflowExecution:
    return WorkflowExecution(workflow_id=workflow_id, run_id=run_id)


@pytest.mark.parametrize("name", BY_EXECUTION)
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "Execution is not set on request."),
        (execution(""), "WorkflowId is not set on request."),
        (execution("a\0"), "WorkflowId contains a NUL character."),
        (execution("w", "not-a-uuid"), "Invalid RunId."),
    ],
)
async def test_an_execution_must_be_nameable(name: str, value: WorkflowExecution | None, message: str) -> None:
    served = await serve()
    request_class, field = BY_EXECUTION[name]
    request = cast("Message", request_class(namespace="default"))
    if value is not None:
        getattr(request, field).CopyFrom(value)
        getattr(request, field).SetInParent()
    with pytest.raises(InvalidArgument) as refused:
        await HANDLERS[WORKFLOW_SERVICE][name](served.server, request, CALL)
    assert refused.value.message == message


@pytest.mark.parametrize("name", BY_EXECUTION)
async def test_an_unknown_namespace_is_not_found(name: str) -> None:
    served = await serve()
    request = cast("Message", BY_EXECUTION[name][0](namespace="nope"))
    with pytest.raises(NotFound, match="Namespace nope is not found"):
        await HANDLERS[WORKFLOW_SERVICE][name](served.server, request, CALL)


async def test_a_deprecated_namespace_still_serves_its_workflows() -> None:
    served = await serve(namespace_row("old", state=2))
    await delete_workflow_execution(
        served.server, DeleteWorkflowExecutionRequest(namespace="old", workflow_execution=execution()), CALL
    )
    assert served.engine.last_key == ("old-id", "w")


async def test_each_call_becomes_its_input_for_the_run_it_names() -> None:
    served = await serve()
    there = execution(run_id=RUN_ID)
    signal = SignalWorkflowExecutionRequest(namespace="default", workflow_execution=there, signal_name="s")
    cancel = RequestCancelWorkflowExecutionRequest(namespace="default", workflow_execution=there)
    terminate = TerminateWorkflowExecutionRequest(namespace="default", workflow_execution=there)
    delete = DeleteWorkflowExecutionRequest(namespace="default", workflow_execution=there)
    await signal_workflow_execution(served.server, signal, CALL)
    await request_cancel_workflow_execution(served.server, cancel, CALL)
    await terminate_workflow_execution(served.server, terminate, CALL)
    await delete_workflow_execution(served.server, delete, CALL)
    expected: list[Input] = [
        Signal(RUN_ID, signal),
        RequestCancel(RUN_ID, cancel),
        Terminate(RUN_ID, terminate),
        Delete(RUN_ID),
    ]
    assert [sent for _, sent in served.engine.submitted] == expected
    assert {key for key, _ in served.engine.submitted} == {("default-id", "w")}


async def test_a_chain_named_by_its_first_run_is_meant_whichever_run_is_named_beside() -> None:
    served = await serve()
    there = execution(run_id=RUN_ID)
    cancel = RequestCancelWorkflowExecutionRequest(
        namespace="default", workflow_execution=there, first_execution_run_id=RUN_ID
    )
    terminate = TerminateWorkflowExecutionRequest(
        namespace="default", workflow_execution=there, first_execution_run_id=RUN_ID
    )
    await request_cancel_workflow_execution(served.server, cancel, CALL)
    await terminate_workflow_execution(served.server, terminate, CALL)
    expected: list[Input] = [RequestCancel("", cancel), Terminate("", terminate)]
    assert [sent for _, sent in served.engine.submitted] == expected


async def test_reset_of_stickiness_becomes_its_input() -> None:
    served = await serve()
    request = ResetStickyTaskQueueRequest(namespace="default", execution=execution(run_id=RUN_ID))
    await HANDLERS[WORKFLOW_SERVICE]["ResetStickyTaskQueue"](served.server, request, CALL)
    assert served.engine.last_input == ResetStickiness(RUN_ID)


async def test_describe_answers_what_the_core_says() -> None:
    served = await serve()
    told = DescribeWorkflowExecutionResponse()
    served.engine.answer = lambda _: told
    request = DescribeWorkflowExecutionRequest(namespace="default", execution=execution())
    assert await describe_workflow_execution(served.server, request, CALL) is told
    assert served.engine.last_input == Describe("")


async def test_a_terminate_says_who_and_why() -> None:
    served = await serve()
    request = TerminateWorkflowExecutionRequest(namespace="default", workflow_execution=execution())
    await terminate_workflow_execution(served.server, request, CALL)
    sent = served.engine.last_input
    assert isinstance(sent, Terminate)
    assert sent.request.reason == "terminated by user via frontend"
    assert sent.request.identity == "frontend-service"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"signal_name": ""}, "SignalName is not set on request."),
        ({"signal_name": "s" * 1001}, "SignalName length exceeds limit."),
        ({"request_id": "r" * 1001}, "RequestId length exceeds limit."),
        ({"input": TOO_LARGE}, "Blob data size exceeds limit."),
    ],
)
async def test_a_faulty_signal_is_refused(changes: dict[str, object], message: str) -> None:
    served = await serve()
    request = SignalWorkflowExecutionRequest(namespace="default", workflow_execution=execution(), signal_name="s")
    for field, value in changes.items():
        if isinstance(value, Message):
            getattr(request, field).CopyFrom(value)
        else:
            setattr(request, field, value)
    with pytest.raises(InvalidArgument) as refused:
        await signal_workflow_execution(served.server, request, CALL)
    assert refused.value.message == message
    assert served.engine.submitted == []


def signal_with_start(**changes: object) -> SignalWithStartWorkflowExecutionRequest:
    request = SignalWithStartWorkflowExecutionRequest(
        namespace="default",
        workflow_id="w",
        workflow_type=WorkflowType(name="T"),
        task_queue=TaskQueue(name="q"),
        signal_name="s",
    )
    for field, value in changes.items():
        if isinstance(value, Message):
            getattr(request, field).CopyFrom(value)
        else:
            setattr(request, field, value)
    return request


async def test_signal_with_start_uses_a_running_workflow_by_default() -> None:
    served = await serve()
    served.engine.answer = lambda _: StartReply("run", False, 1)
    response = await signal_with_start_workflow_execution(served.server, signal_with_start(), CALL)
    sent = served.engine.last_input
    assert isinstance(sent, SignalWithStart)
    policy = WorkflowIdConflictPolicy.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING
    assert sent.request.workflow_id_conflict_policy == policy
    assert len(sent.request.request_id) == 36
    assert (response.run_id, response.started) == ("run", False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"signal_name": ""}, "SignalName is not set on request."),
        ({"workflow_id": ""}, "WorkflowId is not set on request."),
        ({"cron_schedule": "never"}, "invalid CronSchedule."),
        ({"signal_input": TOO_LARGE}, "Blob data size exceeds limit."),
        (
            {"workflow_id_conflict_policy": WorkflowIdConflictPolicy.WORKFLOW_ID_CONFLICT_POLICY_FAIL},
            "Invalid WorkflowIDConflictPolicy: WORKFLOW_ID_CONFLICT_POLICY_FAIL is not supported for this operation.",
        ),
    ],
)
async def test_a_faulty_signal_with_start_is_refused(changes: dict[str, object], message: str) -> None:
    served = await serve()
    with pytest.raises(InvalidArgument) as refused:
        await signal_with_start_workflow_execution(served.server, signal_with_start(**changes), CALL)
    assert refused.value.message == message
    assert served.engine.submitted == []


async def test_a_first_run_id_that_cannot_be_one_is_left_to_the_rules() -> None:
    served = await serve()
    there = execution("w")
    terminate = TerminateWorkflowExecutionRequest(
        namespace="default", workflow_execution=there, first_execution_run_id="not-a-uuid"
    )
    await terminate_workflow_execution(served.server, terminate, CALL)
    cancel = RequestCancelWorkflowExecutionRequest(
        namespace="default", workflow_execution=there, first_execution_run_id="not-a-uuid"
    )
    await request_cancel_workflow_execution(served.server, cancel, CALL)
    assert [type(sent) for _, sent in served.engine.submitted] == [Terminate, RequestCancel]
