"""One step of one run: appends its events, buffers those that must wait, and collects the effects.

`record` is the only way to an event. Everything a machine decides goes through here, so that the rule of buffering, the
event ids and the durable start of a held workflow task are kept in one place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import msgspec
from google.protobuf.message import Message
from temporalio.api.common.v1 import Link
from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import (
    ActivityTaskCanceledEventAttributes,
    ActivityTaskCompletedEventAttributes,
    ActivityTaskFailedEventAttributes,
    ActivityTaskStartedEventAttributes,
    ActivityTaskTimedOutEventAttributes,
    ChildWorkflowExecutionCanceledEventAttributes,
    ChildWorkflowExecutionCompletedEventAttributes,
    ChildWorkflowExecutionFailedEventAttributes,
    ChildWorkflowExecutionStartedEventAttributes,
    ChildWorkflowExecutionTerminatedEventAttributes,
    ChildWorkflowExecutionTimedOutEventAttributes,
)
from temporalio.api.sdk.v1 import UserMetadata

from perdure.server.core.effects import AlarmSet, Effect, HistoryAdvanced
from perdure.server.core.events import Event, build_event, event_type_of
from perdure.server.core.limits import Limits
from perdure.server.core.records import EventRecord, NamespaceRecord
from perdure.server.core.run import Run, apply

TAIL_BYTES_MAX: Final = 256 * 1024
"""How much recent history a run keeps in memory; older events are read from the store."""

_UNBUFFERED: Final = frozenset(
    EventType.Value(f"EVENT_TYPE_{name}")
    for name in (
        # What starts or closes the run.
        "WORKFLOW_EXECUTION_STARTED",
        "WORKFLOW_EXECUTION_COMPLETED",
        "WORKFLOW_EXECUTION_FAILED",
        "WORKFLOW_EXECUTION_TIMED_OUT",
        "WORKFLOW_EXECUTION_TERMINATED",
        "WORKFLOW_EXECUTION_CONTINUED_AS_NEW",
        "WORKFLOW_EXECUTION_CANCELED",
        # The workflow task itself.
        "WORKFLOW_TASK_SCHEDULED",
        "WORKFLOW_TASK_STARTED",
        "WORKFLOW_TASK_COMPLETED",
        "WORKFLOW_TASK_FAILED",
        "WORKFLOW_TASK_TIMED_OUT",
        # What commands and update messages make.
        "ACTIVITY_TASK_SCHEDULED",
        "ACTIVITY_TASK_CANCEL_REQUESTED",
        "TIMER_STARTED",
        "TIMER_CANCELED",
        "REQUEST_CANCEL_EXTERNAL_WORKFLOW_EXECUTION_INITIATED",
        "MARKER_RECORDED",
        "START_CHILD_WORKFLOW_EXECUTION_INITIATED",
        "SIGNAL_EXTERNAL_WORKFLOW_EXECUTION_INITIATED",
        "UPSERT_WORKFLOW_SEARCH_ATTRIBUTES",
        "WORKFLOW_PROPERTIES_MODIFIED",
        "NEXUS_OPERATION_SCHEDULED",
        "NEXUS_OPERATION_CANCEL_REQUESTED",
        "WORKFLOW_EXECUTION_UPDATE_ACCEPTED",
        "WORKFLOW_EXECUTION_UPDATE_COMPLETED",
    )
)

_FLUSHED_LAST: Final = frozenset(
    EventType.Value(f"EVENT_TYPE_{name}")
    for name in (
        "ACTIVITY_TASK_COMPLETED",
        "ACTIVITY_TASK_FAILED",
        "ACTIVITY_TASK_TIMED_OUT",
        "ACTIVITY_TASK_CANCELED",
        "CHILD_WORKFLOW_EXECUTION_COMPLETED",
        "CHILD_WORKFLOW_EXECUTION_FAILED",
        "CHILD_WORKFLOW_EXECUTION_TIMED_OUT",
        "CHILD_WORKFLOW_EXECUTION_CANCELED",
        "CHILD_WORKFLOW_EXECUTION_TERMINATED",
        "NEXUS_OPERATION_COMPLETED",
        "NEXUS_OPERATION_FAILED",
        "NEXUS_OPERATION_CANCELED",
        "NEXUS_OPERATION_TIMED_OUT",
    )
)


CLOSES_ACTIVITY: Final = (
    ActivityTaskCompletedEventAttributes,
    ActivityTaskFailedEventAttributes,
    ActivityTaskTimedOutEventAttributes,
    ActivityTaskCanceledEventAttributes,
)

_CLOSES_CHILD: Final = (
    ChildWorkflowExecutionCompletedEventAttributes,
    ChildWorkflowExecutionFailedEventAttributes,
    ChildWorkflowExecutionTimedOutEventAttributes,
    ChildWorkflowExecutionCanceledEventAttributes,
    ChildWorkflowExecutionTerminatedEventAttributes,
)


class Circumstances(msgspec.Struct, gc=False):
    """What a step is given of the world: the time, fresh ids, the namespace and its limits."""

    now: int
    new_run_id: Callable[[], str]
    new_nonce: Callable[[], str]
    namespace: NamespaceRecord
    limits: Limits


class Transition(msgspec.Struct, gc=False):
    """One step of one run."""

    run: Run
    world: Circumstances
    now: int
    identity: str = ""
    """Who asks for this step; empty for the server itself."""
    effects: list[Effect] = []
    is_dirty: bool = False
    """Whether anything durable changed that counts as a transition of the run."""
    is_row_dirty: bool = False
    """Whether only the bookkeeping of a row changed."""
    holds_new_start: bool = False
    """A workflow task was started in this very step: writing its start is no transition of its own."""
    eager_activities: list[int] = []
    """Activities of this step that the completing worker wants to run itself."""
    successor: Transition | None = None
    """The first step of the run that follows this one, in the same transaction."""

    def touch(self) -> None:
        """Note that something durable changed that is not an event."""
        self.is_dirty = True

    def touch_row(self) -> None:
        """Note that a row must be written although nothing happened to the run: it is no transition."""
        self.run.changes.is_dirty = True
        self.is_row_dirty = True

    def touch_activity(self, scheduled_event_id: int) -> None:
        """Note that a pending activity's row changed."""
        self.run.changes.activities.add(scheduled_event_id)
        self.is_dirty = True

    def record(
        self,
        attributes: Message,
        *,
        at: int | None = None,
        user_metadata: UserMetadata | None = None,
        links: Sequence[Link] = (),
    ) -> Event:
        """Record a fact: append it to history, or buffer it while a workflow task is started.

        Args:
            attributes: The event's attributes; their class says its type.
            at: The event's time where it is not this step's.
            user_metadata: Summary and details the caller gave.
            links: Links the caller gave.

        Returns:
            The event; its id is 0 while it is buffered.
        """
        event = build_event(0, self.now if at is None else at, attributes)
        if user_metadata is not None and user_metadata.ByteSize():
            event.user_metadata = user_metadata
        if links:
            event.links = links
        return self.record_event(event)

    def record_event(self, event: Event) -> Event:
        """Record an event that was built already; its id is set here."""
        self.is_dirty = True
        run = self.run
        if event.event_type not in _UNBUFFERED and run.task.is_started:
            run.buffered.append(event)
        else:
            self._append(event)
        apply(run, event)
        return event

    def record_behind_commands(self, attributes: Message) -> None:
        """Record what a command brings about besides its own event; it is appended behind the events of all commands.

        A worker counts one event a command to know the ids of those it will get: nothing may come between them.
        """
        event = build_event(0, self.now, attributes)
        self.is_dirty = True
        self.run.buffered.append(event)
        apply(self.run, event)

    def flush_buffered(self) -> bool:
        """Append what was buffered, closing events last; return whether there was anything.

        The Started and the closing event of an activity or a child are joined here: a buffered event has no id yet.
        """
        run = self.run
        if not run.buffered:
            return False
        started_ids: dict[int, int] = {}
        for event in sorted(run.buffered, key=_flush_rank):
            _join_to_started(event, started_ids)
            self._append(event)
            if isinstance(event.attributes, ActivityTaskStartedEventAttributes):
                started_ids[event.attributes.scheduled_event_id] = event.event_id
            elif run.mail is not None and isinstance(event.attributes, ChildWorkflowExecutionStartedEventAttributes):
                initiated_event_id = event.attributes.initiated_event_id
                started_ids[initiated_event_id] = event.event_id
                run.mail.child_got_its_started_event(initiated_event_id, event.event_id)
        run.buffered.clear()
        run.changes.buffered_cleared = True
        run.changes.buffered_from = 0
        return True

    def forget_buffered(self, event: Event) -> None:
        """Take one buffered event back, as if it had not happened yet."""
        self.run.buffered.remove(event)
        self.run.changes.buffered_cleared = True
        self.run.changes.buffered_from = 0
        self.is_dirty = True

    def finish(self) -> None:
        """End the step: count it, lower the stored alarm, and tell those who wait for history."""
        run = self.run
        due = run.first_alarm()
        if self.is_dirty:
            run.transition_count += 1
            run.changes.is_dirty = True
            if due is not None and (run.alarm_at is None or due < run.alarm_at):
                run.alarm_at = due
            self.effects.append(HistoryAdvanced(run.run_id))
        if due != run.told_alarm_at:
            run.told_alarm_at = due
            is_stored = due is not None and run.alarm_at is not None and run.alarm_at <= due
            self.effects.append(AlarmSet(run.key, run.run_id, due, is_stored))

    def _append(self, event: Event) -> None:
        run = self.run
        event_id = event.event_id = run.next_event_id
        data = event.data or event.serialize()
        # Made without the constructor that named tuples are given, a Python function: it costs as much as the rest.
        record = tuple.__new__(EventRecord, (run.run_id, event_id, event.event_type, event.at, data))
        run.changes.events.append(record)
        run.next_event_id = event_id + 1
        run.history_size_bytes += len(data)
        run.tail.append(data)
        run.tail_bytes += len(data)
        if run.tail_bytes > TAIL_BYTES_MAX:
            trim_tail(run)


def trim_tail(run: Run) -> None:
    """Forget old events of a long history; what a cached worker has not seen yet stays as long as it fits."""
    keep_from = max(run.previous_started_event_id, run.tail_first_event_id)
    while run.tail_bytes > TAIL_BYTES_MAX and (
        run.tail_first_event_id < keep_from or run.tail_bytes > 4 * TAIL_BYTES_MAX
    ):
        run.tail_bytes -= len(run.tail.pop(0))
        run.tail_first_event_id += 1


def _flush_rank(event: Event) -> bool:
    return event.event_type in _FLUSHED_LAST


def _join_to_started(event: Event, started_ids: dict[int, int]) -> None:
    attributes = event.attributes
    if isinstance(attributes, CLOSES_ACTIVITY):
        started = started_ids.get(attributes.scheduled_event_id)
        if started is not None:
            attributes.started_event_id = started
    elif isinstance(attributes, _CLOSES_CHILD):
        attributes.started_event_id = started_ids.get(attributes.initiated_event_id, attributes.started_event_id)


def is_buffered_type(attributes_class: type) -> bool:
    """Return whether events of this class wait while a workflow task is started."""
    return event_type_of(attributes_class) not in _UNBUFFERED
