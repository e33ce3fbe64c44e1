"""The commands of a workflow about activities: schedule one, ask to cancel one."""

from __future__ import annotations

from temporalio.api.command.v1 import Command
from temporalio.api.common.v1 import Payload, Payloads
from temporalio.api.enums.v1 import CommandType
from temporalio.api.history.v1 import (
    ActivityTaskCanceledEventAttributes,
    ActivityTaskCancelRequestedEventAttributes,
    ActivityTaskScheduledEventAttributes,
)

from perdure.server.core import registry
from perdure.server.core.checks import (
    activity_id_taken,
    check_request_cancel_activity,
    no_cancellable_activity,
    normalize_schedule_activity,
)
from perdure.server.core.command_batch import CommandBatch, metadata_of
from perdure.server.core.machines import activity
from perdure.server.core.run import Run
from perdure.server.core.transition import CLOSES_ACTIVITY, Transition

NOT_STARTED = Payloads(payloads=[Payload(metadata={"encoding": b"json/plain"}, data=b'"ACTIVITY_ID_NOT_STARTED"')])


def _check_schedule(batch: CommandBatch, command: Command) -> None:
    attributes = command.schedule_activity_task_command_attributes
    normalize_schedule_activity(attributes, batch.facts, batch.limits)
    activity_id = attributes.activity_id
    if activity_id in batch.activity_ids:
        raise activity_id_taken(activity_id)
    batch.activity_ids.add(activity_id)
    batch.facts.pending_activities += 1
    batch.new_activities[batch.next_command_event_id] = activity_id


def _record_schedule(t: Transition, command: Command) -> None:
    attributes = command.schedule_activity_task_command_attributes
    # Filled in part by part: a message given to a constructor is serialised and parsed on its way in.
    scheduled = ActivityTaskScheduledEventAttributes(
        activity_id=attributes.activity_id,
        workflow_task_completed_event_id=t.run.last_task_completed_event_id,
        use_workflow_build_id=attributes.use_workflow_build_id,
    )
    scheduled.activity_type.CopyFrom(attributes.activity_type)
    scheduled.task_queue.CopyFrom(attributes.task_queue)
    scheduled.schedule_to_close_timeout.CopyFrom(attributes.schedule_to_close_timeout)
    scheduled.schedule_to_start_timeout.CopyFrom(attributes.schedule_to_start_timeout)
    scheduled.start_to_close_timeout.CopyFrom(attributes.start_to_close_timeout)
    scheduled.heartbeat_timeout.CopyFrom(attributes.heartbeat_timeout)
    scheduled.retry_policy.CopyFrom(attributes.retry_policy)
    has = attributes.HasField
    if has("header"):
        scheduled.header.CopyFrom(attributes.header)
    if has("input"):
        scheduled.input.CopyFrom(attributes.input)
    if has("priority"):
        scheduled.priority.CopyFrom(attributes.priority)
    event = t.record(scheduled, user_metadata=metadata_of(command))
    t.touch_activity(event.event_id)
    t.run.arm(activity.ALARM, event.event_id)
    if attributes.request_eager_execution:
        t.eager_activities.append(event.event_id)
    else:
        t.effects.append(activity.ready(t.run, t.run.activities[event.event_id]))


def _check_cancel(batch: CommandBatch, command: Command) -> None:
    attributes = command.request_cancel_activity_task_command_attributes
    check_request_cancel_activity(attributes, batch.facts, batch.limits)
    scheduled_event_id = attributes.scheduled_event_id
    if scheduled_event_id in batch.canceled_activities:
        raise no_cancellable_activity(scheduled_event_id)
    batch.canceled_activities.add(scheduled_event_id)
    new_activity_id = batch.new_activities.get(scheduled_event_id)
    if new_activity_id is not None:
        batch.activity_ids.remove(new_activity_id)
        batch.facts.pending_activities -= 1
        return
    pending = batch.run.activities.get(scheduled_event_id)
    if pending is None:
        if not _closing_is_buffered(batch.run, scheduled_event_id):
            raise no_cancellable_activity(scheduled_event_id)
        return
    if pending.cancel_requested:
        raise no_cancellable_activity(scheduled_event_id)
    if pending.state is not activity.State.STARTED:
        batch.activity_ids.remove(pending.activity_id)
        batch.facts.pending_activities -= 1


def _closing_is_buffered(run: Run, scheduled_event_id: int) -> bool:
    return any(
        isinstance(event.attributes, CLOSES_ACTIVITY) and event.attributes.scheduled_event_id == scheduled_event_id
        for event in run.buffered
    )


def _record_cancel(t: Transition, command: Command) -> None:
    scheduled_event_id = command.request_cancel_activity_task_command_attributes.scheduled_event_id
    requested = t.record(
        ActivityTaskCancelRequestedEventAttributes(
            scheduled_event_id=scheduled_event_id,
            workflow_task_completed_event_id=t.run.last_task_completed_event_id,
        ),
        user_metadata=metadata_of(command),
    )
    pending = t.run.activities.get(scheduled_event_id)
    if pending is None:
        return
    t.touch_activity(scheduled_event_id)
    if pending.state is activity.State.STARTED:
        return
    t.record_behind_commands(
        ActivityTaskCanceledEventAttributes(
            scheduled_event_id=scheduled_event_id,
            latest_cancel_requested_event_id=requested.event_id,
            details=NOT_STARTED,
            identity=t.identity,
        )
    )


registry.command(CommandType.COMMAND_TYPE_SCHEDULE_ACTIVITY_TASK, check=_check_schedule, record=_record_schedule)
registry.command(CommandType.COMMAND_TYPE_REQUEST_CANCEL_ACTIVITY_TASK, check=_check_cancel, record=_record_cancel)
