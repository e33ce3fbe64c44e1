"""What simulated workflows do: a program is data in the workflow's input, and `decide` turns a history into commands.

That is all a worker has to be for the server: a deterministic function of the history.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from temporalio.api.command.v1 import Command
from temporalio.api.common.v1 import ActivityType, Payload, Payloads, RetryPolicy, WorkflowType
from temporalio.api.enums.v1 import CommandType
from temporalio.api.failure.v1 import ApplicationFailureInfo, Failure
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.taskqueue.v1 import TaskQueue

from perdure.server.core.durations import duration_of

WORKFLOWS = "workflows"
ACTIVITIES = "activities"
NOBODY = "nobody-polls-this"


class ActivityStep(msgspec.Struct, tag="activity"):
    """Run an activity, and wait for its end whatever that is."""

    name: str
    outcomes: list[str]
    """Per attempt: `ok`, `fail`, `hang` (no answer ever); the last one stands for all later attempts."""
    seconds: float = 0.0
    """How long an attempt works."""
    queue: str = ACTIVITIES
    attempts: int = 0
    schedule_to_close: float = 0.0
    schedule_to_start: float = 0.0
    start_to_close: float = 5.0
    heartbeat: float = 0.0
    heartbeats: bool = False
    eager: bool = False


class TimerStep(msgspec.Struct, tag="timer"):
    """Wait."""

    name: str
    seconds: float


class MarkerStep(msgspec.Struct, tag="marker"):
    """Record a marker."""

    name: str


class SignalsStep(msgspec.Struct, tag="signals"):
    """Wait until so many signals have come."""

    count: int


class ForcedTaskStep(msgspec.Struct, tag="forced"):
    """Ask for another workflow task in the completion of this one, as a local activity does."""

    name: str


class ChildStep(msgspec.Struct, tag="child"):
    """Start a child, under the parent's id and this name, and wait for its end whatever that is."""

    name: str
    program: Program
    policy: int = 1
    """A `ParentClosePolicy`."""
    attempts: int = 1
    is_awaited: bool = True
    """Whether to wait for its end, or only until it has started."""


class SignalOtherStep(msgspec.Struct, tag="signal other"):
    """Signal another workflow, and wait until it is known whether that was done. The name is the signal's."""

    name: str
    workflow_id: str


class CancelOtherStep(msgspec.Struct, tag="cancel other"):
    """Request the cancellation of another workflow, and wait until it is known whether that was done."""

    name: str
    workflow_id: str


Waiting = ActivityStep | TimerStep | ChildStep | SignalOtherStep | CancelOtherStep


class AllStep(msgspec.Struct, tag="all"):
    """Do these at the same time and wait for all."""

    steps: Sequence[Waiting]


class RaceStep(msgspec.Struct, tag="race"):
    """Do these at the same time, go on with the first that ends and cancel the other."""

    activity: ActivityStep
    timer: TimerStep


Step = Waiting | MarkerStep | SignalsStep | ForcedTaskStep | AllStep | RaceStep


class Program(msgspec.Struct):
    """A workflow."""

    steps: list[Step]
    end: str = "complete"
    """`complete`, `fail` (to be retried), `fail_for_good`, `continue`."""
    succeeds_at_attempt: int = 0
    """For `fail`: the workflow attempt that completes instead; 0 for none."""
    then: Program | None = None
    """What `continue` continues as."""
    ignores_cancel: bool = False


class Decision(msgspec.Struct):
    """What a worker answers."""

    commands: list[Command]
    force_new_task: bool = False


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Program).decode
_decode_activity = msgspec.json.Decoder(ActivityStep).decode


def payloads(data: bytes) -> Payloads:
    """Return one payload of these bytes."""
    return Payloads(payloads=[Payload(metadata={"encoding": b"json/plain"}, data=data)])


def input_of(program: Program) -> Payloads:
    """Return the workflow input that says what to do."""
    return payloads(_encode(program))


def activity_of(data: Payloads) -> ActivityStep:
    """Return what an activity's input asks for."""
    return _decode_activity(data.payloads[0].data)


class View:
    """What a history says, as a workflow would see it."""

    def __init__(self, events: Sequence[HistoryEvent]) -> None:
        start = events[0].workflow_execution_started_event_attributes
        self.program = _decode(start.input.payloads[0].data)
        self.workflow_id = start.workflow_id
        self.attempt = start.attempt
        self.scheduled: dict[str, int] = {}
        self.closed: set[str] = set()
        self.running: set[str] = set()
        """Children that have started."""
        self.cancelled: set[str] = set()
        self.markers: set[str] = set()
        self.signals = 0
        self.cancel_requested = False
        self._names: dict[int, str] = {}
        for event in events:
            self._take(event)

    def _take(self, event: HistoryEvent) -> None:
        which = event.WhichOneof("attributes")
        if which is None:
            return
        attributes = getattr(event, which)
        match which.removesuffix("_event_attributes"):
            case "activity_task_scheduled":
                self.scheduled[attributes.activity_id] = event.event_id
                self._names[event.event_id] = attributes.activity_id
            case "activity_task_cancel_requested":
                self.cancelled.add(self._names[attributes.scheduled_event_id])
            case (
                "activity_task_completed"
                | "activity_task_failed"
                | "activity_task_timed_out"
                | "activity_task_canceled"
            ):
                self.closed.add(self._names[attributes.scheduled_event_id])
            case "timer_started":
                self.scheduled[attributes.timer_id] = event.event_id
            case "timer_fired":
                self.closed.add(attributes.timer_id)
            case "timer_canceled":
                self.closed.add(attributes.timer_id)
                self.cancelled.add(attributes.timer_id)
            case "start_child_workflow_execution_initiated":
                self._name(event, attributes.workflow_id.rpartition("/")[2])
            case "signal_external_workflow_execution_initiated" | (
                "request_cancel_external_workflow_execution_initiated"
            ):
                self._name(event, attributes.control)
            case "child_workflow_execution_started":
                self.running.add(self._names[attributes.initiated_event_id])
            case (
                "start_child_workflow_execution_failed"
                | "child_workflow_execution_completed"
                | "child_workflow_execution_failed"
                | "child_workflow_execution_canceled"
                | "child_workflow_execution_timed_out"
                | "child_workflow_execution_terminated"
                | "external_workflow_execution_signaled"
                | "signal_external_workflow_execution_failed"
                | "external_workflow_execution_cancel_requested"
                | "request_cancel_external_workflow_execution_failed"
            ):
                name = self._names[attributes.initiated_event_id]
                assert name not in self.closed, f"{name} ended twice"
                self.closed.add(name)
            case "marker_recorded":
                self.markers.add(attributes.marker_name)
            case "workflow_execution_signaled":
                self.signals += 1
            case "workflow_execution_cancel_requested":
                self.cancel_requested = True
            case _:
                return

    def _name(self, event: HistoryEvent, name: str) -> None:
        self.scheduled[name] = event.event_id
        self._names[event.event_id] = name


def decide(events: Sequence[HistoryEvent]) -> Decision:
    """Return what the workflow does next, given its history."""
    view = View(events)
    decision = Decision([])
    if view.cancel_requested and not view.program.ignores_cancel:
        command = Command(command_type=CommandType.COMMAND_TYPE_CANCEL_WORKFLOW_EXECUTION)
        command.cancel_workflow_execution_command_attributes.SetInParent()
        decision.commands.append(command)
        return decision
    for step in view.program.steps:
        if not _advance(step, view, decision):
            return decision
    decision.commands.append(_end(view))
    return decision


def _advance(step: Step, view: View, decision: Decision) -> bool:
    """Do what a step needs; return whether it is over."""
    match step:
        case MarkerStep():
            if step.name not in view.markers:
                decision.commands.append(_marker(step.name))
            return True
        case ForcedTaskStep():
            if step.name in view.markers:
                return True
            decision.commands.append(_marker(step.name))
            decision.force_new_task = True
            return False
        case SignalsStep():
            return view.signals >= step.count
        case AllStep():
            ended = [_wait_for(each, view, decision) for each in step.steps]
            return all(ended)
        case RaceStep():
            return _race(step, view, decision)
        case _:
            return _wait_for(step, view, decision)


def _wait_for(step: Waiting, view: View, decision: Decision) -> bool:
    if step.name not in view.scheduled:
        decision.commands.append(_begin(step, view))
        return False
    if isinstance(step, ChildStep) and not step.is_awaited and step.name in view.running:
        return True
    return step.name in view.closed


def _begin(step: Waiting, view: View) -> Command:
    match step:
        case ActivityStep():
            return _schedule(step)
        case TimerStep():
            return _start_timer(step)
        case ChildStep():
            return _start_child(step, view)
        case SignalOtherStep():
            return _signal_other(step)
        case CancelOtherStep():
            return _cancel_other(step)


def _race(step: RaceStep, view: View, decision: Decision) -> bool:
    activity, timer = step.activity.name, step.timer.name
    ended = [_wait_for(step.activity, view, decision), _wait_for(step.timer, view, decision)]
    if not any(ended):
        return False
    if activity not in view.closed and activity not in view.cancelled:
        command = Command(command_type=CommandType.COMMAND_TYPE_REQUEST_CANCEL_ACTIVITY_TASK)
        command.request_cancel_activity_task_command_attributes.scheduled_event_id = view.scheduled[activity]
        decision.commands.append(command)
    if timer not in view.closed:
        command = Command(command_type=CommandType.COMMAND_TYPE_CANCEL_TIMER)
        command.cancel_timer_command_attributes.timer_id = timer
        decision.commands.append(command)
    return True


def _schedule(step: ActivityStep) -> Command:
    command = Command(command_type=CommandType.COMMAND_TYPE_SCHEDULE_ACTIVITY_TASK)
    attributes = command.schedule_activity_task_command_attributes
    attributes.activity_id = step.name
    attributes.activity_type.CopyFrom(ActivityType(name="simulated"))
    attributes.task_queue.CopyFrom(TaskQueue(name=step.queue))
    attributes.input.CopyFrom(payloads(_encode(step)))
    policy = RetryPolicy(maximum_attempts=step.attempts, backoff_coefficient=2.0)
    policy.initial_interval.CopyFrom(duration_of(500_000_000))
    policy.maximum_interval.CopyFrom(duration_of(4_000_000_000))
    attributes.retry_policy.CopyFrom(policy)
    for name in ("schedule_to_close", "schedule_to_start", "start_to_close", "heartbeat"):
        getattr(attributes, f"{name}_timeout").CopyFrom(duration_of(int(getattr(step, name) * 1e9)))
    attributes.request_eager_execution = step.eager
    return command


def _start_timer(step: TimerStep) -> Command:
    command = Command(command_type=CommandType.COMMAND_TYPE_START_TIMER)
    command.start_timer_command_attributes.timer_id = step.name
    command.start_timer_command_attributes.start_to_fire_timeout.CopyFrom(duration_of(int(step.seconds * 1e9)))
    return command


def _start_child(step: ChildStep, view: View) -> Command:
    command = Command(command_type=CommandType.COMMAND_TYPE_START_CHILD_WORKFLOW_EXECUTION)
    attributes = command.start_child_workflow_execution_command_attributes
    attributes.workflow_id = f"{view.workflow_id}/{step.name}"
    attributes.workflow_type.CopyFrom(WorkflowType(name="simulated"))
    attributes.task_queue.CopyFrom(TaskQueue(name=WORKFLOWS))
    attributes.input.CopyFrom(input_of(step.program))
    attributes.parent_close_policy = step.policy  # type: ignore[assignment]  # a plain number
    policy = RetryPolicy(maximum_attempts=step.attempts, backoff_coefficient=2.0)
    policy.initial_interval.CopyFrom(duration_of(500_000_000))
    attributes.retry_policy.CopyFrom(policy)
    return command


def _signal_other(step: SignalOtherStep) -> Command:
    command = Command(command_type=CommandType.COMMAND_TYPE_SIGNAL_EXTERNAL_WORKFLOW_EXECUTION)
    attributes = command.signal_external_workflow_execution_command_attributes
    attributes.execution.workflow_id = step.workflow_id
    attributes.signal_name = attributes.control = step.name
    return command


def _cancel_other(step: CancelOtherStep) -> Command:
    command = Command(command_type=CommandType.COMMAND_TYPE_REQUEST_CANCEL_EXTERNAL_WORKFLOW_EXECUTION)
    attributes = command.request_cancel_external_workflow_execution_command_attributes
    attributes.workflow_id = step.workflow_id
    attributes.control = step.name
    return command


def _marker(name: str) -> Command:
    command = Command(command_type=CommandType.COMMAND_TYPE_RECORD_MARKER)
    command.record_marker_command_attributes.marker_name = name
    return command


def _end(view: View) -> Command:
    program = view.program
    if program.end == "continue":
        return _continue(program)
    fails = program.end.startswith("fail") and view.attempt != program.succeeds_at_attempt
    if not fails:
        command = Command(command_type=CommandType.COMMAND_TYPE_COMPLETE_WORKFLOW_EXECUTION)
        result = payloads(str(view.signals).encode())
        command.complete_workflow_execution_command_attributes.result.CopyFrom(result)
        return command
    command = Command(command_type=CommandType.COMMAND_TYPE_FAIL_WORKFLOW_EXECUTION)
    info = ApplicationFailureInfo(type="Simulated", non_retryable=program.end == "fail_for_good")
    command.fail_workflow_execution_command_attributes.failure.CopyFrom(
        Failure(message="the simulated workflow fails", application_failure_info=info)
    )
    return command


def _continue(program: Program) -> Command:
    command = Command(command_type=CommandType.COMMAND_TYPE_CONTINUE_AS_NEW_WORKFLOW_EXECUTION)
    attributes = command.continue_as_new_workflow_execution_command_attributes
    attributes.workflow_type.CopyFrom(WorkflowType(name="simulated"))
    attributes.task_queue.CopyFrom(TaskQueue(name=WORKFLOWS))
    assert program.then is not None, "a program that continues says as what"
    attributes.input.CopyFrom(input_of(program.then))
    return command
