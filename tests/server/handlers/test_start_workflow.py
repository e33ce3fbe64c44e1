"""StartWorkflowExecution: which requests are refused, in which words, and what the engine is given."""

from __future__ import annotations

import pytest
from google.protobuf.duration_pb2 import Duration
from temporalio.api.common.v1 import (
    Callback,
    Header,
    Link,
    Memo,
    Payload,
    Payloads,
    Priority,
    RetryPolicy,
    SearchAttributes,
    WorkflowType,
)
from temporalio.api.enums.v1 import EventType, TaskQueueKind, WorkflowIdConflictPolicy, WorkflowIdReusePolicy
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflow.v1 import OnConflictOptions, VersioningOverride
from temporalio.api.workflowservice.v1 import PollWorkflowTaskQueueResponse

from perdure.server.core.errors import FailedPrecondition, InvalidArgument, NotFound, Unimplemented
from perdure.server.core.inputs import Start
from perdure.server.core.replies import HistorySlice, StartReply, WorkflowTaskStarted
from perdure.server.handlers.call import DirectCall
from perdure.server.handlers.start_workflow import start_workflow_execution
from tests.server.handlers.serving import namespace_row, serve, start_request

LONG = "x" * 1001
CALL = DirectCall()
REUSE = WorkflowIdReusePolicy
CONFLICT = WorkflowIdConflictPolicy
MIB = 1024 * 1024


def json_payload(data: bytes) -> Payload:
    return Payload(metadata={"encoding": b"json/plain"}, data=data)


async def started(**changes: object) -> Start:
    served = await serve()
    served.engine.answer = lambda _: StartReply("run", True, 1)
    await start_workflow_execution(served.server, start_request(**changes), CALL)
    sent = served.engine.last_input
    assert isinstance(sent, Start)
    return sent


REFUSED: list[tuple[dict[str, object], str]] = [
    ({"workflow_id": ""}, "WorkflowId is not set on request."),
    ({"workflow_id": LONG}, "WorkflowId length exceeds limit."),
    ({"workflow_id": "é" * 501}, "WorkflowId length exceeds limit."),
    ({"workflow_id": "a\0b"}, "WorkflowId contains a NUL character."),
    ({"workflow_type": None}, "WorkflowType is not set on request."),
    ({"workflow_type": WorkflowType(name=LONG)}, "WorkflowType length exceeds limit."),
    ({"task_queue": None}, "taskQueue is not set"),
    ({"task_queue": TaskQueue()}, "missing task queue name"),
    ({"task_queue": TaskQueue(name=LONG)}, "taskQueue length exceeds limit"),
    ({"task_queue": TaskQueue(name="/_sys/q/1")}, "task queue name cannot start with reserved prefix /_sys/"),
    (
        {"task_queue": TaskQueue(name="temporal-sys-per-ns-tq")},
        "cannot use internal per-namespace task queue:temporal-sys-per-ns-tq",
    ),
    ({"request_id": LONG}, "RequestId length exceeds limit."),
    (
        {"workflow_execution_timeout": Duration(seconds=-1)},
        "An invalid WorkflowExecutionTimeoutSeconds is set on request. cause: negative duration",
    ),
    (
        {"workflow_run_timeout": Duration(seconds=-1)},
        "An invalid WorkflowRunTimeoutSeconds is set on request. cause: negative duration",
    ),
    (
        {"workflow_task_timeout": Duration(seconds=1, nanos=-1)},
        "An invalid WorkflowTaskTimeoutSeconds is set on request. "
        "cause: duration has seconds and nanos with different signs",
    ),
    (
        {"workflow_start_delay": Duration(seconds=-1)},
        "An invalid WorkflowStartDelaySeconds is set on request. cause: negative duration",
    ),
    (
        {"workflow_start_delay": Duration(seconds=1), "cron_schedule": "* * * * *"},
        "CronSchedule and WorkflowStartDelay may not be used together.",
    ),
    ({"cron_schedule": "every day"}, "invalid CronSchedule."),
    (
        {"retry_policy": RetryPolicy(backoff_coefficient=0.5)},
        "BackoffCoefficient cannot be less than 1 on retry policy.",
    ),
    (
        {
            "workflow_id_reuse_policy": REUSE.WORKFLOW_ID_REUSE_POLICY_TERMINATE_IF_RUNNING,
            "workflow_id_conflict_policy": CONFLICT.WORKFLOW_ID_CONFLICT_POLICY_FAIL,
        },
        "Invalid WorkflowIDReusePolicy: WORKFLOW_ID_REUSE_POLICY_TERMINATE_IF_RUNNING cannot be used together with a "
        "WorkflowIDConflictPolicy",
    ),
    (
        {
            "workflow_id_reuse_policy": REUSE.WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE,
            "workflow_id_conflict_policy": CONFLICT.WORKFLOW_ID_CONFLICT_POLICY_TERMINATE_EXISTING,
        },
        "Invalid WorkflowIDReusePolicy: WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE cannot be used together with "
        "WorkflowIdConflictPolicy WORKFLOW_ID_CONFLICT_POLICY_TERMINATE_EXISTING",
    ),
    (
        {"on_conflict_options": OnConflictOptions(attach_completion_callbacks=True)},
        "attaching request ID is required for attaching completion callbacks",
    ),
    (
        {"search_attributes": SearchAttributes(indexed_fields={"Nope": json_payload(b"1")})},
        "Namespace default has no mapping defined for search attribute Nope",
    ),
    (
        {"search_attributes": SearchAttributes(indexed_fields={"WorkflowId": json_payload(b'"x"')})},
        "WorkflowId attribute can't be set in SearchAttributes",
    ),
    (
        {"search_attributes": SearchAttributes(indexed_fields={"CustomInt": json_payload(b'"x"')})},
        "invalid value for search attribute CustomInt of type Int: x",
    ),
    ({"priority": Priority(priority_key=-1)}, "priority key can't be negative"),
    ({"links": [Link()]}, "unsupported link variant"),
    (
        {"links": [Link(batch_job=Link.BatchJob(job_id="j"))] * 11},
        "cannot attach more than 10 links per request, got 11",
    ),
    (
        {"links": [Link(workflow_event=Link.WorkflowEvent(namespace="n", workflow_id="w"))]},
        "workflow event link must not have an empty run ID field",
    ),
    ({"input": Payloads(payloads=[Payload(data=b"x" * (2 * MIB))])}, "Blob data size exceeds limit."),
    ({"memo": Memo(fields={"m": Payload(data=b"x" * (2 * MIB))})}, "Memo size exceeds limit."),
]


@pytest.mark.parametrize(
    ("changes", "message"), REFUSED, ids=lambda value: value[:40] if isinstance(value, str) else ""
)
async def test_a_faulty_request_is_refused_in_temporals_words(changes: dict[str, object], message: str) -> None:
    served = await serve()
    with pytest.raises(InvalidArgument) as refused:
        await start_workflow_execution(served.server, start_request(**changes), CALL)
    assert refused.value.message == message
    assert served.engine.submitted == []


@pytest.mark.parametrize(
    "changes",
    [{"completion_callbacks": [Callback()]}, {"versioning_override": VersioningOverride(pinned_version="1")}],
)
async def test_what_is_not_built_is_refused_rather_than_ignored(changes: dict[str, object]) -> None:
    served = await serve()
    with pytest.raises(Unimplemented, match=next(iter(changes))):
        await start_workflow_execution(served.server, start_request(**changes), CALL)


async def test_of_two_faults_the_one_temporal_names_first_is_named() -> None:
    served = await serve()
    request = start_request(workflow_type=None, task_queue=None, retry_policy=RetryPolicy(maximum_attempts=-1))
    with pytest.raises(InvalidArgument, match="MaximumAttempts"):
        await start_workflow_execution(served.server, request, CALL)


async def test_a_namespace_must_be_named_known_and_registered() -> None:
    served = await serve(namespace_row("old", state=2))
    with pytest.raises(InvalidArgument, match="Namespace is empty"):
        await start_workflow_execution(served.server, start_request(namespace=""), CALL)
    with pytest.raises(NotFound, match="Namespace nope is not found"):
        await start_workflow_execution(served.server, start_request(namespace="nope"), CALL)
    with pytest.raises(FailedPrecondition, match=r"invalid state: Deprecated\. Must be Registered\."):
        await start_workflow_execution(served.server, start_request(namespace="old"), CALL)


async def test_the_engine_gets_the_namespaces_id_and_no_run_id() -> None:
    served = await serve()
    served.engine.answer = lambda _: StartReply("run", True, 1)
    await start_workflow_execution(served.server, start_request(), CALL)
    assert served.engine.last_key == ("default-id", "w")
    assert served.engine.last_input.run_id == ""


async def test_defaults_are_filled_in() -> None:
    request = (await started(request_id="")).request
    assert len(request.request_id) == 36
    assert request.workflow_id_reuse_policy == REUSE.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE
    assert request.workflow_id_conflict_policy == CONFLICT.WORKFLOW_ID_CONFLICT_POLICY_FAIL
    assert request.workflow_task_timeout == Duration(seconds=10)
    assert request.task_queue.kind == TaskQueueKind.TASK_QUEUE_KIND_NORMAL
    assert not request.HasField("retry_policy")


async def test_terminate_if_running_becomes_the_conflict_policy() -> None:
    request = (await started(workflow_id_reuse_policy=REUSE.WORKFLOW_ID_REUSE_POLICY_TERMINATE_IF_RUNNING)).request
    assert request.workflow_id_reuse_policy == REUSE.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE
    assert request.workflow_id_conflict_policy == CONFLICT.WORKFLOW_ID_CONFLICT_POLICY_TERMINATE_EXISTING


@pytest.mark.parametrize(
    ("execution", "run", "task", "run_then", "task_then"),
    [
        (0, 0, 0, 0, 10),
        (60, 0, 0, 60, 10),
        (60, 90, 0, 60, 10),
        (60, 30, 0, 30, 10),
        (0, 5, 0, 5, 5),
        (0, 0, 500, 0, 120),
        (0, 0, 3, 0, 3),
    ],
)
async def test_timeouts_bound_each_other(execution: int, run: int, task: int, run_then: int, task_then: int) -> None:
    request = (
        await started(
            workflow_execution_timeout=Duration(seconds=execution) if execution else None,
            workflow_run_timeout=Duration(seconds=run) if run else None,
            workflow_task_timeout=Duration(seconds=task) if task else None,
        )
    ).request
    assert request.workflow_run_timeout == Duration(seconds=run_then)
    assert request.workflow_task_timeout == Duration(seconds=task_then)


async def test_a_retry_policy_is_filled_in() -> None:
    policy = (await started(retry_policy=RetryPolicy(maximum_attempts=3))).request.retry_policy
    assert policy.initial_interval == Duration(seconds=1)
    assert policy.backoff_coefficient == 2
    assert policy.maximum_interval == Duration(seconds=100)


async def test_search_attributes_carry_their_type() -> None:
    attributes = SearchAttributes(indexed_fields={"CustomInt": json_payload(b"7")})
    request = (await started(search_attributes=attributes)).request
    assert request.search_attributes.indexed_fields["CustomInt"].metadata["type"] == b"Int"


async def test_what_is_only_passed_on_stays_as_it_is() -> None:
    header = Header(fields={"h": Payload(data=b"1")})
    assert (await started(header=header)).request.header == header


async def test_the_reply_links_to_the_start_of_the_run() -> None:
    served = await serve()
    served.engine.answer = lambda _: StartReply("run-1", True, 1)
    response = await start_workflow_execution(served.server, start_request(), CALL)
    assert (response.run_id, response.started, response.status) == ("run-1", True, 1)
    link = response.link.workflow_event
    assert (link.namespace, link.workflow_id, link.run_id, link.event_ref.event_id) == ("default", "w", "run-1", 1)
    assert not response.HasField("eager_workflow_task")


async def test_the_reply_links_to_the_request_that_was_attached_to_an_open_run() -> None:
    served = await serve()
    served.engine.answer = lambda _: StartReply("run-1", False, 1)
    options = OnConflictOptions(attach_request_id=True)
    request = start_request(request_id="attached", on_conflict_options=options)
    response = await start_workflow_execution(served.server, request, CALL)
    link = response.link.workflow_event
    assert not link.HasField("event_ref")
    assert link.request_id_ref.request_id == "attached"
    assert link.request_id_ref.event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_OPTIONS_UPDATED


async def test_an_eager_first_task_comes_with_its_history() -> None:
    served = await serve()
    data = PollWorkflowTaskQueueResponse(attempt=1).SerializeToString()
    task = WorkflowTaskStarted(b"token", data, HistorySlice("run", 1, 3, []))
    served.engine.answer = lambda _: StartReply("run", True, 1, task)
    response = await start_workflow_execution(served.server, start_request(request_eager_execution=True), CALL)
    assert response.eager_workflow_task.attempt == 1
    assert served.engine.calls == [("with_history", task)]
