"""What workers say of activities: started, completed, failed, cancelled, heartbeat; by token or by id.

An answer by token must match the attempt and the nonce of its start. One by id (its token has no nonce) means the
present attempt; completing by id is allowed even where no worker has it, because whoever knows the id may know the
result.
"""

from __future__ import annotations

from temporalio.api.enums.v1 import RetryState
from temporalio.api.failure.v1 import Failure, ServerFailureInfo
from temporalio.api.history.v1 import (
    ActivityTaskCanceledEventAttributes,
    ActivityTaskCompletedEventAttributes,
    ActivityTaskFailedEventAttributes,
)

from perdure._machine import move
from perdure.server.core import registry
from perdure.server.core.errors import InvalidArgument, NotFound
from perdure.server.core.inputs import (
    CancelActivity,
    CompleteActivity,
    FailActivity,
    HeartbeatActivity,
    ReturnActivity,
    StartActivity,
)
from perdure.server.core.machines import activity
from perdure.server.core.machines.activity import Activity, State
from perdure.server.core.replies import ActivityTaskStarted, HeartbeatReply, StaleTask
from perdure.server.core.run import Run
from perdure.server.core.tokens import ActivityToken
from perdure.server.core.transition import Transition

GONE = "invalid activityID or activity already timed out or invoking workflow is completed"
CLOSED_RUN = "workflow execution already completed"


@registry.handles(StartActivity)
def _start(t: Transition, start: StartActivity) -> ActivityTaskStarted:
    pending = t.run.activities.get(start.scheduled_event_id)
    if pending is None or pending.state is State.STARTED or pending.ready_at > t.now:
        raise StaleTask("the activity is not ready")
    if pending.state is State.BACKING_OFF:
        # Its backoff ended, and the index knew before the alarm came round.
        move(activity.TABLE, pending, activity.BackoffEnded)
    t.identity = start.identity
    return activity.start(t, start.scheduled_event_id, start.identity, start.request_id)


@registry.handles(ReturnActivity)
def _take_back(t: Transition, returned: ReturnActivity) -> None:
    pending = _require(t.run, returned.token)
    move(activity.TABLE, pending, activity.StartReturned)
    pending.started_at = 0
    pending.nonce = ""
    t.touch_activity(pending.scheduled_event_id)
    t.run.arm(activity.ALARM, pending.scheduled_event_id)
    t.effects.append(activity.ready(t.run, pending))


@registry.handles(CompleteActivity)
def _complete(t: Transition, completion: CompleteActivity) -> None:
    pending = _require(t.run, completion.token, unstarted_allowed=not completion.token.nonce)
    request = completion.request
    t.identity = request.identity
    if pending.state is not State.STARTED:
        pending.identity = request.identity
    closing = ActivityTaskCompletedEventAttributes(
        scheduled_event_id=pending.scheduled_event_id,
        started_event_id=activity.write_started(t, pending),
        identity=request.identity,
    )
    if request.HasField("result"):
        closing.result.CopyFrom(request.result)
    activity.close(t, pending, closing)


@registry.handles(FailActivity)
def _fail(t: Transition, failed: FailActivity) -> None:
    pending = _require(t.run, failed.token)
    request = failed.request
    t.identity = request.identity
    if request.HasField("last_heartbeat_details"):
        pending.heartbeat_details = request.last_heartbeat_details.SerializeToString()
        pending.heartbeat_at = t.now
    failure = _within_limit(request.failure, t.world.limits.blob_size_error)
    retry_state = activity.retry_or_give_up(t, pending, failure)
    if retry_state == RetryState.RETRY_STATE_IN_PROGRESS:
        return
    closing = ActivityTaskFailedEventAttributes(
        failure=failure,
        scheduled_event_id=pending.scheduled_event_id,
        started_event_id=activity.write_started(t, pending),
        identity=request.identity,
        retry_state=retry_state,
    )
    activity.close(t, pending, closing)


def _within_limit(failure: Failure, limit: int) -> Failure:
    if failure.ByteSize() <= limit:
        return failure
    return Failure(
        message=f"activity failure is larger than the limit of {limit} bytes and was cut: {failure.message[:1000]}",
        source="Perdure",
        server_failure_info=ServerFailureInfo(non_retryable=True),
    )


@registry.handles(CancelActivity)
def _cancel(t: Transition, canceled: CancelActivity) -> None:
    pending = _require(t.run, canceled.token)
    if not pending.cancel_requested:
        raise InvalidArgument("unable to mark activity as canceled without activity being request canceled first")
    request = canceled.request
    t.identity = request.identity
    closing = ActivityTaskCanceledEventAttributes(
        latest_cancel_requested_event_id=pending.cancel_requested_event_id,
        scheduled_event_id=pending.scheduled_event_id,
        started_event_id=activity.write_started(t, pending),
        identity=request.identity,
    )
    if request.HasField("details"):
        closing.details.CopyFrom(request.details)
    activity.close(t, pending, closing)


@registry.handles(HeartbeatActivity)
def _heartbeat(t: Transition, heartbeat: HeartbeatActivity) -> HeartbeatReply:
    pending = _require(t.run, heartbeat.token)
    # The clock may have been set back, or be another node's: an alarm never has to ring earlier than it was armed for.
    pending.heartbeat_at = max(pending.heartbeat_at, t.now)
    pending.heartbeat_details = heartbeat.details
    pending.last_identity = heartbeat.identity or pending.last_identity
    t.touch_activity(pending.scheduled_event_id)
    return HeartbeatReply(cancel_requested=pending.cancel_requested)


def _require(run: Run, token: ActivityToken, *, unstarted_allowed: bool = False) -> Activity:
    """Return the activity a token means, or refuse."""
    if not run.is_open:
        raise NotFound(CLOSED_RUN)
    scheduled_event_id = token.scheduled_event_id
    if not scheduled_event_id:
        scheduled_event_id = run.activity_ids.get(token.activity_id, 0)
        if not scheduled_event_id:
            raise NotFound(
                f"cannot find pending activity with ActivityID {token.activity_id},"
                " check workflow execution history for more details"
            )
    pending = run.activities.get(scheduled_event_id)
    if pending is None:
        raise NotFound(GONE)
    if pending.state is not State.STARTED:
        if unstarted_allowed:
            return pending
        raise NotFound(GONE)
    if token.nonce and (token.nonce != pending.nonce or token.attempt != pending.attempt):
        raise NotFound(GONE)
    return pending
