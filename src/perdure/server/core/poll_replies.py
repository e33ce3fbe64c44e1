"""Replies to polls as bytes, put together field by field in the order of their numbers.

A worker is told the same few things about every task. To set them in a message part by part, only to serialise it, cost
more than the step that starts the task. This module must never decide anything.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

from temporalio.api.common.v1 import ActivityType, Priority, WorkflowExecution, WorkflowType
from temporalio.api.enums.v1 import TaskQueueKind
from temporalio.api.query.v1 import WorkflowQuery
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import PollActivityTaskQueueResponse, PollWorkflowTaskQueueResponse

from perdure.server.core.wire import message_field, number_field, tags_of, text_field, time_field

if TYPE_CHECKING:
    from perdure.server.core.machines.activity import Activity
    from perdure.server.core.run import Run

_WORKFLOW_TASK: Final = tags_of(PollWorkflowTaskQueueResponse)
_ACTIVITY_TASK: Final = tags_of(PollActivityTaskQueueResponse)
_EXECUTION: Final = tags_of(WorkflowExecution)
_TYPE_NAME: Final = tags_of(WorkflowType)["name"]
assert tags_of(ActivityType)["name"] == _TYPE_NAME
_QUEUE: Final = tags_of(TaskQueue)
_NORMAL_KIND: Final = number_field(_QUEUE["kind"], TaskQueueKind.TASK_QUEUE_KIND_NORMAL)


def workflow_task_reply(run: Run, token: bytes, queries: dict[str, WorkflowQuery]) -> bytes:
    """Return the `PollWorkflowTaskQueueResponse` that hands out a run's started task, without its history."""
    tags, task = _WORKFLOW_TASK, run.task
    data = b"".join(
        (
            message_field(tags["task_token"], token),
            message_field(tags["workflow_execution"], _execution(run)),
            _named(tags["workflow_type"], run.workflow_type),
            number_field(tags["previous_started_event_id"], run.previous_started_event_id),
            number_field(tags["started_event_id"], task.started_event_id),
            number_field(tags["attempt"], task.attempt),
            _queue(run.task_queue),
            time_field(tags["scheduled_time"], task.scheduled_at),
            time_field(tags["started_time"], task.started_at),
        )
    )
    return data + PollWorkflowTaskQueueResponse(queries=queries).SerializeToString() if queries else data


def activity_task_reply(run: Run, namespace: str, activity: Activity, token: bytes) -> bytes:
    """Return the `PollActivityTaskQueueResponse` that hands out a started attempt."""
    tags, attributes = _ACTIVITY_TASK, activity.attributes
    has = attributes.HasField
    to_close, _, start_to_close, heartbeat = activity.deadlines
    return b"".join(
        (
            message_field(tags["task_token"], token),
            text_field(tags["workflow_namespace"], namespace),
            _named(tags["workflow_type"], run.workflow_type),
            message_field(tags["workflow_execution"], _execution(run)),
            _named(tags["activity_type"], activity.activity_type),
            text_field(tags["activity_id"], activity.activity_id),
            message_field(tags["header"], attributes.header.SerializeToString()) if has("header") else b"",
            message_field(tags["input"], attributes.input.SerializeToString()) if has("input") else b"",
            message_field(tags["heartbeat_details"], activity.heartbeat_details) if activity.heartbeat_details else b"",
            time_field(tags["scheduled_time"], activity.scheduled_at),
            time_field(tags["current_attempt_scheduled_time"], activity.ready_at),
            time_field(tags["started_time"], activity.started_at),
            number_field(tags["attempt"], activity.attempt),
            time_field(tags["schedule_to_close_timeout"], to_close),
            time_field(tags["start_to_close_timeout"], start_to_close),
            time_field(tags["heartbeat_timeout"], heartbeat),
            message_field(tags["retry_policy"], attributes.retry_policy.SerializeToString()),
            _priority(run, activity),
        )
    )


def _execution(run: Run) -> bytes:
    return text_field(_EXECUTION["workflow_id"], run.key.workflow_id) + text_field(_EXECUTION["run_id"], run.run_id)


@lru_cache(maxsize=1024)
def _named(tag: bytes, name: str) -> bytes:
    """Return a field that holds a `WorkflowType` or an `ActivityType`: a server has few."""
    return message_field(tag, text_field(_TYPE_NAME, name))


@lru_cache(maxsize=1024)
def _queue(name: str) -> bytes:
    return message_field(
        _WORKFLOW_TASK["workflow_execution_task_queue"], text_field(_QUEUE["name"], name) + _NORMAL_KIND
    )


def _priority(run: Run, activity: Activity) -> bytes:
    """Return the priority's field: what the activity leaves at 0 or empty stays the run's."""
    run_has, activity_has = run.start.HasField("priority"), activity.attributes.HasField("priority")
    if not run_has and not activity_has:
        return b""
    priority = Priority()
    if run_has:
        priority.CopyFrom(run.start.priority)
    if activity_has:
        priority.MergeFrom(activity.attributes.priority)
    return message_field(_ACTIVITY_TASK["priority"], priority.SerializeToString())
