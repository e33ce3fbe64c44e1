"""What must happen outside once a transition is durable: a closed set, performed in order after the commit.

Effects are hints about state that is already stored. Losing one loses time, never work: the indexes of ready tasks and
alarms find it again. Data only.
"""

from __future__ import annotations

import msgspec
from temporalio.api.query.v1 import WorkflowQueryResult

from perdure.server.core.messages import Message
from perdure.server.core.records import WorkflowKey


class WorkflowTaskReady(msgspec.Struct, gc=False):
    """The run's workflow task waits in `task_queue`. `sticky` queues are given up when nobody polls them."""

    key: WorkflowKey
    run_id: str
    task_queue: str
    sticky: bool
    ready_at: int


class ActivityTaskReady(msgspec.Struct, gc=False):
    """An activity waits in `task_queue`."""

    key: WorkflowKey
    run_id: str
    task_queue: str
    scheduled_event_id: int
    ready_at: int


class QueryReady(msgspec.Struct, gc=False):
    """A query waits for any worker of `task_queue`; there is no workflow task it could go with."""

    key: WorkflowKey
    run_id: str
    task_queue: str
    sticky: bool
    query_id: str


class QueryAnswered(msgspec.Struct, gc=False):
    """A query has its answer, or failed for a reason of its own."""

    query_id: str
    result: WorkflowQueryResult | None
    problem: str
    """Why there is no result where the worker gave none; empty otherwise."""


class AlarmSet(msgspec.Struct, gc=False):
    """The run wants to be woken at `due`, not when it said before; None: not at all."""

    key: WorkflowKey
    run_id: str
    due: int | None
    is_stored: bool
    """Whether the index of alarms has one as early; what is only in memory, as a held start, has none there."""


class HistoryAdvanced(msgspec.Struct, gc=False):
    """The run has new durable events, or is closed."""

    run_id: str


class HistoryGrowsLarge(msgspec.Struct, gc=False):
    """Operators should hear of it: the run comes near the limit at which it is terminated."""

    key: WorkflowKey
    run_id: str
    events: int
    size_bytes: int


class MessageSent(msgspec.Struct, gc=False):
    """A message to another workflow id waits to be delivered."""

    message: Message


class MessageWithdrawn(msgspec.Struct, gc=False):
    """A message need not be delivered any more."""

    sender_run_id: str
    receiver: WorkflowKey
    number: int


Effect = (
    WorkflowTaskReady
    | ActivityTaskReady
    | QueryReady
    | QueryAnswered
    | AlarmSet
    | HistoryAdvanced
    | HistoryGrowsLarge
    | MessageSent
    | MessageWithdrawn
)
