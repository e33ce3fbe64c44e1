"""One run of a workflow: its state, and nothing that decides.

State changes only by applying events (`apply`), the same function that rebuilds a run from its history. What history
does not hold is listed in `NOT_IN_HISTORY`: it is what `recorded` leaves out when a rebuilt run is compared to a live
one. This module may hold data and look-ups; a rule in here is in the wrong file.

`gc=False`, here and in the core's other data: none of it refers back to what holds it, so the search for garbage
circles, which cost more than most functions of the engine, need not look at it. What can hold an exception or a future
must not say so.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Final

import msgspec
from temporalio.api.common.v1 import Link, Memo, SearchAttributes
from temporalio.api.enums.v1 import WorkflowExecutionStatus
from temporalio.api.history.v1 import WorkflowExecutionStartedEventAttributes
from temporalio.api.sdk.v1 import UserMetadata

from perdure.server.core.events import Event
from perdure.server.core.records import EventRecord, Relatives, WorkflowKey
from perdure.server.core.registry import alarm_rules, appliers

if TYPE_CHECKING:
    from perdure.server.core.machines.activity import Activity
    from perdure.server.core.machines.query import Queries
    from perdure.server.core.machines.timer import Timer
    from perdure.server.core.machines.workflow_task import WorkflowTask
    from perdure.server.core.mail import Mail

RUNNING: Final = WorkflowExecutionStatus.WORKFLOW_EXECUTION_STATUS_RUNNING

NOT_IN_HISTORY: Final = (
    "workflow task: attempt, held start, nonce, stickiness",
    "activities: attempt, start, nonce, heartbeat, last failure, backoff",
    "buffered events, until they are flushed",
    "request ids of signals and cancel requests",
    "transition count, row versions, alarms",
    "messages: their numbers, and which are not acknowledged",
)


_DEAD_ALARMS: Final = 64
"""How many alarms may be over behind an earlier one, besides as many as are alive, before they are looked through."""


class Changes(msgspec.Struct, gc=False):
    """What transitions changed in a run since the last cut, by key: the rows are made from it when a batch is cut."""

    events: list[EventRecord] = []
    activities: set[int] = set()
    timers: set[str] = set()
    buffered_from: int = 0
    """Buffered events before this position are stored already."""
    buffered_cleared: bool = False
    requests: list[str] = []
    is_dirty: bool = False
    outline: bool = False
    """Whether more of the run's row changed than how far it has come; see `EntityWrite.runs_advanced`."""
    closed: bool = False
    leaves_pending: bool = False
    """Whether rows of activities, timers and buffered events may be stored of the run that closed."""
    deleted: bool = False


NO_MEMO: Final = Memo()
NO_SEARCH_ATTRIBUTES: Final = SearchAttributes()
NO_METADATA: Final = UserMetadata()


class Run(msgspec.Struct, gc=False):
    """The state of one run. Times are nanoseconds since the epoch."""

    key: WorkflowKey
    run_id: str
    start: WorkflowExecutionStartedEventAttributes
    started_at: int
    execution_at: int
    task: WorkflowTask
    queries: Queries
    workflow_type: str
    task_queue: str
    task_timeout: int
    """Of its workflow tasks, start to close. Durations are nanoseconds, 0 for none."""
    run_timeout: int
    execution_timeout: int
    relatives: Relatives | None = None
    """None where no other workflow started it."""
    status: int = RUNNING
    closed_at: int | None = None
    next_event_id: int = 1
    history_size_bytes: int = 0
    memo: Memo = NO_MEMO
    """Like the two that follow shared by most runs, and so replaced, never changed in place."""
    search_attributes: SearchAttributes = NO_SEARCH_ATTRIBUTES
    user_metadata: UserMetadata = NO_METADATA
    """The summary and details of its first event."""
    links: tuple[Link, ...] = ()
    """Those of its first event; the run that follows carries them too."""
    activities: dict[int, Activity] = {}
    activity_ids: dict[str, int] = {}
    timers: dict[str, Timer] = {}
    cancel_requested: bool = False
    signal_count: int = 0
    previous_started_event_id: int = 0
    """The Started event of the last completed workflow task; 0 before the first."""
    last_task_completed_event_id: int = 0
    had_task: bool = False
    """Whether a workflow task was ever scheduled: until then the first-task backoff holds."""
    successor_run_id: str = ""
    build_id: str = ""
    mail: Mail | None = None
    """What it has to do with other workflow ids; None until it first has."""

    # --- not in history -----------------------------------------------------------------------------------------------
    buffered: list[Event] = []
    request_ids: set[str] = set()
    start_request_id: str = ""
    sticky_queue: str = ""
    sticky_timeout: int = 0
    transition_count: int = 0
    is_current: bool = True
    stored_version: int = 0
    """The version of the row the store will hold after the batches cut so far; 0 before the first."""
    alarms: list[tuple[int, str, int | str]] = []
    alarm_at: int | None = None
    """The stored alarm: never later than the first thing due, lowered at once and raised when it fires."""
    told_alarm_at: int | None = -1
    """The alarm the engine was last told; -1 where it must be told again."""
    close_attempted: bool = False
    """Whether its last workflow task, since the run was loaded, would have closed it but for what came meanwhile."""
    has_warned: bool = False
    """Whether operators were told that the history grows large, since the run was loaded."""
    tail: list[bytes] = []
    """The last events, serialised; the first of them is `tail_first_event_id`."""
    tail_first_event_id: int = 1
    tail_bytes: int = 0
    changes: Changes = msgspec.field(default_factory=Changes)

    @property
    def is_open(self) -> bool:
        """Whether the run is still running."""
        return self.status == RUNNING

    @property
    def waits_for_first_task(self) -> bool:
        """Whether the run is within its first-task backoff (start delay, cron, retry)."""
        return not self.had_task and self.execution_at > self.started_at

    def holds_undurable_state(self) -> bool:
        """Whether memory holds something of this run that the store does not: then it must stay in the cache."""
        return self.task.is_held or bool(self.queries.pending)

    def arm(self, kind: str, key: int | str) -> None:
        """Note when this thing is due next, if it is."""
        due = alarm_rules[kind].due_at(self, key)
        if due is None:
            return
        heapq.heappush(self.alarms, (due, kind, key))
        alive = len(self.activities) + len(self.timers) + len(self.queries.pending)
        if len(self.alarms) > 2 * alive + _DEAD_ALARMS:
            self.drop_dead_alarms()

    def may_have_pending_rows(self) -> bool:
        """Whether a row of an activity, a timer or a buffered event of this run may be stored."""
        changes = self.changes
        is_any_pending = bool(self.activities or self.timers or self.buffered)
        return is_any_pending or bool(changes.activities or changes.timers or changes.buffered_cleared)

    def drop_dead_alarms(self) -> None:
        """Forget the alarms of all that is not pending any more."""
        alive: set[tuple[int, str, int | str]] = set()
        for _, kind, key in self.alarms:
            due = alarm_rules[kind].due_at(self, key)
            if due is not None:
                alive.add((due, kind, key))
        self.alarms = list(alive)
        heapq.heapify(self.alarms)

    def first_alarm(self) -> int | None:
        """Return when something of this run is due first, dropping what is not due any more."""
        while self.alarms:
            due, kind, key = self.alarms[0]
            now_due = alarm_rules[kind].due_at(self, key)
            if now_due == due:
                return due
            heapq.heappop(self.alarms)
            if now_due is not None:
                heapq.heappush(self.alarms, (now_due, kind, key))
        return None


def apply(run: Run, event: Event) -> None:
    """Evolve a run by one recorded event. Never refuses: what is recorded has happened."""
    applier = appliers.get(event.event_type)
    if applier is not None:
        applier(run, event, event.attributes)
