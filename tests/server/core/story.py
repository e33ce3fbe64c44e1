"""A workflow to play with: the pure core in virtual time, on a table of rows, with everything checked at every step.

    story = Story()
    story.start()
    task = story.poll()
    story.complete(task, start_timer("t", seconds=10))
    story.wait(10)
    assert story.names()[-2:] == ["TimerFired", "WorkflowTaskScheduled"]

Every step is checked by `StepCheck`. Rows are cut after each step, unless the story is told to keep them back; `crash`
then forgets everything that was not cut.
"""

from __future__ import annotations

from itertools import count
from typing import TypeVar
from zlib import crc32

import msgspec
from temporalio.api.command.v1 import Command
from temporalio.api.common.v1 import WorkflowType
from temporalio.api.enums.v1 import EventType, QueryRejectCondition, WorkflowTaskFailedCause
from temporalio.api.failure.v1 import Failure
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.query.v1 import WorkflowQuery
from temporalio.api.taskqueue.v1 import StickyExecutionAttributes, TaskQueue
from temporalio.api.workflowservice.v1 import (
    DescribeWorkflowExecutionResponse,
    PollActivityTaskQueueResponse,
    RequestCancelWorkflowExecutionRequest,
    RespondActivityTaskCanceledRequest,
    RespondActivityTaskCompletedRequest,
    RespondActivityTaskFailedRequest,
    RespondWorkflowTaskCompletedRequest,
    RespondWorkflowTaskFailedRequest,
    SignalWithStartWorkflowExecutionRequest,
    SignalWorkflowExecutionRequest,
    StartWorkflowExecutionRequest,
    TerminateWorkflowExecutionRequest,
)

from perdure.server.core.effects import Effect
from perdure.server.core.errors import Refusal
from perdure.server.core.events import attributes_of
from perdure.server.core.inputs import (
    AlarmDue,
    CancelActivity,
    CompleteActivity,
    CompleteWorkflowTask,
    Describe,
    FailActivity,
    FailWorkflowTask,
    HeartbeatActivity,
    Input,
    Query,
    RequestCancel,
    ReturnActivity,
    ReturnWorkflowTask,
    Signal,
    SignalWithStart,
    Start,
    StartActivity,
    StartWorkflowTask,
    Terminate,
)
from perdure.server.core.limits import Limits
from perdure.server.core.records import EntityWrite, NamespaceRecord, WorkflowKey
from perdure.server.core.replies import (
    ActivityTaskStarted,
    HeartbeatReply,
    StartReply,
    WorkflowTaskCompleted,
    WorkflowTaskStarted,
)
from perdure.server.core.run import Run
from perdure.server.core.stored import restore
from perdure.server.core.tokens import ActivityToken, WorkflowTaskToken, decode_activity, decode_workflow_task
from perdure.server.core.transition import Circumstances
from perdure.server.core.workflow import Step, Workflow
from tests.server.core.commands import SECOND, nanos, payloads
from tests.server.core.rows import Rows
from tests.server.core.step_check import StepCheck

NOW = 1_767_225_600 * SECOND
KEY = WorkflowKey("namespace-id", "order-7")
QUEUE = "orders"
EXACT = Limits(activity_timeout_grace=0)
"""Limits under which every timeout is told the moment it is due, so that a story's times are plain numbers."""
STICKY = "sticky-of-worker-1"

T = TypeVar("T")


def build(message_class: type[T], fields: dict[str, object]) -> T:
    """Build a message of which a test gives some fields."""
    return message_class(**fields)


_UNHANDLED_FAILURE = WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_WORKFLOW_WORKER_UNHANDLED_FAILURE


class Story:
    """One workflow id and the time.

    Args:
        limits: The limits of its namespace; without any, the defaults with exact timeouts.
        cuts: Whether what a step changed is stored right after it.
        key: Of the workflow.
        rows: Where it is stored; None for rows of its own.
    """

    def __init__(
        self, *, limits: Limits | None = None, cuts: bool = True, key: WorkflowKey = KEY, rows: Rows | None = None
    ) -> None:
        self.key = key
        self.now = NOW
        self.limits = limits or EXACT
        self.namespace = NamespaceRecord(KEY.namespace_id, "default", 1, "", "", {}, 86_400, NOW, {"Colour": 2})
        self.workflow = Workflow(key)
        self.rows = rows or Rows()
        self.effects: list[Effect] = []
        self.last_step = Step(None)
        self.writes: list[EntityWrite] = []
        self.cuts = cuts
        self._ids = count(1)

    # --- the loop -----------------------------------------------------------------------------------------------------

    def do(self, given: Input) -> object:
        """Take a step and check everything about it."""
        check = StepCheck(self.workflow, self.events_of)
        try:
            step = self.workflow.step(given, self._world())
        except Refusal:
            check.nothing_changed()
            raise
        self.last_step = step
        self.effects = step.effects
        check.step_is_sound(given, step)
        if self.cuts:
            self.cut()
        return step.reply

    def cut(self) -> EntityWrite:
        """Store what changed since the last cut, and check that it gives the same workflow back."""
        write = self.workflow.take_write()
        self.writes.append(write)
        self.rows.apply(write)
        self.rows.check_same(self.workflow)
        return write

    def crash(self) -> None:
        """Forget what was not cut, and read the workflow anew."""
        self.workflow = Workflow(self.key)
        for stored in self.rows.runs(self.key):
            self.workflow.add(restore(stored))

    def forget_old_runs(self) -> None:
        """Let only the current run stay in memory."""
        self.workflow.drop_old_runs()

    def wait(self, seconds: float) -> None:
        """Let time pass; alarms ring when they are due."""
        end = self.now + nanos(seconds)
        while (due := self.next_due()) is not None and due[0] <= end:
            self.now = max(self.now, due[0])
            self.do(AlarmDue(due[1]))
        self.now = end

    def ring(self, run_id: str = "") -> None:
        """Wake the run now, due or not."""
        self.do(AlarmDue(run_id))

    def next_due(self) -> tuple[int, str] | None:
        due = [
            (alarm, run.run_id)
            for run in self.workflow.runs.values()
            if not run.changes.deleted and (alarm := run.first_alarm()) is not None
        ]
        return min(due, default=None)

    def _world(self) -> Circumstances:
        return Circumstances(self.now, self.new_run_id, self.new_nonce, self.namespace, self.limits)

    def new_run_id(self) -> str:
        if self.key == KEY:
            return f"run-{next(self._ids)}"
        return f"00000000-0000-7000-8000-{crc32(self.key.workflow_id.encode()):08x}{next(self._ids):04x}"

    def new_nonce(self) -> str:
        return f"nonce-{next(self._ids)}"

    # --- clients ------------------------------------------------------------------------------------------------------

    def start(self, **fields: object) -> StartReply:
        given = {"workflow_id": self.key.workflow_id, **_start_fields(fields)}
        return _as(StartReply, self.do(Start("", build(StartWorkflowExecutionRequest, given))))

    def signal_with_start(self, **fields: object) -> StartReply:
        given = {"workflow_id": self.key.workflow_id, "signal_name": "paid", **_start_fields(fields)}
        request = build(SignalWithStartWorkflowExecutionRequest, given)
        return _as(StartReply, self.do(SignalWithStart("", request)))

    def signal(self, name: str = "paid", *, request_id: str = "", run_id: str = "") -> None:
        request = SignalWorkflowExecutionRequest(
            signal_name=name, input=payloads("card"), identity="client", request_id=request_id
        )
        self.do(Signal(run_id, request))

    def cancel(self, *, run_id: str = "", first_run_id: str = "") -> None:
        request = RequestCancelWorkflowExecutionRequest(
            identity="client", reason="changed my mind", first_execution_run_id=first_run_id
        )
        self.do(RequestCancel(run_id, request))

    def terminate(self, *, run_id: str = "", first_run_id: str = "") -> None:
        request = TerminateWorkflowExecutionRequest(
            identity="client", reason="enough", details=payloads("why"), first_execution_run_id=first_run_id
        )
        self.do(Terminate(run_id, request))

    def describe(self, run_id: str = "") -> DescribeWorkflowExecutionResponse:
        return _as(DescribeWorkflowExecutionResponse, self.do(Describe(run_id)))

    def query(
        self,
        query_id: str = "q1",
        *,
        run_id: str = "",
        reject: QueryRejectCondition.ValueType = QueryRejectCondition.QUERY_REJECT_CONDITION_NONE,
        waits: float = 30,
    ) -> object:
        query = WorkflowQuery(query_type="status")
        return self.do(Query(run_id, query_id, query, reject, self.now + nanos(waits)))

    # --- workflow workers ---------------------------------------------------------------------------------------------

    def poll(self, *, run_id: str = "", sticky_queue: str = "") -> WorkflowTaskStarted:
        given = StartWorkflowTask(run_id or self.run.run_id, "worker", "poll-request", sticky_queue)
        return _as(WorkflowTaskStarted, self.do(given))

    def complete(
        self,
        task: WorkflowTaskStarted,
        *commands: Command,
        sticky: bool = False,
        sticky_timeout: float = 5,
        **fields: object,
    ) -> WorkflowTaskCompleted:
        request = build(RespondWorkflowTaskCompletedRequest, {"identity": "worker", "commands": commands, **fields})
        if sticky:
            request.sticky_attributes.CopyFrom(sticky_attributes(sticky_timeout))
        token = token_of(task)
        return _as(WorkflowTaskCompleted, self.do(CompleteWorkflowTask(token.run_id, token, request)))

    def fail(
        self,
        task: WorkflowTaskStarted,
        message: str = "bug in the workflow",
        cause: WorkflowTaskFailedCause.ValueType = _UNHANDLED_FAILURE,
    ) -> None:
        request = RespondWorkflowTaskFailedRequest(identity="worker", cause=cause, failure=Failure(message=message))
        token = token_of(task)
        self.do(FailWorkflowTask(token.run_id, token, request))

    def take_back(self, task: WorkflowTaskStarted) -> None:
        token = token_of(task)
        self.do(ReturnWorkflowTask(token.run_id, token))

    def decide(self, *commands: Command, **fields: object) -> WorkflowTaskCompleted:
        """Poll the workflow task and complete it."""
        return self.complete(self.poll(), *commands, **fields)  # type: ignore[arg-type]  # passed through

    # --- activity workers ---------------------------------------------------------------------------------------------

    def poll_activity(self, activity_id: str = "a") -> PollActivityTaskQueueResponse:
        given = StartActivity(self.run.run_id, self.run.activity_ids[activity_id], "worker", "poll-request")
        return _as(ActivityTaskStarted, self.do(given)).response

    def complete_activity(self, task: PollActivityTaskQueueResponse | str, result: str = "paid") -> None:
        token = self._activity_token(task)
        request = RespondActivityTaskCompletedRequest(identity="worker", result=payloads(result))
        self.do(CompleteActivity(token.run_id, token, request))

    def fail_activity(self, task: PollActivityTaskQueueResponse | str, failure: Failure, **fields: object) -> None:
        token = self._activity_token(task)
        given = {"identity": "worker", "failure": failure, **fields}
        self.do(FailActivity(token.run_id, token, build(RespondActivityTaskFailedRequest, given)))

    def cancel_activity(self, task: PollActivityTaskQueueResponse | str) -> None:
        token = self._activity_token(task)
        request = RespondActivityTaskCanceledRequest(identity="worker", details=payloads("cleaned up"))
        self.do(CancelActivity(token.run_id, token, request))

    def heartbeat(
        self, task: PollActivityTaskQueueResponse | str, details: str = "", identity: str = "worker"
    ) -> HeartbeatReply:
        token = self._activity_token(task)
        data = payloads(details).SerializeToString() if details else b""
        return _as(HeartbeatReply, self.do(HeartbeatActivity(token.run_id, token, data, identity)))

    def take_back_activity(self, task: PollActivityTaskQueueResponse) -> None:
        token = self._activity_token(task)
        self.do(ReturnActivity(token.run_id, token))

    def _activity_token(self, task: PollActivityTaskQueueResponse | str) -> ActivityToken:
        if isinstance(task, str):
            return ActivityToken(*self.key, self.run.run_id, 0, task, 0, "")
        return decode_activity(task.task_token)

    # --- what happened ------------------------------------------------------------------------------------------------

    @property
    def run(self) -> Run:
        """The current run."""
        assert self.workflow.current is not None
        return self.workflow.current

    def run_of(self, run_id: str) -> Run:
        return self.workflow.runs[run_id]

    def events_of(self, run: Run) -> list[HistoryEvent]:
        """Return a run's whole history: what is stored and what is not cut yet."""
        events = [*self.rows.events(run.run_id), *(event.data for event in run.changes.events)]
        return [HistoryEvent.FromString(data) for data in events]

    def history(self, run_id: str = "") -> list[HistoryEvent]:
        return self.events_of(self.workflow.runs[run_id] if run_id else self.run)

    def names(self, run_id: str = "") -> list[str]:
        """Return the types of the events, short: `TimerFired`."""
        return [name_of(event) for event in self.history(run_id)]

    def last(self, attributes_class: type[T], run_id: str = "") -> T:
        """Return the attributes of the last event of a type."""
        for event in reversed(self.history(run_id)):
            attributes = attributes_of(event)
            if isinstance(attributes, attributes_class):
                return attributes
        raise AssertionError(f"no {attributes_class.__name__} in {self.names(run_id)}")

    def effects_of(self, effect_class: type[T]) -> list[T]:
        """Return the effects of one type of the last step."""
        return [effect for effect in self.effects if isinstance(effect, effect_class)]

    def rows_of(self, run_id: str = "") -> bytes:
        """Return a run's stored rows as bytes, to compare."""
        wanted = run_id or self.run.run_id
        return msgspec.msgpack.encode([stored for stored in self.rows.runs(self.key) if stored.run.run_id == wanted])


def token_of(task: WorkflowTaskStarted) -> WorkflowTaskToken:
    """Return a workflow task's token, read."""
    return decode_workflow_task(task.response.task_token)


def name_of(event: HistoryEvent) -> str:
    """Return an event's type, short: `TimerFired`."""
    return EventType.Name(event.event_type).removeprefix("EVENT_TYPE_").title().replace("_", "")


def sticky_attributes(seconds: float) -> StickyExecutionAttributes:
    attributes = StickyExecutionAttributes(worker_task_queue=TaskQueue(name=STICKY))
    attributes.schedule_to_start_timeout.FromNanoseconds(nanos(seconds))
    return attributes


def _start_fields(fields: dict[str, object]) -> dict[str, object]:
    """Fill in what the border would: a start request the core takes."""
    defaults = build(StartWorkflowExecutionRequest, {})
    defaults.workflow_task_timeout.FromSeconds(10)
    return {
        "workflow_type": WorkflowType(name="Order"),
        "task_queue": TaskQueue(name=QUEUE),
        "workflow_task_timeout": defaults.workflow_task_timeout,
        "input": payloads("book"),
        "identity": "client",
        **fields,
    }


def _as(expected: type[T], reply: object) -> T:
    assert isinstance(reply, expected), reply
    return reply
