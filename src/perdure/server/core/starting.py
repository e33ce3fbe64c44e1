"""Starting a workflow id: which policy applies, and what happens to the run that is there.

A repeated request id is answered with the run it made. An open run is a conflict (fail, use it, or terminate it), a
closed one a reuse (allow, allow after a failure, reject).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from temporalio.api.common.v1 import Payload, Payloads, WorkflowExecution
from temporalio.api.enums.v1 import WorkflowExecutionStatus, WorkflowIdConflictPolicy, WorkflowIdReusePolicy
from temporalio.api.errordetails.v1 import WorkflowExecutionAlreadyStartedFailure
from temporalio.api.history.v1 import (
    StartChildWorkflowExecutionInitiatedEventAttributes,
    WorkflowExecutionOptionsUpdatedEventAttributes,
    WorkflowExecutionStartedEventAttributes,
)
from temporalio.api.workflowservice.v1 import (
    SignalWithStartWorkflowExecutionRequest,
    StartWorkflowExecutionRequest,
)

from perdure.server.core.checks.namespaces import DELETED, DEPRECATED, REGISTERED, require_namespace_state
from perdure.server.core.errors import AlreadyExists
from perdure.server.core.inputs import SignalWithStart, Start
from perdure.server.core.machines import closure, held_start, signal, workflow_task
from perdure.server.core.machines import start as run_start
from perdure.server.core.machines.dispatch import task_reply
from perdure.server.core.messages import Answer, Message, Outcome, StartChildMessage
from perdure.server.core.records import WorkflowKey
from perdure.server.core.replies import StartReply, WorkflowTaskStarted
from perdure.server.core.run import Run
from perdure.server.core.transition import Circumstances, Transition

_Conflict = WorkflowIdConflictPolicy
_Reuse = WorkflowIdReusePolicy
_Status = WorkflowExecutionStatus


@dataclass(slots=True)
class Parent:
    """The run that starts another as its child."""

    key: WorkflowKey
    run_id: str
    initiated_event_id: int
    namespace: str
    root: WorkflowExecution

    def adopt(self, started: WorkflowExecutionStartedEventAttributes) -> None:
        """Name the parent in the child's first event."""
        started.parent_workflow_namespace = self.namespace
        started.parent_workflow_namespace_id = self.key.namespace_id
        started.parent_workflow_execution.workflow_id = self.key.workflow_id
        started.parent_workflow_execution.run_id = self.run_id
        started.parent_initiated_event_id = self.initiated_event_id
        started.root_workflow_execution.CopyFrom(self.root)


_FAILED: Final = (
    _Status.WORKFLOW_EXECUTION_STATUS_FAILED,
    _Status.WORKFLOW_EXECUTION_STATUS_CANCELED,
    _Status.WORKFLOW_EXECUTION_STATUS_TERMINATED,
    _Status.WORKFLOW_EXECUTION_STATUS_TIMED_OUT,
)

_FIRST_STARTED: Final = 3
"""The id of the first workflow task's Started event: the run's start and the task's schedule come before it."""


def start(
    key: WorkflowKey, current: Run | None, given: Start | SignalWithStart, world: Circumstances
) -> tuple[list[Transition], StartReply]:
    """Start a run under the workflow's id, or do what its policies say about the run that is there."""
    # The request was let in before it came here, and its namespace may have been deleted meanwhile.
    require_namespace_state(world.namespace, (REGISTERED, DEPRECATED))
    if isinstance(given, SignalWithStart):
        return _signal_with_start(key, current, given, world)
    return _start(key, current, given.request, world)


def start_child(
    key: WorkflowKey, current: Run | None, message: Message, body: StartChildMessage, world: Circumstances
) -> tuple[list[Transition], Answer]:
    """Start a run as the child of the one that sent the message; that the id is taken is an answer."""
    if world.namespace.state == DELETED:
        return [], Answer(Outcome.NAMESPACE_NOT_FOUND)
    initiated = StartChildWorkflowExecutionInitiatedEventAttributes.FromString(body.attributes)
    request = _child_request(initiated, message, body)
    parent = Parent(
        message.sender,
        message.sender_run_id,
        body.initiated_event_id,
        body.parent_namespace,
        WorkflowExecution(workflow_id=body.root_workflow_id, run_id=body.root_run_id),
    )
    try:
        transitions, reply = _start(key, current, request, world, parent)
    except AlreadyExists:
        return [], Answer(Outcome.ID_TAKEN)
    return transitions, Answer(Outcome.DONE, reply.run_id)


def _child_request(
    initiated: StartChildWorkflowExecutionInitiatedEventAttributes, message: Message, body: StartChildMessage
) -> StartWorkflowExecutionRequest:
    request = StartWorkflowExecutionRequest(
        workflow_id=initiated.workflow_id,
        workflow_type=initiated.workflow_type,
        task_queue=initiated.task_queue,
        workflow_run_timeout=initiated.workflow_run_timeout,
        workflow_task_timeout=initiated.workflow_task_timeout,
        request_id=f"{message.sender_run_id}:{body.initiated_event_id}:0",
        workflow_id_reuse_policy=initiated.workflow_id_reuse_policy,
        workflow_id_conflict_policy=_Conflict.WORKFLOW_ID_CONFLICT_POLICY_FAIL,
        cron_schedule=initiated.cron_schedule,
    )
    if initiated.workflow_id_reuse_policy == _Reuse.WORKFLOW_ID_REUSE_POLICY_TERMINATE_IF_RUNNING:
        request.workflow_id_reuse_policy = _Reuse.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE
        request.workflow_id_conflict_policy = _Conflict.WORKFLOW_ID_CONFLICT_POLICY_TERMINATE_EXISTING
    for name in ("header", "input", "workflow_execution_timeout", "retry_policy", "memo", "search_attributes"):
        if initiated.HasField(name):
            getattr(request, name).CopyFrom(getattr(initiated, name))
    # A child has one also where it says nothing, as tools know it from Temporal.
    request.priority.SetInParent()
    request.priority.MergeFromString(body.priority)
    if body.user_metadata:
        request.user_metadata.ParseFromString(body.user_metadata)
    return request


def _start(
    key: WorkflowKey,
    current: Run | None,
    request: StartWorkflowExecutionRequest,
    world: Circumstances,
    parent: Parent | None = None,
) -> tuple[list[Transition], StartReply]:
    if current is None:
        return _begin(key, current, request, world, parent)
    if request.request_id and request.request_id == current.start_request_id:
        return _repeat(current, world, wants_task=request.request_eager_execution)
    if request.on_conflict_options.attach_request_id and request.request_id in current.request_ids:
        return [Transition(current, world, world.now)], StartReply(current.run_id, started=False, status=current.status)
    if not current.is_open:
        _require_reusable(current, request.workflow_id_reuse_policy)
        return _begin(key, current, request, world, parent)
    if request.workflow_id_conflict_policy == _Conflict.WORKFLOW_ID_CONFLICT_POLICY_TERMINATE_EXISTING:
        return _begin(key, current, request, world, parent)
    if request.workflow_id_conflict_policy == _Conflict.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING:
        return _use_existing(current, request, world)
    raise _already_started("Workflow execution is already running.", current)


def _begin(
    key: WorkflowKey,
    current: Run | None,
    request: StartWorkflowExecutionRequest,
    world: Circumstances,
    parent: Parent | None,
) -> tuple[list[Transition], StartReply]:
    t = _new_run(key, current, request, world, parent)
    before = _terminate_open(current, t.run.run_id, world)
    reply = StartReply(t.run.run_id, started=True, status=t.run.status)
    if request.request_eager_execution and not t.run.waits_for_first_task:
        reply.eager_task = _start_eagerly(t, request)
    else:
        run_start.schedule_first_task(t)
    return [*before, t], reply


def _new_run(
    key: WorkflowKey,
    current: Run | None,
    given: StartWorkflowExecutionRequest | SignalWithStartWorkflowExecutionRequest,
    world: Circumstances,
    parent: Parent | None = None,
) -> Transition:
    run_id = world.new_run_id()
    attributes = run_start.attributes_of_request(given, run_id, world.now)
    if parent is not None:
        parent.adopt(attributes)
    if current is not None:
        _retire(current)
    metadata = given.user_metadata if given.HasField("user_metadata") else None
    t = run_start.begin(key, run_id, attributes, world, user_metadata=metadata, links=tuple(given.links))
    t.run.start_request_id = given.request_id
    return t


def _retire(run: Run) -> None:
    run.is_current = False
    run.changes.is_dirty = run.changes.outline = True


def _start_eagerly(t: Transition, request: StartWorkflowExecutionRequest) -> WorkflowTaskStarted:
    workflow_task.schedule_now(t)
    held_start.hold_start(t, request.identity, request.request_id)
    return task_reply(t.run, only_new_events=False)


def _repeat(current: Run, world: Circumstances, *, wants_task: bool) -> tuple[list[Transition], StartReply]:
    """Answer a repeated request as the first time; the reply that got lost may have had the first workflow task."""
    reply = StartReply(current.run_id, started=True, status=current.status)
    task = current.task
    if wants_task and task.is_started and task.started_event_id == _FIRST_STARTED and not task.is_transient:
        reply.eager_task = task_reply(current, only_new_events=False)
        reply.eager_task.is_repeated = True
    return [Transition(current, world, world.now)], reply


def _use_existing(
    current: Run, request: StartWorkflowExecutionRequest, world: Circumstances
) -> tuple[list[Transition], StartReply]:
    t = Transition(current, world, world.now)
    reply = StartReply(current.run_id, started=False, status=current.status)
    options = request.on_conflict_options
    if request.request_id in current.request_ids or not request.HasField("on_conflict_options"):
        return [t], reply
    if options.attach_request_id:
        signal.remember(t, request.request_id)
    t.record(
        WorkflowExecutionOptionsUpdatedEventAttributes(
            attached_request_id=request.request_id if options.attach_request_id else ""
        ),
        links=request.links if options.attach_links else (),
    )
    return [t], reply


def _terminate_open(run: Run | None, successor_run_id: str, world: Circumstances) -> list[Transition]:
    """End the run in whose place another one has come, if it is still open."""
    if run is None or not run.is_open:
        return []
    t = Transition(run, world, world.now)
    text = f'"terminated by new runID: {successor_run_id}"'.encode()
    details = Payloads(payloads=[Payload(metadata={"encoding": b"json/plain"}, data=text)])
    closure.terminate(t, reason="TerminateIfRunning WorkflowIdReusePolicy", details=details)
    return [t]


def _require_reusable(closed: Run, policy: WorkflowIdReusePolicy.ValueType) -> None:
    if policy == _Reuse.WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE:
        raise _already_started(
            "Workflow execution already finished.", closed, "Workflow Id reuse policy: reject duplicate workflow Id."
        )
    if policy == _Reuse.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE_FAILED_ONLY and closed.status not in _FAILED:
        raise _already_started(
            "Workflow execution already finished successfully.",
            closed,
            "Workflow Id reuse policy: allow duplicate workflow Id if last run failed.",
        )


def _already_started(what: str, run: Run, policy: str = "") -> AlreadyExists:
    message = f"{what} WorkflowId: {run.key.workflow_id}, RunId: {run.run_id}. {policy}".rstrip()
    detail = WorkflowExecutionAlreadyStartedFailure(start_request_id=run.start_request_id, run_id=run.run_id)
    return AlreadyExists(message, detail=detail)


def _signal_with_start(
    key: WorkflowKey, current: Run | None, given: SignalWithStart, world: Circumstances
) -> tuple[list[Transition], StartReply]:
    request = given.request
    if current is not None and request.request_id and request.request_id == current.start_request_id:
        # Unlike for a repeated start, the reply does not say that it was started.
        return [Transition(current, world, world.now)], StartReply(current.run_id, started=False, status=current.status)
    if current is not None and current.is_open:
        if request.workflow_id_conflict_policy != _Conflict.WORKFLOW_ID_CONFLICT_POLICY_TERMINATE_EXISTING:
            return _signal_existing(current, given, world)
    elif current is not None:
        _require_reusable(current, request.workflow_id_reuse_policy)
    t = _new_run(key, current, request, world)
    signal.record(t, request, _signal_input(given))
    run_start.schedule_first_task(t)
    before = _terminate_open(current, t.run.run_id, world)
    return [*before, t], StartReply(t.run.run_id, started=True, status=t.run.status)


def _signal_existing(current: Run, given: SignalWithStart, world: Circumstances) -> tuple[list[Transition], StartReply]:
    t = Transition(current, world, world.now)
    request = given.request
    reply = StartReply(current.run_id, started=False, status=current.status)
    if request.request_id and request.request_id in current.request_ids:
        return [t], reply
    signal.require_room(t)
    signal.remember(t, request.request_id)
    signal.record(t, request, _signal_input(given))
    workflow_task.schedule(t)
    return [t], reply


def _signal_input(given: SignalWithStart) -> bytes:
    request = given.request
    return request.signal_input.SerializeToString() if request.HasField("signal_input") else b""
