"""The views for people: what runs, what is stuck, since when and why, readable with any SQL client.

Times are UTC text, enum values are names, namespaces go by name. `docs/sql.md` is their manual. The engine itself never
reads a view, and a view must never hold anything of its own.
"""

# ruff: noqa: S608 - the parts are constants of this package.

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from temporalio.api.enums.v1 import EventType, WorkflowExecutionStatus


class ViewDialect(Protocol):
    """What of a view's text differs between databases."""

    def utc(self, column: str) -> str:
        """Return an expression that makes UTC text of a column of nanoseconds, NULL of NULL."""


class View(NamedTuple):
    """A view and its query."""

    name: str
    query: str


def _enum_names(names_by_value: Mapping[int, str], prefix: str) -> dict[int, str]:
    """Write enum names the way Temporal's tools do: EVENT_TYPE_TIMER_FIRED becomes TimerFired."""
    return {
        value: "".join(word.capitalize() for word in name.removeprefix(prefix).split("_"))
        for value, name in names_by_value.items()
    }


STATUS_NAMES: Mapping[int, str] = _enum_names(
    {value: name for name, value in WorkflowExecutionStatus.items()}, "WORKFLOW_EXECUTION_STATUS_"
)
"""`WorkflowExecutionStatus` by value: Running, Completed, TimedOut, ..."""

_EVENT_TYPE_NAMES = _enum_names({value: name for name, value in EventType.items()}, "EVENT_TYPE_")

_OPEN = "status IN (1, 8)"
"""Running or paused; as a list of values so that the index by status serves it. Views that need open runs only join
them to namespaces by CROSS JOIN, which keeps SQLite to that order: it would read all runs first."""


def _name_of(column: str, names: Mapping[int, str]) -> str:
    branches = " ".join(f"WHEN {value} THEN '{name}'" for value, name in names.items())
    return f"CASE {column} {branches} ELSE CAST({column} AS TEXT) END"


def views(dialect: ViewDialect) -> tuple[View, ...]:
    """Return all views in a database's dialect, each after those it reads."""
    utc = dialect.utc
    return (
        View("workflows", _workflows(dialect)),
        View("pending_activities", _pending_activities(dialect)),
        View("workflow_tasks_not_completed", _workflow_tasks_not_completed(dialect)),
        View(
            "timers",
            f"""
SELECT namespace.name AS namespace, run.workflow_id, run.run_id, run.workflow_type, timer.timer_id,
       timer.started_event_id, {utc("timer.fires_at")} AS fires
FROM timer
JOIN run ON run.run_id = timer.run_id
JOIN namespace ON namespace.namespace_id = run.namespace_id""",
        ),
        View("pending_children", _pending_children(dialect)),
        View("messages", _messages(dialect)),
        View("task_queue_backlog", _task_queue_backlog(dialect)),
        View(
            "history",
            f"""
SELECT namespace.name AS namespace, run.workflow_id, event.run_id, event.event_id,
       {_name_of("event.event_type", _EVENT_TYPE_NAMES)} AS event_type, {utc("event.event_at")} AS time,
       length(event.data) AS size_bytes
FROM event
JOIN run ON run.run_id = event.run_id
JOIN namespace ON namespace.namespace_id = run.namespace_id""",
        ),
        View("waiting", _waiting()),
        View("nodes", _nodes(dialect)),
        View("shards_by_node", _shards_by_node()),
    )


def _workflows(dialect: ViewDialect) -> str:
    utc = dialect.utc
    return f"""
SELECT namespace.name AS namespace, run.workflow_id, run.run_id, run.is_current, run.workflow_type, run.task_queue,
       {_name_of("run.status", STATUS_NAMES)} AS status, {utc("run.started_at")} AS started,
       {utc("run.execution_at")} AS first_task_due, {utc("run.closed_at")} AS closed,
       run.next_event_id - 1 AS history_length, run.history_size_bytes,
       run.transition_count AS state_transition_count,
       run.task_state AS workflow_task, {utc("run.alarm_at")} AS next_alarm
FROM namespace
JOIN run ON run.namespace_id = namespace.namespace_id"""


def _pending_activities(dialect: ViewDialect) -> str:
    utc = dialect.utc
    return f"""
SELECT namespace.name AS namespace, activity.workflow_id, activity.run_id, activity.activity_id,
       activity.activity_type, activity.task_queue, activity.status, activity.attempt, activity.cancel_requested,
       {utc("activity.scheduled_at")} AS scheduled, {utc("activity.ready_at")} AS ready,
       {utc("activity.started_at")} AS started, {utc("activity.last_heartbeat_at")} AS last_heartbeat,
       activity.last_failure, activity.last_worker, activity.scheduled_event_id
FROM namespace
JOIN activity ON activity.namespace_id = namespace.namespace_id"""


def _pending_children(dialect: ViewDialect) -> str:
    utc = dialect.utc
    return f"""
SELECT namespace.name AS namespace, child.workflow_id, child.run_id, child.child_workflow_id, child.child_run_id,
       child.child_workflow_type, CASE WHEN child.child_run_id IS NULL THEN 'initiated' ELSE 'started' END AS status,
       {utc("child.initiated_at")} AS initiated, child.initiated_event_id
FROM child
JOIN namespace ON namespace.namespace_id = child.namespace_id"""


def _messages(dialect: ViewDialect) -> str:
    utc = dialect.utc
    return f"""
SELECT namespace.name AS namespace, outbox.workflow_id, outbox.run_id, outbox.kind,
       coalesce(receiver.name, outbox.receiver_namespace_id) AS to_namespace,
       outbox.receiver_workflow_id AS to_workflow_id, {utc("outbox.sent_at")} AS since, outbox.number,
       outbox.initiated_event_id
FROM outbox
JOIN namespace ON namespace.namespace_id = outbox.namespace_id
LEFT JOIN namespace AS receiver ON receiver.namespace_id = outbox.receiver_namespace_id"""


def _workflow_tasks_not_completed(dialect: ViewDialect) -> str:
    utc = dialect.utc
    return f"""
SELECT namespace.name AS namespace, run.workflow_id, run.run_id, run.workflow_type, run.task_queue,
       run.task_state AS status, run.task_attempt AS attempt, run.task_ready_queue AS ready_in_queue,
       {utc("run.task_scheduled_at")} AS scheduled, {utc("run.task_started_at")} AS started
FROM namespace CROSS JOIN run
WHERE run.namespace_id = namespace.namespace_id AND run.{_OPEN} AND run.task_state <> 'none'"""


def _task_queue_backlog(dialect: ViewDialect) -> str:
    utc = dialect.utc
    return f"""
SELECT namespace.name AS namespace, ready.task_queue, ready.kind, ready.tasks, {utc("ready.oldest_ready_at")} AS oldest
FROM (
    SELECT namespace_id, task_ready_queue AS task_queue, 'workflow' AS kind, count(*) AS tasks,
           min(task_ready_at) AS oldest_ready_at
    FROM run WHERE task_ready_queue IS NOT NULL GROUP BY namespace_id, task_ready_queue
    UNION ALL
    SELECT namespace_id, task_queue, 'activity', count(*), min(ready_at)
    FROM activity WHERE ready_at IS NOT NULL AND status = 'scheduled' GROUP BY namespace_id, task_queue
) AS ready
JOIN namespace ON namespace.namespace_id = ready.namespace_id"""


def _waiting() -> str:
    """One row for each thing an open run waits for, made of the views before it."""
    return f"""
SELECT namespace, workflow_id, run_id, workflow_type, 'workflow task' AS waits_for, workflow_type AS name,
       coalesce(ready_in_queue, task_queue) AS task_queue, coalesce(started, scheduled) AS since,
       NULL AS until, attempt,
       CASE status WHEN 'started' THEN 'a worker has it' ELSE 'no worker has taken it' END AS reason
FROM workflow_tasks_not_completed
UNION ALL
SELECT pending_activities.namespace, pending_activities.workflow_id, pending_activities.run_id, run.workflow_type,
       'activity', pending_activities.activity_type, pending_activities.task_queue,
       coalesce(pending_activities.started, pending_activities.scheduled),
       CASE pending_activities.status WHEN 'backing_off' THEN pending_activities.ready END, pending_activities.attempt,
       CASE pending_activities.status
           WHEN 'started' THEN 'a worker has it'
           WHEN 'backing_off' THEN 'it failed and will be retried'
           ELSE 'no worker has taken it'
       END || coalesce('; last failure: ' || pending_activities.last_failure, '')
FROM pending_activities
JOIN run ON run.run_id = pending_activities.run_id
UNION ALL
SELECT namespace, workflow_id, run_id, workflow_type, 'timer', timer_id, NULL, NULL, fires, NULL, 'it is not due yet'
FROM timers
UNION ALL
SELECT pending_children.namespace, pending_children.workflow_id, pending_children.run_id, run.workflow_type,
       'child workflow', pending_children.child_workflow_type, NULL, pending_children.initiated, NULL, NULL,
       CASE pending_children.status WHEN 'started' THEN 'it has not closed: ' ELSE 'it is being started: ' END
       || pending_children.child_workflow_id
FROM pending_children
JOIN run ON run.run_id = pending_children.run_id
UNION ALL
SELECT messages.namespace, messages.workflow_id, messages.run_id, run.workflow_type, 'delivery', messages.kind, NULL,
       messages.since, NULL, NULL, 'not delivered yet to ' || messages.to_workflow_id
FROM messages CROSS JOIN run
WHERE run.run_id = messages.run_id AND run.{_OPEN}
UNION ALL
SELECT namespace.name, run.workflow_id, run.run_id, run.workflow_type, 'message', NULL, NULL, NULL, NULL, NULL,
       'nothing is pending: only a message from outside can move it'
FROM namespace CROSS JOIN run
WHERE run.namespace_id = namespace.namespace_id AND run.{_OPEN} AND run.task_state = 'none'
  AND NOT EXISTS (SELECT 1 FROM activity WHERE activity.run_id = run.run_id)
  AND NOT EXISTS (SELECT 1 FROM timer WHERE timer.run_id = run.run_id)
  AND NOT EXISTS (SELECT 1 FROM child WHERE child.run_id = run.run_id)
  AND NOT EXISTS (SELECT 1 FROM outbox WHERE outbox.run_id = run.run_id)"""


def _nodes(dialect: ViewDialect) -> str:
    utc = dialect.utc
    return f"""
SELECT member.node, member.release, {utc("member.started_at")} AS started,
       {utc("member.lease_until")} AS lease_until, member.is_leaving,
       (SELECT count(*) FROM shard WHERE shard.owner = member.node) AS shards
FROM member"""


def _shards_by_node() -> str:
    return """
SELECT shard.owner AS node, count(*) AS shards, count(member.node) > 0 AS is_member
FROM shard
LEFT JOIN member ON member.node = shard.owner
GROUP BY shard.owner"""
