"""Checks of StartChildWorkflowExecution."""

from __future__ import annotations

from typing import Final

from temporalio.api.command.v1 import StartChildWorkflowExecutionCommandAttributes
from temporalio.api.common.v1 import Memo, SearchAttributes
from temporalio.api.enums.v1 import ParentClosePolicy, WorkflowIdReusePolicy, WorkflowTaskFailedCause

from perdure.server.core.checks.bad_command import BadCommand
from perdure.server.core.checks.closing import run_timeout_within, task_timeout_within
from perdure.server.core.checks.external import check_same_namespace
from perdure.server.core.checks.facts import RunFacts
from perdure.server.core.checks.names import (
    byte_length,
    check_priority,
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
from perdure.server.core.cron import validate_cron
from perdure.server.core.durations import cap_duration, duration_fault, duration_of, nanos_of
from perdure.server.core.errors import InvalidArgument
from perdure.server.core.limits import Limits
from perdure.server.core.retry import validate_retry_policy, with_defaults

_BAD: Final = WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_BAD_START_CHILD_EXECUTION_ATTRIBUTES
_BAD_ATTRIBUTES: Final = WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_BAD_SEARCH_ATTRIBUTES
_TOO_MANY: Final = WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_PENDING_CHILD_WORKFLOWS_LIMIT_EXCEEDED

_COMMAND: Final = "StartChildWorkflowExecutionCommand"
_ATTRIBUTES: Final = "StartChildWorkflowExecutionCommandAttributes"


def normalize_start_child(
    attributes: StartChildWorkflowExecutionCommandAttributes, facts: RunFacts, limits: Limits, now: int
) -> StartChildWorkflowExecutionCommandAttributes:
    """Check the start of a child and return a copy with its defaults filled in.

    The namespace and the task queue are the parent's where none are named; timeouts and the retry policy follow the
    rules of any start; a child is terminated with its parent unless something else is said.

    Raises:
        BadCommand: If it may not be started; with `terminate` if something is too large.
    """
    normalized = StartChildWorkflowExecutionCommandAttributes()
    normalized.CopyFrom(attributes)
    try:
        check_names_defined(normalized.search_attributes, facts.search_attribute_types, namespace=facts.namespace)
    except InvalidArgument as error:
        raise BadCommand(_BAD_ATTRIBUTES, error.message) from error
    check_same_namespace(normalized.namespace, facts, _BAD)
    where = f"WorkflowId={normalized.workflow_id} WorkflowType={normalized.workflow_type.name} Namespace="
    where += normalized.namespace
    _check_names(normalized, where, limits)
    _check_durations(normalized, where)
    _check_policies(normalized, where, now)
    _check_search_attributes(normalized, where, facts, limits)
    _fill_in(normalized, where, facts, limits)
    _check_sizes(normalized, limits)
    return normalized


def too_many_children(pending: int, limits: Limits) -> BadCommand:
    """Return the refusal of one more pending child."""
    return BadCommand(
        _TOO_MANY,
        f"the number of pending child workflow executions, {pending}, "
        f"has reached the per-workflow limit of {limits.pending_child_workflows}",
    )


def _check_names(normalized: StartChildWorkflowExecutionCommandAttributes, where: str, limits: Limits) -> None:
    for what, name in (("WorkflowId", normalized.workflow_id), ("WorkflowType", normalized.workflow_type.name)):
        if not name:
            raise BadCommand(_BAD, f"Required field {what} is not set on {_COMMAND}. {where}")
        if is_too_long(name, limits):
            raise BadCommand(
                _BAD,
                f"{what} on {_COMMAND} exceeds length limit. {where} "
                f"Length={byte_length(name)} Limit={limits.id_length}",
            )
        if has_nul(name):
            raise BadCommand(_BAD, f"{what} on {_COMMAND} contains a NUL character.")


def _check_durations(normalized: StartChildWorkflowExecutionCommandAttributes, where: str) -> None:
    for what, duration in (
        ("WorkflowExecutionTimeout", normalized.workflow_execution_timeout),
        ("WorkflowRunTimeout", normalized.workflow_run_timeout),
        ("WorkflowTaskTimeout", normalized.workflow_task_timeout),
    ):
        if fault := duration_fault(duration):
            raise BadCommand(_BAD, f"Invalid {what} on {_COMMAND}: {fault}. {where}")
        cap_duration(duration)


def _check_policies(normalized: StartChildWorkflowExecutionCommandAttributes, where: str, now: int) -> None:
    if normalized.HasField("retry_policy"):
        normalized.retry_policy.CopyFrom(with_defaults(normalized.retry_policy))
        try:
            validate_retry_policy(normalized.retry_policy)
        except InvalidArgument as error:
            reason = f"invalid WorkflowRetryPolicy on {_COMMAND}: {error.message}. {where}"
            raise BadCommand(_BAD, reason) from error
    if normalized.cron_schedule:
        try:
            validate_cron(normalized.cron_schedule, now)
        except InvalidArgument as error:
            raise BadCommand(_BAD, f"invalid CronSchedule on {_COMMAND}: {error.message}. {where}") from error


def _check_search_attributes(
    normalized: StartChildWorkflowExecutionCommandAttributes, where: str, facts: RunFacts, limits: Limits
) -> None:
    try:
        check_values(normalized.search_attributes, facts.search_attribute_types, limits)
    except InvalidArgument as error:
        reason = f"invalid SearchAttributes on StartChildWorkflowCommand: {error.message}. {where}"
        raise BadCommand(_BAD_ATTRIBUTES, reason) from error


def _fill_in(
    normalized: StartChildWorkflowExecutionCommandAttributes, where: str, facts: RunFacts, limits: Limits
) -> None:
    try:
        check_priority(normalized.priority, limits)
        queue = normalize_task_queue(normalized.task_queue, limits, default_name=facts.task_queue)
        refuse_internal_queue(queue.name, parent=facts.task_queue)
    except InvalidArgument as error:
        raise BadCommand(_BAD, f"invalid {_COMMAND}: {error.message}. {where}") from error
    normalized.task_queue.CopyFrom(queue)
    if normalized.inherit_build_id and queue.name != facts.task_queue:
        reason = "StartChildWorkflowExecution with UseCompatibleVersion cannot run on different task queue."
        raise BadCommand(_BAD, reason)
    normalized.namespace = facts.namespace
    run_timeout = run_timeout_within(
        nanos_of(normalized.workflow_run_timeout), nanos_of(normalized.workflow_execution_timeout)
    )
    task_timeout = task_timeout_within(nanos_of(normalized.workflow_task_timeout), run_timeout, limits)
    normalized.workflow_run_timeout.CopyFrom(duration_of(run_timeout))
    normalized.workflow_task_timeout.CopyFrom(duration_of(task_timeout))
    normalized.parent_close_policy = normalized.parent_close_policy or ParentClosePolicy.PARENT_CLOSE_POLICY_TERMINATE
    normalized.workflow_id_reuse_policy = (
        normalized.workflow_id_reuse_policy or WorkflowIdReusePolicy.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE
    )
    attributes = without_removals(
        typed_search_attributes(normalized.search_attributes, facts.search_attribute_types).indexed_fields
    )
    memo = without_removals(normalized.memo.fields)
    normalized.ClearField("search_attributes")
    normalized.ClearField("memo")
    if attributes:
        normalized.search_attributes.CopyFrom(SearchAttributes(indexed_fields=attributes))
    if memo:
        normalized.memo.CopyFrom(Memo(fields=memo))


def _check_sizes(normalized: StartChildWorkflowExecutionCommandAttributes, limits: Limits) -> None:
    if normalized.input.ByteSize() > limits.blob_size_error:
        raise BadCommand(_BAD, f"{_ATTRIBUTES}. Input exceeds size limit.", terminate=True)
    if normalized.memo.ByteSize() > limits.memo_size_error:
        raise BadCommand(_BAD, f"{_ATTRIBUTES}.Memo exceeds size limit.", terminate=True)
    try:
        check_search_attributes_size(normalized.search_attributes, limits)
    except InvalidArgument as error:
        raise BadCommand(_BAD, error.message, terminate=True) from error
