"""Checks of the commands that close a run: complete, fail, cancel, continue as new."""

from __future__ import annotations

from typing import Final

from temporalio.api.command.v1 import (
    CancelWorkflowExecutionCommandAttributes,
    CompleteWorkflowExecutionCommandAttributes,
    ContinueAsNewWorkflowExecutionCommandAttributes,
    FailWorkflowExecutionCommandAttributes,
)
from temporalio.api.common.v1 import Memo, SearchAttributes
from temporalio.api.enums.v1 import WorkflowTaskFailedCause

from perdure.server.core.checks.bad_command import BadCommand
from perdure.server.core.checks.facts import RunFacts
from perdure.server.core.checks.names import (
    byte_length,
    has_nul,
    is_too_long,
    normalize_task_queue,
    refuse_internal_queue,
)
from perdure.server.core.checks.payload_map import without_removals
from perdure.server.core.checks.search_attributes import (
    check_names_defined,
    check_search_attributes_size,
    check_values,
    typed_search_attributes,
)
from perdure.server.core.durations import cap_duration, duration_fault, duration_of, nanos_of
from perdure.server.core.errors import InvalidArgument
from perdure.server.core.limits import Limits
from perdure.server.core.retry import validate_retry_policy, with_defaults

_BAD_SCHEDULE: Final = WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_BAD_SCHEDULE_ACTIVITY_ATTRIBUTES
_BAD_FAIL: Final = WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_BAD_FAIL_WORKFLOW_EXECUTION_ATTRIBUTES
_BAD_CONTINUE: Final = WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_BAD_CONTINUE_AS_NEW_ATTRIBUTES
_BAD_ATTRIBUTES: Final = WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_BAD_SEARCH_ATTRIBUTES

_CONTINUE: Final = "ContinueAsNewWorkflowExecutionCommand"


def check_complete_workflow(
    attributes: CompleteWorkflowExecutionCommandAttributes, facts: RunFacts, limits: Limits
) -> None:
    """Refuse a result that is too large; it ends the run. Raises BadCommand."""
    if attributes.HasField("result") and attributes.result.ByteSize() > limits.blob_size_error:
        # Temporal gives this case the cause of an activity, and tools have learned it.
        raise BadCommand(
            _BAD_SCHEDULE, "CompleteWorkflowExecutionCommandAttributes.Result exceeds size limit.", terminate=True
        )


def check_fail_workflow(attributes: FailWorkflowExecutionCommandAttributes, facts: RunFacts, limits: Limits) -> None:
    """Refuse to fail without a failure; one that is too large ends the run. Raises BadCommand."""
    if not attributes.HasField("failure"):
        raise BadCommand(_BAD_FAIL, "Failure is not set on FailWorkflowExecutionCommand.")
    if attributes.failure.ByteSize() > limits.blob_size_error:
        raise BadCommand(
            _BAD_FAIL, "FailWorkflowExecutionCommandAttributes.Failure exceeds size limit.", terminate=True
        )


def check_cancel_workflow(
    attributes: CancelWorkflowExecutionCommandAttributes, facts: RunFacts, limits: Limits
) -> None:
    """Refuse nothing: whatever a worker says when it cancels its run is accepted."""


def normalize_continue_as_new(
    attributes: ContinueAsNewWorkflowExecutionCommandAttributes, facts: RunFacts, limits: Limits
) -> ContinueAsNewWorkflowExecutionCommandAttributes:
    """Check a continue-as-new and return a copy with what it leaves out taken from the present run.

    Inherited are type, task queue, run and task timeout; not the retry policy, the cron schedule, the memo and the
    search attributes, which a worker sends again. Removals in memo and search attributes are dropped.

    Raises:
        BadCommand: If it may not be carried out; with `terminate` if something is too large.
    """
    normalized = ContinueAsNewWorkflowExecutionCommandAttributes()
    normalized.CopyFrom(attributes)
    search_attributes = normalized.search_attributes
    try:
        check_names_defined(search_attributes, facts.search_attribute_types, namespace=facts.namespace)
    except InvalidArgument as error:
        raise BadCommand(_BAD_ATTRIBUTES, error.message) from error
    _inherit_names(normalized, facts, limits)
    _inherit_timeouts(normalized, facts, limits)
    _fill_retry_policy(normalized)
    try:
        check_values(search_attributes, facts.search_attribute_types, limits)
    except InvalidArgument as error:
        reason = f"invalid SearchAttributes on {_CONTINUE}: {error.message}. {_where(normalized)}"
        raise BadCommand(_BAD_ATTRIBUTES, reason) from error
    _check_continue_sizes(normalized, limits)
    _drop_removals(normalized, facts)
    return normalized


def run_timeout_within(run_timeout: int, execution_timeout: int) -> int:
    """Return the run timeout that holds, in nanoseconds, where 0 stands for none: never longer than the execution's."""
    if run_timeout and execution_timeout:
        return min(run_timeout, execution_timeout)
    return run_timeout or execution_timeout


def task_timeout_within(task_timeout: int, run_timeout: int, limits: Limits) -> int:
    """Return the workflow task timeout that holds, in nanoseconds: the default if 0, never above limit and run."""
    timeout = min(task_timeout or limits.workflow_task_timeout_default, limits.workflow_task_timeout_max)
    return min(timeout, run_timeout) if run_timeout else timeout


def _where(normalized: ContinueAsNewWorkflowExecutionCommandAttributes) -> str:
    return f"WorkflowType={normalized.workflow_type.name} TaskQueue={normalized.task_queue.name}"


def _inherit_names(
    normalized: ContinueAsNewWorkflowExecutionCommandAttributes, facts: RunFacts, limits: Limits
) -> None:
    normalized.workflow_type.name = normalized.workflow_type.name or facts.workflow_type
    workflow_type = normalized.workflow_type.name
    if is_too_long(workflow_type, limits):
        raise BadCommand(
            _BAD_CONTINUE,
            f"WorkflowType on {_CONTINUE} exceeds length limit. "
            f"WorkflowType={workflow_type} Length={byte_length(workflow_type)} Limit={limits.id_length}",
        )
    if has_nul(workflow_type):
        raise BadCommand(_BAD_CONTINUE, f"WorkflowType on {_CONTINUE} contains a NUL character.")
    try:
        queue = normalize_task_queue(normalized.task_queue, limits, default_name=facts.task_queue)
        refuse_internal_queue(queue.name, parent=facts.task_queue)
    except InvalidArgument as error:
        reason = f"error validating {_CONTINUE} TaskQueue: {error.message}. {_where(normalized)}"
        raise BadCommand(_BAD_CONTINUE, reason) from error
    normalized.task_queue.CopyFrom(queue)
    if normalized.inherit_build_id and queue.name != facts.task_queue:
        raise BadCommand(_BAD_CONTINUE, "ContinueAsNew with UseCompatibleVersion cannot run on different task queue.")


def _inherit_timeouts(
    normalized: ContinueAsNewWorkflowExecutionCommandAttributes, facts: RunFacts, limits: Limits
) -> None:
    for what, duration in (
        ("WorkflowRunTimeout", normalized.workflow_run_timeout),
        ("WorkflowTaskTimeout", normalized.workflow_task_timeout),
        ("BackoffStartInterval", normalized.backoff_start_interval),
    ):
        if fault := duration_fault(duration):
            raise BadCommand(_BAD_CONTINUE, f"Invalid {what} on {_CONTINUE}: {fault}. {_where(normalized)}")
        cap_duration(duration)
    run_timeout = nanos_of(normalized.workflow_run_timeout) or facts.run_timeout
    task_timeout = nanos_of(normalized.workflow_task_timeout) or facts.task_timeout
    run_timeout = run_timeout_within(run_timeout, facts.execution_timeout)
    normalized.workflow_run_timeout.CopyFrom(duration_of(run_timeout))
    normalized.workflow_task_timeout.CopyFrom(duration_of(task_timeout_within(task_timeout, run_timeout, limits)))


def _fill_retry_policy(normalized: ContinueAsNewWorkflowExecutionCommandAttributes) -> None:
    if not normalized.HasField("retry_policy"):
        return
    normalized.retry_policy.CopyFrom(with_defaults(normalized.retry_policy))
    try:
        validate_retry_policy(normalized.retry_policy)
    except InvalidArgument as error:
        reason = f"invalid WorkflowRetryPolicy on {_CONTINUE}: {error.message}. {_where(normalized)}"
        raise BadCommand(_BAD_CONTINUE, reason) from error


def _check_continue_sizes(normalized: ContinueAsNewWorkflowExecutionCommandAttributes, limits: Limits) -> None:
    if normalized.input.ByteSize() > limits.blob_size_error:
        reason = "ContinueAsNewWorkflowExecutionCommandAttributes. Input exceeds size limit."
        raise BadCommand(_BAD_CONTINUE, reason, terminate=True)
    if normalized.memo.ByteSize() > limits.memo_size_error:
        reason = "ContinueAsNewWorkflowExecutionCommandAttributes. Memo exceeds size limit."
        raise BadCommand(_BAD_CONTINUE, reason, terminate=True)
    try:
        check_search_attributes_size(normalized.search_attributes, limits)
    except InvalidArgument as error:
        raise BadCommand(_BAD_CONTINUE, error.message, terminate=True) from error


def _drop_removals(normalized: ContinueAsNewWorkflowExecutionCommandAttributes, facts: RunFacts) -> None:
    typed = typed_search_attributes(normalized.search_attributes, facts.search_attribute_types)
    attributes = without_removals(typed.indexed_fields)
    memo = without_removals(normalized.memo.fields)
    normalized.ClearField("search_attributes")
    normalized.ClearField("memo")
    if attributes:
        normalized.search_attributes.CopyFrom(SearchAttributes(indexed_fields=attributes))
    if memo:
        normalized.memo.CopyFrom(Memo(fields=memo))
