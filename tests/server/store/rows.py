"""Rows to write in the tests of stores: complete records of which a test names what it is about."""

from __future__ import annotations

from perdure.server.core.records import (
    ActivityRecord,
    BufferedEventRecord,
    ChildRecord,
    EntityWrite,
    EventRecord,
    InboxRecord,
    MailWrite,
    NamespaceRecord,
    OutboxRecord,
    RequestRecord,
    RunRecord,
    TimerRecord,
    WorkflowKey,
)

NAMESPACE = "namespace-1"
SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND

RUNNING, COMPLETED, FAILED, PAUSED = 1, 2, 3, 8


def key(workflow_id: str, namespace_id: str = NAMESPACE) -> WorkflowKey:
    return WorkflowKey(namespace_id, workflow_id)


def run(
    workflow_id: str,
    run_id: str,
    *,
    namespace_id: str = NAMESPACE,
    stored_version: int = 0,
    version: int | None = None,
    is_current: bool = True,
    status: int = RUNNING,
    workflow_type: str = "Order",
    task_queue: str = "orders",
    started_at: int = START,
    execution_at: int | None = None,
    closed_at: int | None = None,
    next_event_id: int = 3,
    history_size_bytes: int = 100,
    transition_count: int = 1,
    alarm_at: int | None = None,
    task_state: str = "none",
    task_attempt: int = 1,
    task_scheduled_at: int | None = None,
    task_started_at: int | None = None,
    task_ready_queue: str | None = None,
    task_ready_at: int | None = None,
    memo: bytes = b"",
    search_attributes: bytes = b"",
    state: bytes = b"state",
) -> RunRecord:
    """A run's row; its version is one more than the stored one where nothing is said."""
    return RunRecord(
        namespace_id=namespace_id,
        workflow_id=workflow_id,
        run_id=run_id,
        stored_version=stored_version,
        version=stored_version + 1 if version is None else version,
        is_current=is_current,
        status=status,
        workflow_type=workflow_type,
        task_queue=task_queue,
        started_at=started_at,
        execution_at=started_at if execution_at is None else execution_at,
        closed_at=closed_at,
        next_event_id=next_event_id,
        history_size_bytes=history_size_bytes,
        transition_count=transition_count,
        alarm_at=alarm_at,
        task_state=task_state,
        task_attempt=task_attempt,
        task_scheduled_at=task_scheduled_at,
        task_started_at=task_started_at,
        task_ready_queue=task_ready_queue,
        task_ready_at=task_ready_at,
        memo=memo,
        search_attributes=search_attributes,
        state=state,
    )


def event(run_id: str, event_id: int, data: bytes = b"event", *, event_type: int = 1) -> EventRecord:
    return EventRecord(run_id, event_id, event_type, START + event_id, data)


def activity(
    run_id: str,
    scheduled_event_id: int,
    *,
    workflow_id: str = "w",
    namespace_id: str = NAMESPACE,
    task_queue: str = "orders",
    status: str = "scheduled",
    attempt: int = 1,
    ready_at: int | None = START,
    started_at: int | None = None,
    last_failure: str | None = None,
    cancel_requested: bool = False,
    state: bytes = b"activity",
) -> ActivityRecord:
    return ActivityRecord(
        run_id=run_id,
        scheduled_event_id=scheduled_event_id,
        namespace_id=namespace_id,
        workflow_id=workflow_id,
        activity_id=f"a{scheduled_event_id}",
        activity_type="Charge",
        task_queue=task_queue,
        status=status,
        cancel_requested=cancel_requested,
        attempt=attempt,
        ready_at=ready_at,
        scheduled_at=START,
        started_at=started_at,
        last_heartbeat_at=None,
        last_failure=last_failure,
        last_worker=None,
        state=state,
    )


def timer(run_id: str, timer_id: str, *, fires_at: int = START + 60 * SECOND) -> TimerRecord:
    return TimerRecord(run_id, timer_id, 5, fires_at)


def buffered(run_id: str, position: int, data: bytes = b"buffered") -> BufferedEventRecord:
    return BufferedEventRecord(run_id, position, data)


def write(workflow_id: str, *runs: RunRecord, namespace_id: str = NAMESPACE) -> EntityWrite:
    return EntityWrite(key(workflow_id, namespace_id), runs=list(runs))


def namespace(name: str, namespace_id: str = NAMESPACE, *, description: str = "") -> NamespaceRecord:
    return NamespaceRecord(
        namespace_id=namespace_id,
        name=name,
        state=1,
        description=description,
        owner_email="owner@example.org",
        data={"team": "billing"},
        retention_seconds=86_400,
        created_at=START,
        search_attributes={"CustomerId": 2},
    )


def write_to_every_table(run_ids: list[str]) -> EntityWrite:
    """Return a write of the workflow `w` with rows of every table: its first run goes on, its second one completes."""
    changed = write(
        "w",
        run("w", "r0", stored_version=1),
        run("w", "r1", stored_version=1, is_current=False, status=COMPLETED),
    )
    changed.runs_advanced = ["r0"]
    changed.events = [event(run_id, 1) for run_id in run_ids]
    changed.activities = [activity(run_id, 5) for run_id in run_ids]
    changed.activities_removed = [(run_id, 6) for run_id in run_ids]
    changed.timers = [timer(run_id, "t") for run_id in run_ids]
    changed.timers_removed = [(run_id, "gone") for run_id in run_ids]
    changed.buffered_cleared = run_ids
    changed.buffered = [buffered(run_id, 1) for run_id in run_ids]
    changed.requests = [RequestRecord(run_id, "request") for run_id in run_ids]
    changed.mail = MailWrite(
        children=[ChildRecord(run_id, 5, NAMESPACE, "w", "c", None, "t", 0, 1) for run_id in run_ids],
        children_removed=[(run_id, 6) for run_id in run_ids],
        outbox=[OutboxRecord(run_id, 1, NAMESPACE, "w", NAMESPACE, "v", "signal", 5, 1, b"") for run_id in run_ids],
        outbox_removed=[(run_id, 2) for run_id in run_ids],
        inbox=[InboxRecord(run_id, NAMESPACE, "w", 1, "r0") for run_id in run_ids],
        inbox_removed=[(run_id, NAMESPACE, "w", 1) for run_id in run_ids],
    )
    return changed
