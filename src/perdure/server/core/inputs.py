"""Everything that can happen to a workflow entity: an RPC, a due alarm, a worker's answer. All enter the same loop.

An input carries the protocol's own request message where there is one, already validated and with its defaults filled
in by its handler. The core fills in the defaults of a completed task's commands, in place, and changes nothing else of
it; so an input may be submitted again. `run_id` names a run, empty the current one. This module
holds data only.
"""

from __future__ import annotations

import msgspec
from temporalio.api.enums.v1 import QueryRejectCondition
from temporalio.api.query.v1 import WorkflowQuery, WorkflowQueryResult
from temporalio.api.workflowservice.v1 import (
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

from perdure.server.core.messages import Answer, Message
from perdure.server.core.records import InboxRecord
from perdure.server.core.tokens import ActivityToken, WorkflowTaskToken


class Input(msgspec.Struct, gc=False):
    """The base of all inputs. A read changes nothing; its answer still waits for what it has seen to be durable."""

    run_id: str
    """Which run it is for; empty for the current one."""


# --- clients ----------------------------------------------------------------------------------------------------------


class Start(Input):
    """StartWorkflowExecution. Reply: `StartReply`."""

    request: StartWorkflowExecutionRequest


class SignalWithStart(Input):
    """SignalWithStartWorkflowExecution. Reply: `StartReply`."""

    request: SignalWithStartWorkflowExecutionRequest


class Signal(Input):
    """SignalWorkflowExecution. Reply: None."""

    request: SignalWorkflowExecutionRequest


class RequestCancel(Input):
    """RequestCancelWorkflowExecution. Reply: None."""

    request: RequestCancelWorkflowExecutionRequest


class Terminate(Input):
    """TerminateWorkflowExecution. Reply: None."""

    request: TerminateWorkflowExecutionRequest


class Delete(Input):
    """DeleteWorkflowExecution: an open run is terminated first, then nothing of the run stays. Reply: None."""


class EndRetention(Input):
    """Nothing of a closed run stays, if its namespace keeps closed runs no longer. Reply: whether it is deleted."""


class ResetStickiness(Input):
    """ResetStickyTaskQueue: the next workflow task goes to the run's own task queue. Reply: None."""


class Describe(Input):
    """DescribeWorkflowExecution, a read. Reply: DescribeWorkflowExecutionResponse."""


class Locate(Input):
    """A read: which run is it, how far does its history reach, is it closed. Reply: `RunPosition`."""


class Query(Input):
    """QueryWorkflow: admit a query. Reply: `QueryAdmitted` or `QueryRejected`."""

    query_id: str
    query: WorkflowQuery
    reject_condition: QueryRejectCondition.ValueType
    wait_until: int
    """How long its caller waits for the answer, in nanoseconds since the epoch."""


class WithdrawQuery(Input):
    """The caller of a query has gone: forget it. Reply: None."""

    query_id: str


# --- workflow workers -------------------------------------------------------------------------------------------------


class StartWorkflowTask(Input):
    """A poller was matched with the run's workflow task. Reply: `WorkflowTaskStarted`; refuses with `StaleTask`."""

    identity: str
    request_id: str
    sticky_queue: str
    """The sticky queue that was polled, empty for a normal one."""


class TakeQuery(Input):
    """A poller was matched with a direct query. Reply: `QueryTask`; refuses with `StaleTask`."""

    query_id: str
    sticky_queue: str


class ReturnQuery(Input):
    """The poller went away before it had the query: it is offered again. Reply: None."""

    query_id: str


class ReturnWorkflowTask(Input):
    """The poller went away before the reply was handed over: the start is taken back. Reply: None."""

    token: WorkflowTaskToken


class CompleteWorkflowTask(Input):
    """RespondWorkflowTaskCompleted. Reply: `WorkflowTaskCompleted`."""

    token: WorkflowTaskToken
    request: RespondWorkflowTaskCompletedRequest


class FailWorkflowTask(Input):
    """RespondWorkflowTaskFailed. Reply: None."""

    token: WorkflowTaskToken
    request: RespondWorkflowTaskFailedRequest


class AnswerQuery(Input):
    """RespondQueryTaskCompleted for a direct query. Reply: None."""

    query_id: str
    result: WorkflowQueryResult


class StickyWorkerGone(Input):
    """Nobody has polled the sticky queue for a while: offer the ready workflow task in the normal one. Reply: None."""

    sticky_queue: str


# --- activity workers -------------------------------------------------------------------------------------------------


class StartActivity(Input):
    """A poller was matched with a ready activity. Reply: ActivityTaskStarted; refuses with `StaleTask`."""

    scheduled_event_id: int
    identity: str
    request_id: str


class ReturnActivity(Input):
    """The poller went away before the reply was handed over: the start is taken back. Reply: None."""

    token: ActivityToken


class CompleteActivity(Input):
    """RespondActivityTaskCompleted, by token or by id. Reply: None."""

    token: ActivityToken
    request: RespondActivityTaskCompletedRequest


class FailActivity(Input):
    """RespondActivityTaskFailed, by token or by id. Reply: None."""

    token: ActivityToken
    request: RespondActivityTaskFailedRequest


class CancelActivity(Input):
    """RespondActivityTaskCanceled, by token or by id. Reply: None."""

    token: ActivityToken
    request: RespondActivityTaskCanceledRequest


class HeartbeatActivity(Input):
    """RecordActivityTaskHeartbeat, by token or by id. Reply: `HeartbeatReply`."""

    token: ActivityToken
    details: bytes
    """Serialised `Payloads`, empty for none."""
    identity: str


# --- messages between workflow ids ------------------------------------------------------------------------------------


class Deliver(Input):
    """A message has come; `run_id` is that of its body. Reply: `Answer`. It never refuses: a refusal is an answer."""

    message: Message
    received: InboxRecord | None
    """The last message of the same sending run that the store knows to have had an effect here."""


class Acknowledge(Input):
    """The receiver has answered a message that `run_id` sent, which may be gone. Reply: None."""

    message: Message
    answer: Answer


# --- the engine itself ------------------------------------------------------------------------------------------------


class AlarmDue(Input):
    """The run's alarm is due: do what is due by now. Reply: None."""


class ResumeOffers(Input):
    """The run was read anew after its offers may have been lost: make them again. Reply: None."""
