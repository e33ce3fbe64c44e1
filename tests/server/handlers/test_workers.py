"""What workers call: polls, answers by token and by id, and what becomes of payloads that are too large."""

from __future__ import annotations

import asyncio

import pytest
from temporalio.api.common.v1 import Payload, Payloads, WorkerVersionCapabilities, WorkflowExecution
from temporalio.api.deployment.v1 import WorkerDeploymentOptions
from temporalio.api.enums.v1 import QueryResultType, WorkerVersioningMode
from temporalio.api.failure.v1 import ApplicationFailureInfo, Failure
from temporalio.api.query.v1 import WorkflowQuery
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import (
    GetWorkflowExecutionHistoryRequest,
    PollActivityTaskQueueRequest,
    PollNexusTaskQueueRequest,
    PollWorkflowTaskQueueRequest,
    QueryWorkflowRequest,
    RecordActivityTaskHeartbeatByIdRequest,
    RecordActivityTaskHeartbeatRequest,
    RespondActivityTaskCanceledByIdRequest,
    RespondActivityTaskCanceledRequest,
    RespondActivityTaskCompletedByIdRequest,
    RespondActivityTaskCompletedRequest,
    RespondActivityTaskFailedByIdRequest,
    RespondActivityTaskFailedRequest,
    RespondQueryTaskCompletedRequest,
    RespondWorkflowTaskCompletedRequest,
    RespondWorkflowTaskFailedRequest,
    ShutdownWorkerRequest,
)

from perdure.server.core.errors import InvalidArgument, NotFound, PermissionDenied
from perdure.server.core.inputs import (
    AnswerQuery,
    CancelActivity,
    CompleteActivity,
    FailActivity,
    FailWorkflowTask,
    HeartbeatActivity,
)
from perdure.server.core.replies import HeartbeatReply
from perdure.server.core.tokens import ActivityToken, QueryToken, WorkflowTaskToken, encode
from perdure.server.engine.client_software import ClientSoftware
from perdure.server.handlers import activities, activities_by_id, history, nexus_tasks, queries, workers, workflow_tasks
from perdure.server.handlers.call import DirectCall
from perdure.server.handlers.registry import HANDLERS, WORKFLOW_SERVICE
from tests.server.handlers.serving import serve
from tests.virtual_time import in_virtual_time

CALL = DirectCall()
RUN_ID = "01a1fdb3-d312-740f-80a9-38bd920672ec"
SMALL = Payloads(payloads=[Payload(data=b"1")])
TOO_LARGE = Payloads(payloads=[Payload(data=b"x" * (2 * 1024 * 1024))])
WORKFLOW_TASK = WorkflowTaskToken("default-id", "w", RUN_ID, 2, 3, 1, "nonce")
ACTIVITY = ActivityToken("default-id", "w", RUN_ID, 5, "a", 1, "nonce")
BY_ID = ActivityToken("default-id", "w", RUN_ID, 0, "a", 0, "")
QUERY = QueryToken("default-id", "w", RUN_ID, "query-1")
FAILURE = Failure(message="no", application_failure_info=ApplicationFailureInfo(type="E"))

BY_TOKEN = {
    "RespondWorkflowTaskCompleted": (RespondWorkflowTaskCompletedRequest, encode(WORKFLOW_TASK)),
    "RespondWorkflowTaskFailed": (RespondWorkflowTaskFailedRequest, encode(WORKFLOW_TASK)),
    "RespondQueryTaskCompleted": (RespondQueryTaskCompletedRequest, encode(QUERY)),
    "RecordActivityTaskHeartbeat": (RecordActivityTaskHeartbeatRequest, encode(ACTIVITY)),
    "RespondActivityTaskCompleted": (RespondActivityTaskCompletedRequest, encode(ACTIVITY)),
    "RespondActivityTaskFailed": (RespondActivityTaskFailedRequest, encode(ACTIVITY)),
    "RespondActivityTaskCanceled": (RespondActivityTaskCanceledRequest, encode(ACTIVITY)),
}


# --- task tokens ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BY_TOKEN)
@pytest.mark.parametrize("token", [b"", b"forged"])
async def test_an_unknown_namespace_is_told_before_anything_about_the_token(name: str, token: bytes) -> None:
    served = await serve()
    request_class, _ = BY_TOKEN[name]
    request = request_class(namespace="nowhere", task_token=token)
    with pytest.raises(NotFound, match=r"Namespace nowhere is not found\."):
        await HANDLERS[WORKFLOW_SERVICE][name](served.server, request, CALL)


@pytest.mark.parametrize("name", BY_TOKEN)
async def test_a_token_must_be_set_readable_and_of_the_namespace(name: str) -> None:
    served = await serve()
    handler = HANDLERS[WORKFLOW_SERVICE][name]
    request_class, token = BY_TOKEN[name]
    with pytest.raises(InvalidArgument, match=r"Task token not set on request\."):
        await handler(served.server, request_class(namespace="default"), CALL)
    for forged in (b"\x99xxx", encode(QUERY) if name != "RespondQueryTaskCompleted" else encode(ACTIVITY)):
        with pytest.raises(InvalidArgument, match="deserializing task token"):
            await handler(served.server, request_class(namespace="default", task_token=forged), CALL)
    with pytest.raises(InvalidArgument, match="token from a different namespace"):
        await handler(served.server, request_class(namespace="other", task_token=token), CALL)
    with pytest.raises(NotFound, match="Namespace nope is not found"):
        await handler(served.server, request_class(namespace="nope", task_token=token), CALL)
    assert served.engine.submitted == []
    assert served.engine.calls == []


async def test_a_request_may_leave_the_namespace_to_its_token() -> None:
    served = await serve()
    request = RespondActivityTaskCompletedRequest(task_token=encode(ACTIVITY))
    await activities.respond_activity_task_completed(served.server, request, CALL)
    assert served.engine.last_key == ("default-id", "w")


async def test_a_token_of_a_namespace_that_is_gone_is_not_found() -> None:
    served = await serve()
    token = encode(ActivityToken("gone-id", "w", RUN_ID, 5, "a", 1, "nonce"))
    request = RespondActivityTaskCompletedRequest(task_token=token)
    with pytest.raises(NotFound, match="Namespace gone-id is not found"):
        await activities.respond_activity_task_completed(served.server, request, CALL)


# --- polls ------------------------------------------------------------------------------------------------------------


async def test_a_nexus_poll_is_served_like_any_other() -> None:
    served = await serve()
    request = PollNexusTaskQueueRequest(namespace="default", task_queue=TaskQueue(name="q"), identity="w")
    reply = await nexus_tasks.poll_nexus_task_queue(served.server, request, CALL)
    assert not reply.task_token
    assert served.engine.calls == [("default-id", request)]
    with pytest.raises(InvalidArgument, match="taskQueue is not set"):
        await nexus_tasks.poll_nexus_task_queue(served.server, PollNexusTaskQueueRequest(namespace="default"), CALL)


@in_virtual_time
async def test_polls_end_before_their_caller_gives_up() -> None:
    served = await serve()
    now = asyncio.get_running_loop().time()
    request = PollWorkflowTaskQueueRequest(namespace="default", task_queue=TaskQueue(name="q"))
    for deadline in (None, now + 70, now + 30, now + 5):
        await workflow_tasks.poll_workflow_task_queue(served.server, request, DirectCall(deadline))
    assert served.engine.deadlines == pytest.approx([now + 60, now + 60, now + 29, now + 4.5])


@in_virtual_time
async def test_a_history_poll_waits_for_twenty_seconds() -> None:
    served = await serve()
    now = asyncio.get_running_loop().time()
    request = GetWorkflowExecutionHistoryRequest(namespace="default", execution=WorkflowExecution(workflow_id="w"))
    for deadline in (None, now + 70, now + 5):
        await history.get_workflow_execution_history(served.server, request, DirectCall(deadline))
    assert served.engine.deadlines == pytest.approx([now + 20, now + 20, now + 4.5])


@pytest.mark.parametrize(("asked", "granted"), [(0, 256), (-1, 256), (10, 10), (256, 256), (1000, 256)])
async def test_a_history_page_has_a_bounded_size(asked: int, granted: int) -> None:
    served = await serve()
    request = GetWorkflowExecutionHistoryRequest(
        namespace="default", execution=WorkflowExecution(workflow_id="w"), maximum_page_size=asked
    )
    await history.get_workflow_execution_history(served.server, request, CALL)
    assert request.maximum_page_size == granted


async def test_a_poll_names_a_queue() -> None:
    served = await serve()
    with pytest.raises(InvalidArgument, match="taskQueue is not set"):
        await activities.poll_activity_task_queue(
            served.server, PollActivityTaskQueueRequest(namespace="default"), CALL
        )
    with pytest.raises(InvalidArgument, match="Identity length exceeds limit"):
        await activities.poll_activity_task_queue(
            served.server,
            PollActivityTaskQueueRequest(namespace="default", task_queue=TaskQueue(name="q"), identity="i" * 1001),
            CALL,
        )


@pytest.mark.parametrize(
    "version",
    [
        PollWorkflowTaskQueueRequest(
            worker_version_capabilities=WorkerVersionCapabilities(build_id="b", use_versioning=True)
        ),
        PollWorkflowTaskQueueRequest(
            deployment_options=WorkerDeploymentOptions(
                deployment_name="d",
                build_id="b",
                worker_versioning_mode=WorkerVersioningMode.WORKER_VERSIONING_MODE_VERSIONED,
            )
        ),
    ],
    ids=["build id", "deployment"],
)
async def test_a_worker_that_wants_versioning_is_refused(version: PollWorkflowTaskQueueRequest) -> None:
    served = await serve()
    version.namespace, version.task_queue.name = "default", "q"
    with pytest.raises(PermissionDenied, match="not implemented"):
        await workflow_tasks.poll_workflow_task_queue(served.server, version, CALL)


async def test_a_worker_may_name_its_build_id() -> None:
    served = await serve()
    request = PollWorkflowTaskQueueRequest(
        namespace="default",
        task_queue=TaskQueue(name="q"),
        worker_version_capabilities=WorkerVersionCapabilities(build_id="b" * 255),
    )
    await workflow_tasks.poll_workflow_task_queue(served.server, request, CALL)
    assert served.engine.calls == [("default-id", request)]
    request.worker_version_capabilities.build_id += "b"
    with pytest.raises(InvalidArgument, match="Build ID exceeds"):
        await workflow_tasks.poll_workflow_task_queue(served.server, request, CALL)


async def test_a_stopping_worker_is_passed_on() -> None:
    served = await serve()
    request = ShutdownWorkerRequest(namespace="default", sticky_task_queue="s", worker_instance_key="k")
    await workers.shutdown_worker(served.server, request, CALL)
    assert served.engine.calls == [("default-id", request)]


# --- workflow tasks and queries ---------------------------------------------------------------------------------------


async def test_a_completed_workflow_task_goes_to_the_engine() -> None:
    served = await serve()
    request = RespondWorkflowTaskCompletedRequest(namespace="default", task_token=encode(WORKFLOW_TASK))
    assert await workflow_tasks.respond_workflow_task_completed(served.server, request, CALL) == b""
    assert served.engine.calls == [("complete_workflow_task", WORKFLOW_TASK)]


async def test_a_failed_workflow_task_is_submitted_with_a_bounded_failure() -> None:
    served = await serve()
    request = RespondWorkflowTaskFailedRequest(namespace="default", task_token=encode(WORKFLOW_TASK))
    request.failure.CopyFrom(FAILURE)
    request.failure.stack_trace = "x" * (2 * 1024 * 1024)
    await workflow_tasks.respond_workflow_task_failed(served.server, request, CALL)
    sent = served.engine.last_input
    assert isinstance(sent, FailWorkflowTask)
    assert sent.token == WORKFLOW_TASK
    assert sent.request.failure.message == "Failure exceeds size limit."
    assert sent.request.failure.cause.message == "no"
    assert sent.request.failure.ByteSize() < 600_000


@pytest.mark.parametrize(
    ("query", "message"),
    [(None, "WorkflowQuery is not set on request."), (WorkflowQuery(), "QueryType is not set on request.")],
)
async def test_a_query_has_a_type(query: WorkflowQuery | None, message: str) -> None:
    served = await serve()
    request = QueryWorkflowRequest(namespace="default", execution=WorkflowExecution(workflow_id="w"), query=query)
    with pytest.raises(InvalidArgument) as refused:
        await queries.query_workflow(served.server, request, CALL)
    assert refused.value.message == message


async def test_a_query_is_passed_on_with_its_defaults() -> None:
    served = await serve()
    request = QueryWorkflowRequest(
        namespace="default", execution=WorkflowExecution(workflow_id="w"), query=WorkflowQuery(query_type="q")
    )
    await queries.query_workflow(served.server, request, CALL)
    assert served.engine.calls == [("default-id", request)]
    assert request.query_reject_condition == 1


async def _answer_query(request: RespondQueryTaskCompletedRequest) -> AnswerQuery:
    """Have a worker answer the query, and return what the engine is given."""
    served = await serve()
    request.namespace, request.task_token = "default", encode(QUERY)
    await queries.respond_query_task_completed(served.server, request, CALL)
    sent = served.engine.last_input
    assert isinstance(sent, AnswerQuery)
    return sent


async def test_an_answer_to_a_query_becomes_its_input() -> None:
    sent = await _answer_query(
        RespondQueryTaskCompletedRequest(completed_type=QueryResultType.QUERY_RESULT_TYPE_ANSWERED, query_result=SMALL)
    )
    assert sent.query_id == "query-1"
    assert sent.result.answer == SMALL
    assert not sent.result.HasField("failure")
    assert sent.result.result_type == QueryResultType.QUERY_RESULT_TYPE_ANSWERED


async def test_a_failed_query_keeps_its_failure() -> None:
    sent = await _answer_query(
        RespondQueryTaskCompletedRequest(
            completed_type=QueryResultType.QUERY_RESULT_TYPE_FAILED, error_message="unknown query", failure=FAILURE
        )
    )
    assert (sent.result.error_message, sent.result.failure) == ("unknown query", FAILURE)


async def test_an_answer_that_is_too_large_is_a_failed_query() -> None:
    sent = await _answer_query(
        RespondQueryTaskCompletedRequest(
            completed_type=QueryResultType.QUERY_RESULT_TYPE_ANSWERED, query_result=TOO_LARGE
        )
    )
    assert sent.result.result_type == QueryResultType.QUERY_RESULT_TYPE_FAILED
    assert sent.result.error_message == "Blob data size exceeds limit."


# --- activities -------------------------------------------------------------------------------------------------------


async def test_answers_by_token_become_their_inputs() -> None:
    served = await serve()
    token = encode(ACTIVITY)
    done = RespondActivityTaskCompletedRequest(namespace="default", task_token=token, result=SMALL)
    failed = RespondActivityTaskFailedRequest(namespace="default", task_token=token, failure=FAILURE)
    canceled = RespondActivityTaskCanceledRequest(namespace="default", task_token=token, details=SMALL)
    await activities.respond_activity_task_completed(served.server, done, CALL)
    await activities.respond_activity_task_failed(served.server, failed, CALL)
    await activities.respond_activity_task_canceled(served.server, canceled, CALL)
    assert [sent for _, sent in served.engine.submitted] == [
        CompleteActivity(RUN_ID, ACTIVITY, done),
        FailActivity(RUN_ID, ACTIVITY, failed),
        CancelActivity(RUN_ID, ACTIVITY, canceled),
    ]


async def test_answers_by_id_mean_the_present_attempt() -> None:
    served = await serve()
    served.engine.answer = lambda sent: HeartbeatReply(True) if isinstance(sent, HeartbeatActivity) else None
    beat = RecordActivityTaskHeartbeatByIdRequest(details=SMALL)
    done = RespondActivityTaskCompletedByIdRequest(result=SMALL)
    failed = RespondActivityTaskFailedByIdRequest(failure=FAILURE, last_heartbeat_details=SMALL)
    canceled = RespondActivityTaskCanceledByIdRequest(details=SMALL)
    for request in (beat, done, failed, canceled):
        request.namespace, request.workflow_id, request.run_id = "default", "w", RUN_ID
        request.activity_id, request.identity = "a", "me"
    told = await activities_by_id.record_activity_task_heartbeat_by_id(served.server, beat, CALL)
    await activities_by_id.respond_activity_task_completed_by_id(served.server, done, CALL)
    await activities_by_id.respond_activity_task_failed_by_id(served.server, failed, CALL)
    await activities_by_id.respond_activity_task_canceled_by_id(served.server, canceled, CALL)
    assert told.cancel_requested
    assert [sent for _, sent in served.engine.submitted] == [
        HeartbeatActivity(RUN_ID, BY_ID, SMALL.SerializeToString(), "me"),
        CompleteActivity(RUN_ID, BY_ID, RespondActivityTaskCompletedRequest(identity="me", result=SMALL)),
        FailActivity(
            RUN_ID,
            BY_ID,
            RespondActivityTaskFailedRequest(identity="me", failure=FAILURE, last_heartbeat_details=SMALL),
        ),
        CancelActivity(RUN_ID, BY_ID, RespondActivityTaskCanceledRequest(identity="me", details=SMALL)),
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"activity_id": ""}, "ActivityId is not set on request."),
        ({"workflow_id": ""}, "WorkflowId is not set on request."),
        ({"run_id": "no"}, "Invalid RunId."),
        ({"activity_id": "a" * 1001}, "ActivityId length exceeds limit."),
        ({"identity": "i" * 1001}, "Identity length exceeds limit."),
    ],
)
async def test_a_faulty_answer_by_id_is_refused(changes: dict[str, str], message: str) -> None:
    served = await serve()
    ids = {"namespace": "default", "workflow_id": "w", "activity_id": "a", **changes}
    request = RespondActivityTaskCompletedByIdRequest(**ids)  # type: ignore[arg-type]  # all of them are text
    with pytest.raises(InvalidArgument) as refused:
        await activities_by_id.respond_activity_task_completed_by_id(served.server, request, CALL)
    assert refused.value.message == message


async def test_an_activity_fails_with_an_application_failure() -> None:
    served = await serve()
    request = RespondActivityTaskFailedRequest(
        namespace="default", task_token=encode(ACTIVITY), failure=Failure(message="no")
    )
    with pytest.raises(InvalidArgument, match="Failure must have ApplicationFailureInfo"):
        await activities.respond_activity_task_failed(served.server, request, CALL)


async def test_a_heartbeat_passes_the_flags_on() -> None:
    served = await serve()
    served.engine.answer = lambda _: HeartbeatReply(cancel_requested=False, paused=True, reset=True)
    request = RecordActivityTaskHeartbeatRequest(namespace="default", task_token=encode(ACTIVITY))
    told = await activities.record_activity_task_heartbeat(served.server, request, CALL)
    assert (told.cancel_requested, told.activity_paused, told.activity_reset) == (False, True, True)
    sent = served.engine.last_input
    assert isinstance(sent, HeartbeatActivity)
    assert sent.details == b""


async def test_a_result_that_is_too_large_fails_the_activity_for_good() -> None:
    served = await serve()
    token = encode(ACTIVITY)
    await activities.respond_activity_task_completed(
        served.server, RespondActivityTaskCompletedRequest(task_token=token, result=TOO_LARGE), CALL
    )
    await activities.respond_activity_task_canceled(
        served.server, RespondActivityTaskCanceledRequest(task_token=token, details=TOO_LARGE), CALL
    )
    told = await activities.record_activity_task_heartbeat(
        served.server, RecordActivityTaskHeartbeatRequest(task_token=token, details=TOO_LARGE), CALL
    )
    assert told.cancel_requested
    failures = [sent.request.failure for _, sent in served.engine.submitted if isinstance(sent, FailActivity)]
    assert [failure.message for failure in failures] == [
        "Complete result exceeds size limit.",
        "Cancel details exceed size limit.",
        "Heartbeat details exceed size limit.",
    ]
    assert all(failure.server_failure_info.non_retryable for failure in failures)


async def test_a_failure_that_is_too_large_is_cut_and_complained_about() -> None:
    served = await serve()
    request = RespondActivityTaskFailedRequest(task_token=encode(ACTIVITY), failure=FAILURE)
    request.failure.stack_trace = "x" * (2 * 1024 * 1024)
    request.last_heartbeat_details.CopyFrom(TOO_LARGE)
    told = await activities.respond_activity_task_failed(served.server, request, CALL)
    sent = served.engine.last_input
    assert isinstance(sent, FailActivity)
    assert not sent.request.HasField("last_heartbeat_details")
    assert sent.request.failure.message == "Failure exceeds size limit."
    assert sent.request.failure.cause.application_failure_info.type == "E"
    assert [failure.message for failure in told.failures] == [
        "Heartbeat details exceed size limit.",
        "Failure exceeds size limit.",
    ]


@pytest.mark.parametrize(
    ("client_name", "for_worker"),
    [("temporal-python", True), ("", True), ("temporal-cli", False), ("temporal-ui", False)],
)
async def test_people_are_not_shown_the_events_of_an_undurable_task(client_name: str, for_worker: bool) -> None:
    served = await serve()
    request = GetWorkflowExecutionHistoryRequest(namespace="default", execution=WorkflowExecution(workflow_id="w"))
    await history.get_workflow_execution_history(served.server, request, DirectCall(None, ClientSoftware(client_name)))
    assert served.engine.read_for_worker is for_worker
