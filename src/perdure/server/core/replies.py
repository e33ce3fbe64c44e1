"""What the core answers to inputs, where the answer is more than nothing. Data only."""

from __future__ import annotations

import msgspec
from temporalio.api.workflowservice.v1 import PollActivityTaskQueueResponse, PollWorkflowTaskQueueResponse

from perdure.server.core.errors import Refusal


class StaleTask(Refusal):
    """The offered task is not ready (any more): it was started, or its run moved on. Never seen by a client."""


class HistorySlice(msgspec.Struct, gc=False):
    """Which events go with a task: durable ones `first_event_id` to `end_event_id - 1`, then `virtual`.

    `virtual` are serialised events that are not in history yet: the Scheduled and Started pair of a task whose start is
    only held in memory.
    """

    run_id: str
    first_event_id: int
    end_event_id: int
    virtual: list[bytes]


class WorkflowTaskStarted(msgspec.Struct, gc=False):
    """A started workflow task: the poll's reply without its history, serialised."""

    token: bytes
    data: bytes
    history: HistorySlice
    is_repeated: bool = False
    """It went out with an earlier reply already, so a worker may have it: it is not taken back."""

    @property
    def response(self) -> PollWorkflowTaskQueueResponse:
        """The reply as a message, for who wants to look into it."""
        return PollWorkflowTaskQueueResponse.FromString(self.data)


class ActivityTaskStarted(msgspec.Struct, gc=False):
    """A started attempt of an activity: the poll's reply, serialised."""

    token: bytes
    data: bytes

    @property
    def response(self) -> PollActivityTaskQueueResponse:
        """The reply as a message, for who wants to look into it."""
        return PollActivityTaskQueueResponse.FromString(self.data)


class QueryTask(msgspec.Struct, gc=False):
    """A direct query for a worker: the poll's reply without its history."""

    response: PollWorkflowTaskQueueResponse
    history: HistorySlice


class WorkflowTaskCompleted(msgspec.Struct):
    """The answer to a completed workflow task: the inline next task and eagerly started activities, if any."""

    next_task: WorkflowTaskStarted | None
    activities: list[ActivityTaskStarted]
    refusal: Refusal | None = None
    """Set where the task was failed for a bad command: committed, and told to the worker afterwards."""


class StartReply(msgspec.Struct, gc=False):
    """The answer to a start."""

    run_id: str
    started: bool
    """Whether this request made the run (or a repeat of it, by request id)."""
    status: int
    eager_task: WorkflowTaskStarted | None = None


class RunPosition(msgspec.Struct):
    """Where a run stands, counting durable events only."""

    run_id: str
    next_event_id: int
    status: int
    virtual: list[bytes] = []
    """The events of its workflow task that are not in history yet, serialised; workers are shown them, people not."""


class QueryAdmitted(msgspec.Struct):
    """The query waits for a worker."""

    run_id: str


class QueryRejected(msgspec.Struct):
    """The caller's reject condition holds."""

    status: int


class HeartbeatReply(msgspec.Struct):
    """What a heartbeat tells the worker."""

    cancel_requested: bool
    paused: bool = False
    reset: bool = False
