"""What is stored, as plain rows: the shape in which the core hands its changes out and takes a stored run back.

One `EntityWrite` holds all that one entity changed since the last cut; a store writes many of them in one transaction.
All times are integer nanoseconds since the Unix epoch. Protocol messages travel as their serialised bytes. This module
holds data only: no rule, no SQL.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec


class WorkflowKey(NamedTuple):
    """The key of a workflow entity: the consistency unit is the workflow id."""

    namespace_id: str
    workflow_id: str


class Relatives(msgspec.Struct, gc=False, frozen=True, array_like=True):
    """The parent of a run that another workflow started, and the root of that family."""

    parent_namespace_id: str
    parent_workflow_id: str
    parent_run_id: str
    root_workflow_id: str
    root_run_id: str


class RunRecord(msgspec.Struct, gc=False):
    """One row per run, rewritten by every transition of it.

    `version` is the row's version after this write; a store writes it only where the stored version is one less per
    write since (it compares with `stored_version`), and refuses the batch otherwise. `alarm_at` is the time at which
    the run must be woken (None: never). `task_ready_queue` names the task queue in which the run's workflow task waits
    for a poller (None: no task is ready); it may be a sticky queue. `state` is opaque to the store.
    """

    namespace_id: str
    workflow_id: str
    run_id: str
    stored_version: int
    """The version the store holds; 0 for a run it does not hold yet."""
    version: int
    is_current: bool
    """Whether this is the latest run of its workflow id; at most one is."""
    status: int
    """A `WorkflowExecutionStatus`."""
    workflow_type: str
    task_queue: str
    started_at: int
    execution_at: int
    """Start time plus the first backoff."""
    closed_at: int | None
    next_event_id: int
    history_size_bytes: int
    transition_count: int
    alarm_at: int | None
    task_state: str
    """Of the workflow task: `none`, `scheduled` or `started`."""
    task_attempt: int
    task_scheduled_at: int | None
    task_started_at: int | None
    task_ready_queue: str | None
    task_ready_at: int | None
    memo: bytes
    """A serialised `Memo`; empty for none."""
    search_attributes: bytes
    """A serialised `SearchAttributes`; empty for none."""
    state: bytes


class EventRecord(NamedTuple):
    """One history event; `data` is the serialised `HistoryEvent`."""

    run_id: str
    event_id: int
    event_type: int
    event_at: int
    data: bytes


class ActivityRecord(NamedTuple):
    """One pending activity. `ready_at` is the time from which it may be dispatched, None while it is started."""

    run_id: str
    scheduled_event_id: int
    namespace_id: str
    workflow_id: str
    activity_id: str
    activity_type: str
    task_queue: str
    status: str
    """`scheduled`, `backing_off` or `started`."""
    cancel_requested: bool
    attempt: int
    ready_at: int | None
    scheduled_at: int
    started_at: int | None
    last_heartbeat_at: int | None
    last_failure: str | None
    """The message of the last failure, for people."""
    last_worker: str | None
    state: bytes


class TimerRecord(NamedTuple):
    """One running timer."""

    run_id: str
    timer_id: str
    started_event_id: int
    fires_at: int


class BufferedEventRecord(NamedTuple):
    """One event that waits for the started workflow task to end; it has no event id yet."""

    run_id: str
    position: int
    data: bytes


class RequestRecord(NamedTuple):
    """A request id the run has accepted, so that a repeated request is known as such."""

    run_id: str
    request_id: str


class ChildRecord(NamedTuple):
    """One pending child workflow of a run."""

    run_id: str
    initiated_event_id: int
    namespace_id: str
    workflow_id: str
    """The parent's."""
    child_workflow_id: str
    child_run_id: str | None
    """The first run of the child, None while it is not known to have started."""
    child_workflow_type: str
    started_event_id: int
    """0 while that event is not there, or waits for the started workflow task to end."""
    initiated_at: int


class OutboxRecord(NamedTuple):
    """One message that its receiver has not acknowledged, by (run_id, number). It outlives the run that sent it."""

    run_id: str
    number: int
    namespace_id: str
    workflow_id: str
    receiver_namespace_id: str
    receiver_workflow_id: str
    kind: str
    initiated_event_id: int
    """The sender's event that the message belongs to; 0 for none."""
    sent_at: int
    body: bytes


class InboxRecord(NamedTuple):
    """The last message of one run that had an effect on a workflow id, while the sender still has it in its outbox."""

    sender_run_id: str
    namespace_id: str
    workflow_id: str
    number: int
    run_id: str
    """The run it had its effect on."""


class MailWrite(msgspec.Struct, gc=False):
    """What one entity changed of its dealings with other workflow ids."""

    children: list[ChildRecord] = []
    """Rows to insert or replace, by (run_id, initiated_event_id)."""
    children_removed: list[tuple[str, int]] = []
    outbox: list[OutboxRecord] = []
    outbox_removed: list[tuple[str, int]] = []
    inbox: list[InboxRecord] = []
    """Rows to insert or replace, by (sender_run_id, namespace_id, workflow_id)."""
    inbox_removed: list[tuple[str, str, str, int]] = []
    """Rows to remove, by their key, unless their number is greater: a message's row goes with that of the outbox."""


class EntityWrite(msgspec.Struct, gc=False):
    """All that one entity changed since the last cut. Valid or nothing: a store applies all of it or none."""

    key: WorkflowKey
    runs: list[RunRecord] = []
    runs_advanced: list[str] = []
    """Run ids of `runs` that only came further: place, status, close, memo and search attributes are stored already."""
    events: list[EventRecord] = []
    activities: list[ActivityRecord] = []
    """Rows to insert or replace, by (run_id, scheduled_event_id)."""
    activities_removed: list[tuple[str, int]] = []
    timers: list[TimerRecord] = []
    timers_removed: list[tuple[str, str]] = []
    buffered_cleared: list[str] = []
    """Run ids whose buffered events are all removed, before `buffered` is written."""
    buffered: list[BufferedEventRecord] = []
    requests: list[RequestRecord] = []
    runs_closed: list[str] = []
    """Run ids whose activities, timers and buffered events are all removed, after everything above: those that had any.

    Request ids stay as long as the history: a repeated request is answered the same before and after the close.
    """
    runs_deleted: list[str] = []
    """Run ids of which nothing stays: visibility, pending things, request ids and history; after everything above."""
    histories_discarded: list[str] = []
    """Those of `runs_deleted` whose events and request ids are too many to go in one transaction with others.

    They stay for the moment, noted as a `DiscardedHistory`, and go piece by piece.
    """
    mail: MailWrite | None = None
    """What the entity has to do with others; None where that is nothing."""


class StoredActivity(NamedTuple):
    """A pending activity with the history event that scheduled it."""

    record: ActivityRecord
    scheduled_event: bytes


class StoredChild(NamedTuple):
    """A pending child workflow with the history event that asked for it."""

    record: ChildRecord
    initiated_event: bytes


class StoredMessage(NamedTuple):
    """What a run must know of a message that is not acknowledged: its number, its kind and the event it belongs to."""

    number: int
    kind: str
    initiated_event_id: int
    initiated_event: bytes
    """Empty where it belongs to none."""


class StoredRun(msgspec.Struct):
    """A run as the store gives it back: its row, its first event and everything pending, each in key order."""

    run: RunRecord
    """With `stored_version` equal to `version`."""
    started_event: bytes
    activities: list[StoredActivity] = []
    timers: list[TimerRecord] = []
    buffered: list[BufferedEventRecord] = []
    request_ids: list[str] = []
    children: list[StoredChild] = []
    messages: list[StoredMessage] = []
    """Undelivered ones of this run."""


class DiscardedHistory(NamedTuple):
    """The events and request ids of a run that is deleted, as long as some of them are left."""

    run_id: str
    namespace_id: str
    workflow_id: str


class NamespaceRecord(msgspec.Struct):
    """A namespace: its configuration, not its workflows."""

    namespace_id: str
    name: str
    state: int
    """A `NamespaceState`: registered, deprecated or deleted."""
    description: str
    owner_email: str
    data: dict[str, str]
    retention_seconds: int
    created_at: int
    search_attributes: dict[str, int] = {}
    """Custom search attributes: name to `IndexedValueType`."""
    delete_delay_seconds: int | None = None
    """How long it stays when all its runs are deleted; None for a namespace that nobody has asked to delete."""
    drained_at: int | None = None
    """Since when it has no runs, of one that is being deleted and stays for a while."""
