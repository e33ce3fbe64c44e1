"""What StartWorkflowExecution and SignalWithStartWorkflowExecution have in common: checks and defaults of a new run.

A request that has been through here has every field the engine reads filled in. It must never be changed afterwards.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from temporalio.api.enums.v1 import WorkflowIdConflictPolicy, WorkflowIdReusePolicy
from temporalio.api.workflowservice.v1 import SignalWithStartWorkflowExecutionRequest, StartWorkflowExecutionRequest

from perdure.server.core.checks.closing import run_timeout_within, task_timeout_within
from perdure.server.core.checks.search_attributes import normalize_search_attributes
from perdure.server.core.cron import validate_cron
from perdure.server.core.durations import duration_of, nanos_of
from perdure.server.core.errors import InvalidArgument, Unimplemented
from perdure.server.core.retry import validate_retry_policy, with_defaults
from perdure.server.handlers.fields import check_blob_size, check_duration

if TYPE_CHECKING:
    from perdure.server.core.limits import Limits
    from perdure.server.core.records import NamespaceRecord

StartRequest: TypeAlias = StartWorkflowExecutionRequest | SignalWithStartWorkflowExecutionRequest

_UNSPECIFIED: Final = WorkflowIdConflictPolicy.WORKFLOW_ID_CONFLICT_POLICY_UNSPECIFIED
_TERMINATE_EXISTING: Final = WorkflowIdConflictPolicy.WORKFLOW_ID_CONFLICT_POLICY_TERMINATE_EXISTING
_ALLOW_DUPLICATE: Final = WorkflowIdReusePolicy.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE
_REJECT_DUPLICATE: Final = WorkflowIdReusePolicy.WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE
_TERMINATE_IF_RUNNING: Final = WorkflowIdReusePolicy.WORKFLOW_ID_REUSE_POLICY_TERMINATE_IF_RUNNING


def check_built(request: StartRequest) -> None:
    """Refuse what this server cannot do yet. Raises Unimplemented: to ignore it would start a different workflow."""
    for field in ("versioning_override", "time_skipping_config"):
        if request.HasField(field):
            raise Unimplemented(f"{field} is not implemented by this server.")


def fill_id_policies(request: StartRequest, default_conflict: WorkflowIdConflictPolicy.ValueType) -> None:
    """Fill in the id policies. The old reuse policy "terminate if running" becomes the conflict policy it means."""
    if request.workflow_id_conflict_policy == _UNSPECIFIED:
        if request.workflow_id_reuse_policy == _TERMINATE_IF_RUNNING:
            request.workflow_id_conflict_policy = _TERMINATE_EXISTING
            request.workflow_id_reuse_policy = _ALLOW_DUPLICATE
        else:
            request.workflow_id_conflict_policy = default_conflict
    if not request.workflow_id_reuse_policy:
        request.workflow_id_reuse_policy = _ALLOW_DUPLICATE


def check_id_policies(request: StartRequest) -> None:
    """Refuse id policies that contradict each other."""
    reuse = request.workflow_id_reuse_policy
    if reuse == _TERMINATE_IF_RUNNING:
        raise InvalidArgument(
            "Invalid WorkflowIDReusePolicy: WORKFLOW_ID_REUSE_POLICY_TERMINATE_IF_RUNNING "
            "cannot be used together with a WorkflowIDConflictPolicy"
        )
    if reuse == _REJECT_DUPLICATE and request.workflow_id_conflict_policy == _TERMINATE_EXISTING:
        raise InvalidArgument(
            "Invalid WorkflowIDReusePolicy: WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE cannot be used together with "
            "WorkflowIdConflictPolicy WORKFLOW_ID_CONFLICT_POLICY_TERMINATE_EXISTING"
        )


def check_retry_policy(request: StartRequest) -> None:
    """Fill in and check the retry policy. Without one a workflow is not retried."""
    if request.HasField("retry_policy"):
        request.retry_policy.CopyFrom(with_defaults(request.retry_policy))
        validate_retry_policy(request.retry_policy)


def check_start_delay(request: StartRequest) -> None:
    """Refuse a negative start delay, and one together with a cron schedule."""
    if not request.HasField("workflow_start_delay"):
        return
    if request.cron_schedule:
        raise InvalidArgument("CronSchedule and WorkflowStartDelay may not be used together.")
    check_duration("An invalid WorkflowStartDelaySeconds is set on request.", request.workflow_start_delay)


def check_cron(request: StartRequest, now: int) -> None:
    """Refuse a cron schedule that is not one or that never comes."""
    if request.cron_schedule:
        validate_cron(request.cron_schedule, now)


def check_timeouts(request: StartRequest) -> None:
    """Refuse negative timeouts."""
    if request.HasField("workflow_execution_timeout"):
        check_duration(
            "An invalid WorkflowExecutionTimeoutSeconds is set on request.", request.workflow_execution_timeout
        )
    if request.HasField("workflow_run_timeout"):
        check_duration("An invalid WorkflowRunTimeoutSeconds is set on request.", request.workflow_run_timeout)
    if request.HasField("workflow_task_timeout"):
        check_duration("An invalid WorkflowTaskTimeoutSeconds is set on request.", request.workflow_task_timeout)


def fill_timeouts(request: StartRequest, limits: Limits) -> None:
    """Fill in the timeouts: a run lasts no longer than its execution, a task no longer than its run."""
    execution = nanos_of(request.workflow_execution_timeout)
    run = nanos_of(request.workflow_run_timeout)
    run_within = run_timeout_within(run, execution)
    if run_within != run:
        request.workflow_run_timeout.CopyFrom(duration_of(run_within))
    task = nanos_of(request.workflow_task_timeout)
    task_within = task_timeout_within(task, run_within, limits)
    if task_within != task:
        request.workflow_task_timeout.CopyFrom(duration_of(task_within))


def check_start_sizes(request: StartRequest, limits: Limits) -> None:
    """Refuse an input or a memo that is too large for the started event."""
    check_blob_size(request.input, limits)
    if request.memo.ByteSize() > limits.memo_size_error:
        raise InvalidArgument("Memo size exceeds limit.")


def fill_search_attributes(request: StartRequest, namespace: NamespaceRecord, limits: Limits) -> None:
    """Refuse search attributes that are unknown, not to be set, of a wrong type or too large; type the rest."""
    if request.HasField("search_attributes"):
        request.search_attributes.CopyFrom(
            normalize_search_attributes(
                request.search_attributes, namespace.search_attributes, limits, namespace=namespace.name
            )
        )
