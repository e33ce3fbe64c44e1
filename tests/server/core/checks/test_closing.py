"""The commands that close a run."""

from __future__ import annotations

import pytest
from google.protobuf.duration_pb2 import Duration
from temporalio.api.command.v1 import (
    CompleteWorkflowExecutionCommandAttributes,
    ContinueAsNewWorkflowExecutionCommandAttributes,
    FailWorkflowExecutionCommandAttributes,
)
from temporalio.api.common.v1 import Memo, Payload, Payloads, RetryPolicy, SearchAttributes, WorkflowType
from temporalio.api.enums.v1 import IndexedValueType, TaskQueueKind, WorkflowTaskFailedCause
from temporalio.api.failure.v1 import Failure
from temporalio.api.taskqueue.v1 import TaskQueue

from perdure.server.core.checks import (
    BadCommand,
    RunFacts,
    check_complete_workflow,
    check_fail_workflow,
    normalize_continue_as_new,
    run_timeout_within,
    task_timeout_within,
)
from perdure.server.core.limits import Limits

SECOND = 1_000_000_000
LIMITS = Limits()
LARGE = bytes(LIMITS.blob_size_error + 1)
CUSTOM: dict[str, int] = {
    "Count": IndexedValueType.INDEXED_VALUE_TYPE_INT,
    "Note": IndexedValueType.INDEXED_VALUE_TYPE_TEXT,
}
ContinueAsNew = ContinueAsNewWorkflowExecutionCommandAttributes


def facts(execution: int = 0, run: int = 0, task: int = 10) -> RunFacts:
    return RunFacts(
        namespace="default",
        workflow_type="Order",
        task_queue="orders",
        execution_timeout=execution * SECOND,
        run_timeout=run * SECOND,
        task_timeout=task * SECOND,
        search_attribute_types=CUSTOM,
    )


def payload(data: bytes) -> Payload:
    return Payload(metadata={"encoding": b"json/plain"}, data=data)


def refusal(attributes: ContinueAsNew) -> BadCommand:
    with pytest.raises(BadCommand) as caught:
        normalize_continue_as_new(attributes, facts(), LIMITS)
    return caught.value


def test_too_large_a_result_ends_the_run_with_the_cause_of_an_activity() -> None:
    check_complete_workflow(CompleteWorkflowExecutionCommandAttributes(), facts(), LIMITS)
    large = CompleteWorkflowExecutionCommandAttributes(result=Payloads(payloads=[Payload(data=LARGE)]))
    with pytest.raises(BadCommand) as caught:
        check_complete_workflow(large, facts(), LIMITS)
    assert caught.value.terminate
    assert caught.value.message == (
        "BadScheduleActivityAttributes: CompleteWorkflowExecutionCommandAttributes.Result exceeds size limit."
    )


def test_a_failed_workflow_says_why() -> None:
    check_fail_workflow(FailWorkflowExecutionCommandAttributes(failure=Failure()), facts(), LIMITS)
    with pytest.raises(BadCommand) as caught:
        check_fail_workflow(FailWorkflowExecutionCommandAttributes(), facts(), LIMITS)
    assert caught.value.message == (
        "BadFailWorkflowExecutionAttributes: Failure is not set on FailWorkflowExecutionCommand."
    )
    assert not caught.value.terminate


def test_too_large_a_failure_ends_the_run() -> None:
    large = FailWorkflowExecutionCommandAttributes(failure=Failure(message="x" * len(LARGE)))
    with pytest.raises(BadCommand, match=r"Failure exceeds size limit\.$") as caught:
        check_fail_workflow(large, facts(), LIMITS)
    assert caught.value.terminate


# --- continue as new --------------------------------------------------------------------------------------------------


def test_an_empty_command_inherits_names_and_timeouts() -> None:
    normalized = normalize_continue_as_new(ContinueAsNew(), facts(execution=1000, run=500, task=30), LIMITS)
    assert normalized == ContinueAsNew(
        workflow_type=WorkflowType(name="Order"),
        task_queue=TaskQueue(name="orders", kind=TaskQueueKind.TASK_QUEUE_KIND_NORMAL),
        workflow_run_timeout=Duration(seconds=500),
        workflow_task_timeout=Duration(seconds=30),
    )


def test_what_the_command_sets_is_kept() -> None:
    command = ContinueAsNew(
        workflow_type=WorkflowType(name="Other"),
        task_queue=TaskQueue(name="elsewhere"),
        workflow_run_timeout=Duration(seconds=7),
        workflow_task_timeout=Duration(seconds=5),
        backoff_start_interval=Duration(seconds=3),
        retry_policy=RetryPolicy(maximum_attempts=5),
        cron_schedule="not checked",
    )
    normalized = normalize_continue_as_new(command, facts(), LIMITS)
    assert normalized.workflow_type.name == "Other"
    assert normalized.task_queue.name == "elsewhere"
    assert normalized.workflow_run_timeout.seconds == 7
    assert normalized.workflow_task_timeout.seconds == 5
    assert normalized.backoff_start_interval.seconds == 3
    assert normalized.retry_policy.maximum_attempts == 5
    assert normalized.retry_policy.initial_interval.seconds == 1
    assert normalized.cron_schedule == "not checked"
    assert not command.retry_policy.HasField("initial_interval")


def test_without_a_retry_policy_the_new_run_has_none() -> None:
    assert not normalize_continue_as_new(ContinueAsNew(), facts(), LIMITS).HasField("retry_policy")


def test_a_run_is_no_longer_than_its_execution_and_a_task_no_longer_than_its_run() -> None:
    command = ContinueAsNew(workflow_run_timeout=Duration(seconds=5000), workflow_task_timeout=Duration(seconds=500))
    normalized = normalize_continue_as_new(command, facts(execution=1000), LIMITS)
    assert normalized.workflow_run_timeout.seconds == 1000
    assert normalized.workflow_task_timeout.seconds == 120
    short = normalize_continue_as_new(ContinueAsNew(workflow_run_timeout=Duration(seconds=4)), facts(), LIMITS)
    assert short.workflow_task_timeout.seconds == 4


@pytest.mark.parametrize(("run", "execution", "held"), [(0, 0, 0), (5, 0, 5), (0, 7, 7), (5, 7, 5), (9, 7, 7)])
def test_the_run_timeout_that_holds(run: int, execution: int, held: int) -> None:
    assert run_timeout_within(run, execution) == held


@pytest.mark.parametrize(("task", "run", "held"), [(0, 0, 10), (300, 0, 120), (30, 0, 30), (30, 20, 20), (0, 5, 5)])
def test_the_task_timeout_that_holds(task: int, run: int, held: int) -> None:
    assert task_timeout_within(task * SECOND, run * SECOND, LIMITS) == held * SECOND


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (
            ContinueAsNew(task_queue=TaskQueue(name="/_sys/q")),
            "error validating ContinueAsNewWorkflowExecutionCommand TaskQueue: "
            "task queue name cannot start with reserved prefix /_sys/. WorkflowType=Order TaskQueue=/_sys/q",
        ),
        (
            ContinueAsNew(task_queue=TaskQueue(name="temporal-sys-per-ns-tq")),
            "error validating ContinueAsNewWorkflowExecutionCommand TaskQueue: cannot use internal per-namespace task "
            "queue:temporal-sys-per-ns-tq (in parent component task queue: orders). "
            "WorkflowType=Order TaskQueue=temporal-sys-per-ns-tq",
        ),
        (
            ContinueAsNew(workflow_type=WorkflowType(name="w" * 1001)),
            "WorkflowType on ContinueAsNewWorkflowExecutionCommand exceeds length limit. "
            f"WorkflowType={'w' * 1001} Length=1001 Limit=1000",
        ),
        (
            ContinueAsNew(workflow_type=WorkflowType(name="w\0")),
            "WorkflowType on ContinueAsNewWorkflowExecutionCommand contains a NUL character.",
        ),
        (
            ContinueAsNew(workflow_run_timeout=Duration(seconds=-1)),
            "Invalid WorkflowRunTimeout on ContinueAsNewWorkflowExecutionCommand: negative duration. "
            "WorkflowType=Order TaskQueue=orders",
        ),
        (
            ContinueAsNew(workflow_task_timeout=Duration(seconds=-1)),
            "Invalid WorkflowTaskTimeout on ContinueAsNewWorkflowExecutionCommand: negative duration. "
            "WorkflowType=Order TaskQueue=orders",
        ),
        (
            ContinueAsNew(backoff_start_interval=Duration(seconds=-1)),
            "Invalid BackoffStartInterval on ContinueAsNewWorkflowExecutionCommand: negative duration. "
            "WorkflowType=Order TaskQueue=orders",
        ),
        (
            ContinueAsNew(retry_policy=RetryPolicy(backoff_coefficient=0.1)),
            "invalid WorkflowRetryPolicy on ContinueAsNewWorkflowExecutionCommand: "
            "BackoffCoefficient cannot be less than 1 on retry policy.. WorkflowType=Order TaskQueue=orders",
        ),
        (
            ContinueAsNew(inherit_build_id=True, task_queue=TaskQueue(name="elsewhere")),
            "ContinueAsNew with UseCompatibleVersion cannot run on different task queue.",
        ),
    ],
)
def test_a_wrong_command_fails_the_task(command: ContinueAsNew, reason: str) -> None:
    bad = refusal(command)
    assert bad.cause == WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_BAD_CONTINUE_AS_NEW_ATTRIBUTES
    assert (bad.reason, bad.terminate) == (reason, False)


def test_wrong_search_attributes_have_a_cause_of_their_own() -> None:
    unknown = refusal(ContinueAsNew(search_attributes=SearchAttributes(indexed_fields={"Nope": payload(b"1")})))
    assert unknown.message == "BadSearchAttributes: Namespace default has no mapping defined for search attribute Nope"
    wrong = refusal(ContinueAsNew(search_attributes=SearchAttributes(indexed_fields={"Count": payload(b'"x"')})))
    assert wrong.message == (
        "BadSearchAttributes: invalid SearchAttributes on ContinueAsNewWorkflowExecutionCommand: "
        "invalid value for search attribute Count of type Int: x. WorkflowType=Order TaskQueue=orders"
    )


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (
            ContinueAsNew(input=Payloads(payloads=[Payload(data=LARGE)])),
            "ContinueAsNewWorkflowExecutionCommandAttributes. Input exceeds size limit.",
        ),
        (
            ContinueAsNew(memo=Memo(fields={"a": payload(LARGE)})),
            "ContinueAsNewWorkflowExecutionCommandAttributes. Memo exceeds size limit.",
        ),
        (
            ContinueAsNew(
                search_attributes=SearchAttributes(indexed_fields={"Note": payload(b'"' + b"v" * 3000 + b'"')})
            ),
            "search attribute Note value size 3002 exceeds size limit 2048",
        ),
    ],
)
def test_too_much_for_the_next_run_ends_this_one(command: ContinueAsNew, reason: str) -> None:
    bad = refusal(command)
    assert bad.cause == WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_BAD_CONTINUE_AS_NEW_ATTRIBUTES
    assert (bad.reason, bad.terminate) == (reason, True)


def test_the_next_run_starts_typed_and_without_what_is_taken_away() -> None:
    command = ContinueAsNew(
        memo=Memo(fields={"a": payload(b"1"), "b": Payload(metadata={"encoding": b"binary/null"})}),
        search_attributes=SearchAttributes(indexed_fields={"Count": payload(b"1"), "Note": payload(b"[]")}),
    )
    normalized = normalize_continue_as_new(command, facts(), LIMITS)
    assert list(normalized.memo.fields) == ["a"]
    assert list(normalized.search_attributes.indexed_fields) == ["Count"]
    assert normalized.search_attributes.indexed_fields["Count"].metadata["type"] == b"Int"


def test_nothing_but_removals_is_nothing() -> None:
    command = ContinueAsNew(
        memo=Memo(fields={"b": Payload()}), search_attributes=SearchAttributes(indexed_fields={"Note": payload(b"[]")})
    )
    normalized = normalize_continue_as_new(command, facts(), LIMITS)
    assert not normalized.HasField("memo")
    assert not normalized.HasField("search_attributes")
