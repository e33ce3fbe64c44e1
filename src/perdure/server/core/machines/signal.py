"""Signals: messages that change a run's state and return nothing. A repeated request id is known and does nothing."""

from __future__ import annotations

from temporalio.api.enums.v1 import ResourceExhaustedCause, ResourceExhaustedScope
from temporalio.api.errordetails.v1 import ResourceExhaustedFailure
from temporalio.api.history.v1 import WorkflowExecutionSignaledEventAttributes
from temporalio.api.workflowservice.v1 import SignalWithStartWorkflowExecutionRequest, SignalWorkflowExecutionRequest

from perdure.server.core import registry
from perdure.server.core.errors import InvalidArgument, NotFound, ResourceExhausted
from perdure.server.core.events import Event
from perdure.server.core.inputs import Signal
from perdure.server.core.machines import workflow_task
from perdure.server.core.run import Run
from perdure.server.core.transition import Transition

_BUSY_WORKFLOW = ResourceExhaustedFailure(
    cause=ResourceExhaustedCause.RESOURCE_EXHAUSTED_CAUSE_BUSY_WORKFLOW,
    scope=ResourceExhaustedScope.RESOURCE_EXHAUSTED_SCOPE_NAMESPACE,
)


@registry.handles(Signal)
def _signal(t: Transition, signal: Signal) -> None:
    run, request = t.run, signal.request
    if request.request_id and request.request_id in run.request_ids:
        return
    if not run.is_open:
        raise NotFound("workflow execution already completed")
    require_room(t)
    remember(t, request.request_id)
    record(t, request, request.input.SerializeToString() if request.HasField("input") else b"")
    workflow_task.schedule(t)


def require_room(t: Transition) -> None:
    """Refuse a signal where the run has taken as many as it may, or would never come to close for all of them."""
    if not has_room(t):
        limit = t.world.limits.signals_per_execution
        raise InvalidArgument(f"exceeded workflow execution limit for signal events ({limit})")
    require_no_closing(t)


def has_room(t: Transition) -> bool:
    """Return whether the run may take one more signal."""
    limit = t.world.limits.signals_per_execution
    return not limit or t.run.signal_count < limit


def require_no_closing(t: Transition) -> None:
    """Refuse a signal for now to a run that tries to close: one signal after the other could keep it from it for ever.

    Raises:
        ResourceExhausted: A task is at work that follows an attempt to close.
    """
    if t.run.close_attempted and t.run.task.is_started:
        raise ResourceExhausted(
            "workflow operation can not be applied because workflow is closing", detail=_BUSY_WORKFLOW
        )


def remember(t: Transition, request_id: str) -> None:
    """Keep a request id, so that its repetition is known."""
    if request_id:
        t.run.request_ids.add(request_id)
        t.run.changes.requests.append(request_id)
        t.touch()


def record(
    t: Transition, request: SignalWorkflowExecutionRequest | SignalWithStartWorkflowExecutionRequest, data: bytes
) -> None:
    """Record the Signaled event of a request; `data` is its input, serialised."""
    attributes = WorkflowExecutionSignaledEventAttributes(signal_name=request.signal_name, identity=request.identity)
    if data:
        attributes.input.ParseFromString(data)
    if request.HasField("header"):
        attributes.header.CopyFrom(request.header)
    t.record(attributes, links=request.links)


@registry.applies(WorkflowExecutionSignaledEventAttributes)
def _apply(run: Run, event: Event, attributes: WorkflowExecutionSignaledEventAttributes) -> None:
    run.signal_count += 1
