"""A request to cancel a run: the workflow is told and decides what to do. Asking again changes nothing."""

from __future__ import annotations

from temporalio.api.history.v1 import WorkflowExecutionCancelRequestedEventAttributes

from perdure.server.core import registry
from perdure.server.core.errors import NotFound
from perdure.server.core.events import Event
from perdure.server.core.inputs import RequestCancel
from perdure.server.core.machines import workflow_task
from perdure.server.core.run import Run
from perdure.server.core.transition import Transition


@registry.handles(RequestCancel)
def _request(t: Transition, request_cancel: RequestCancel) -> None:
    run, request = t.run, request_cancel.request
    if not run.is_open:
        # It needs no cancelling, whichever chain of runs was meant.
        return
    first_run_id = request.first_execution_run_id
    if first_run_id and run.start.first_execution_run_id != first_run_id:
        raise NotFound("workflow execution not found")
    if run.cancel_requested:
        return
    t.record(
        WorkflowExecutionCancelRequestedEventAttributes(cause=request.reason, identity=request.identity),
        links=request.links,
    )
    workflow_task.schedule(t)


@registry.applies(WorkflowExecutionCancelRequestedEventAttributes)
def _apply(run: Run, event: Event, attributes: WorkflowExecutionCancelRequestedEventAttributes) -> None:
    run.cancel_requested = True
    # Unlike a signal, a cancel request does not wait for the first-task backoff: there is nothing to wait for.
    run.had_task = True
