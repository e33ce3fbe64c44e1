"""Commands as a worker sends them: complete and legal, of which a test names what it is about."""

from __future__ import annotations

from temporalio.api.command.v1 import (
    CancelTimerCommandAttributes,
    CancelWorkflowExecutionCommandAttributes,
    Command,
    CompleteWorkflowExecutionCommandAttributes,
    ContinueAsNewWorkflowExecutionCommandAttributes,
    FailWorkflowExecutionCommandAttributes,
    ModifyWorkflowPropertiesCommandAttributes,
    RecordMarkerCommandAttributes,
    RequestCancelActivityTaskCommandAttributes,
    RequestCancelExternalWorkflowExecutionCommandAttributes,
    ScheduleActivityTaskCommandAttributes,
    SignalExternalWorkflowExecutionCommandAttributes,
    StartChildWorkflowExecutionCommandAttributes,
    StartTimerCommandAttributes,
    UpsertWorkflowSearchAttributesCommandAttributes,
)
from temporalio.api.common.v1 import (
    ActivityType,
    Header,
    Memo,
    Payload,
    Payloads,
    RetryPolicy,
    SearchAttributes,
    WorkflowExecution,
    WorkflowType,
)
from temporalio.api.enums.v1 import CommandType, ContinueAsNewInitiator
from temporalio.api.failure.v1 import ApplicationFailureInfo, Failure
from temporalio.api.taskqueue.v1 import TaskQueue

from perdure.server.core.durations import duration_of

SECOND = 1_000_000_000
_Type = CommandType


def nanos(seconds: float) -> int:
    return int(seconds * SECOND)


def payload(text: str) -> Payload:
    return Payload(metadata={"encoding": b"json/plain"}, data=f'"{text}"'.encode())


def payloads(text: str) -> Payloads:
    return Payloads(payloads=[payload(text)])


def application_failure(
    message: str = "boom", *, error_type: str = "Boom", non_retryable: bool = False, delay: float | None = None
) -> Failure:
    info = ApplicationFailureInfo(type=error_type, non_retryable=non_retryable)
    if delay is not None:
        info.next_retry_delay.CopyFrom(duration_of(nanos(delay)))
    return Failure(message=message, application_failure_info=info)


def retry_policy(
    *, initial: float = 1, coefficient: float = 2, maximum: float = 100, attempts: int = 0, fatal: tuple[str, ...] = ()
) -> RetryPolicy:
    return RetryPolicy(
        initial_interval=duration_of(nanos(initial)),
        backoff_coefficient=coefficient,
        maximum_interval=duration_of(nanos(maximum)),
        maximum_attempts=attempts,
        non_retryable_error_types=fatal,
    )


def start_timer(timer_id: str = "t", seconds: float = 10) -> Command:
    attributes = StartTimerCommandAttributes(timer_id=timer_id, start_to_fire_timeout=duration_of(nanos(seconds)))
    return Command(command_type=_Type.COMMAND_TYPE_START_TIMER, start_timer_command_attributes=attributes)


def cancel_timer(timer_id: str = "t") -> Command:
    attributes = CancelTimerCommandAttributes(timer_id=timer_id)
    return Command(command_type=_Type.COMMAND_TYPE_CANCEL_TIMER, cancel_timer_command_attributes=attributes)


def schedule_activity(
    activity_id: str = "a",
    *,
    to_close: float = 0,
    to_start: float = 0,
    start_to_close: float = 60,
    heartbeat: float = 0,
    retry: RetryPolicy | None = None,
    eager: bool = False,
) -> Command:
    attributes = ScheduleActivityTaskCommandAttributes(
        activity_id=activity_id,
        activity_type=ActivityType(name="Pay"),
        task_queue=TaskQueue(name="activities"),
        input=payloads("order"),
        schedule_to_close_timeout=duration_of(nanos(to_close)),
        schedule_to_start_timeout=duration_of(nanos(to_start)),
        start_to_close_timeout=duration_of(nanos(start_to_close)),
        heartbeat_timeout=duration_of(nanos(heartbeat)),
        retry_policy=retry,
        request_eager_execution=eager,
    )
    return Command(
        command_type=_Type.COMMAND_TYPE_SCHEDULE_ACTIVITY_TASK, schedule_activity_task_command_attributes=attributes
    )


def cancel_activity(scheduled_event_id: int) -> Command:
    attributes = RequestCancelActivityTaskCommandAttributes(scheduled_event_id=scheduled_event_id)
    return Command(
        command_type=_Type.COMMAND_TYPE_REQUEST_CANCEL_ACTIVITY_TASK,
        request_cancel_activity_task_command_attributes=attributes,
    )


def start_child(workflow_id: str = "child", **fields: object) -> Command:
    attributes = StartChildWorkflowExecutionCommandAttributes(
        workflow_id=workflow_id,
        workflow_type=WorkflowType(name="Shipment"),
        input=payloads("parcel"),
        header=Header(fields={"trace": payload("7")}),
        **fields,  # type: ignore[arg-type]  # fields are those of the message
    )
    return Command(
        command_type=_Type.COMMAND_TYPE_START_CHILD_WORKFLOW_EXECUTION,
        start_child_workflow_execution_command_attributes=attributes,
    )


def signal_external(
    workflow_id: str = "other",
    *,
    run_id: str = "",
    name: str = "ping",
    namespace: str = "",
    child_only: bool = False,
    size: int = 0,
) -> Command:
    attributes = SignalExternalWorkflowExecutionCommandAttributes(
        namespace=namespace,
        execution=WorkflowExecution(workflow_id=workflow_id, run_id=run_id),
        signal_name=name,
        input=payloads("x" * size or "ball"),
        header=Header(fields={"trace": payload("7")}),
        control="control",
        child_workflow_only=child_only,
    )
    return Command(
        command_type=_Type.COMMAND_TYPE_SIGNAL_EXTERNAL_WORKFLOW_EXECUTION,
        signal_external_workflow_execution_command_attributes=attributes,
    )


def cancel_external(
    workflow_id: str = "other", *, run_id: str = "", namespace: str = "", child_only: bool = False
) -> Command:
    attributes = RequestCancelExternalWorkflowExecutionCommandAttributes(
        namespace=namespace,
        workflow_id=workflow_id,
        run_id=run_id,
        reason="not needed any more",
        control="control",
        child_workflow_only=child_only,
    )
    return Command(
        command_type=_Type.COMMAND_TYPE_REQUEST_CANCEL_EXTERNAL_WORKFLOW_EXECUTION,
        request_cancel_external_workflow_execution_command_attributes=attributes,
    )


def complete_workflow(result: str | None = "done") -> Command:
    attributes = CompleteWorkflowExecutionCommandAttributes(result=None if result is None else payloads(result))
    return Command(
        command_type=_Type.COMMAND_TYPE_COMPLETE_WORKFLOW_EXECUTION,
        complete_workflow_execution_command_attributes=attributes,
    )


def fail_workflow(failure: Failure | None = None) -> Command:
    attributes = FailWorkflowExecutionCommandAttributes(failure=failure or application_failure())
    return Command(
        command_type=_Type.COMMAND_TYPE_FAIL_WORKFLOW_EXECUTION, fail_workflow_execution_command_attributes=attributes
    )


def cancel_workflow(details: str = "as you wish") -> Command:
    attributes = CancelWorkflowExecutionCommandAttributes(details=payloads(details))
    return Command(
        command_type=_Type.COMMAND_TYPE_CANCEL_WORKFLOW_EXECUTION,
        cancel_workflow_execution_command_attributes=attributes,
    )


def continue_as_new(
    *,
    backoff: float = 0,
    run_timeout: float = 0,
    memo: Memo | None = None,
    retry: RetryPolicy | None = None,
    cron: str = "",
    initiator: ContinueAsNewInitiator.ValueType = ContinueAsNewInitiator.CONTINUE_AS_NEW_INITIATOR_UNSPECIFIED,
) -> Command:
    attributes = ContinueAsNewWorkflowExecutionCommandAttributes(
        input=payloads("next"),
        backoff_start_interval=duration_of(nanos(backoff)),
        workflow_run_timeout=duration_of(nanos(run_timeout)),
        memo=memo,
        retry_policy=retry,
        cron_schedule=cron,
        initiator=initiator,
    )
    return Command(
        command_type=_Type.COMMAND_TYPE_CONTINUE_AS_NEW_WORKFLOW_EXECUTION,
        continue_as_new_workflow_execution_command_attributes=attributes,
    )


def record_marker(name: str = "Version") -> Command:
    attributes = RecordMarkerCommandAttributes(marker_name=name, details={"change": payloads("1")})
    return Command(command_type=_Type.COMMAND_TYPE_RECORD_MARKER, record_marker_command_attributes=attributes)


def upsert_search_attributes(**texts: str | None) -> Command:
    """Set keyword attributes; None removes one."""
    attributes = UpsertWorkflowSearchAttributesCommandAttributes(
        search_attributes=SearchAttributes(indexed_fields=_fields(texts))
    )
    return Command(
        command_type=_Type.COMMAND_TYPE_UPSERT_WORKFLOW_SEARCH_ATTRIBUTES,
        upsert_workflow_search_attributes_command_attributes=attributes,
    )


def modify_memo(**texts: str | None) -> Command:
    """Set memo fields; None removes one."""
    attributes = ModifyWorkflowPropertiesCommandAttributes(upserted_memo=Memo(fields=_fields(texts)))
    return Command(
        command_type=_Type.COMMAND_TYPE_MODIFY_WORKFLOW_PROPERTIES,
        modify_workflow_properties_command_attributes=attributes,
    )


def _fields(texts: dict[str, str | None]) -> dict[str, Payload]:
    nothing = Payload(metadata={"encoding": b"binary/null"})
    return {name: nothing if text is None else payload(text) for name, text in texts.items()}
