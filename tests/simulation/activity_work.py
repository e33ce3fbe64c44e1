"""The activity half of a simulated worker: works for a while, heartbeats or does not, and answers well or badly."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import msgspec
from temporalio.api.failure.v1 import Failure
from temporalio.api.workflowservice.v1 import (
    PollActivityTaskQueueResponse,
    RespondActivityTaskCanceledRequest,
    RespondActivityTaskCompletedRequest,
    RespondActivityTaskFailedRequest,
)

from perdure.server.core.errors import NotFound
from perdure.server.core.inputs import CancelActivity, CompleteActivity, FailActivity, HeartbeatActivity, Input
from perdure.server.core.records import WorkflowKey
from perdure.server.core.replies import HeartbeatReply
from perdure.server.core.tokens import ActivityToken, decode_activity
from tests.simulation.ledger import Answer, Fate
from tests.simulation.programs import ActivityStep, activity_of
from tests.simulation.world import CallFailed, World


class Habits(msgspec.Struct, frozen=True):
    """How reliable a worker is while faults are on; a share of all tasks each."""

    never_answers: float = 0.06
    answers_twice: float = 0.15
    answers_late: float = 0.2
    answers_with_old_token: float = 0.1
    fails_task: float = 0.05
    leaves_while_polling: float = 0.2
    is_sticky: bool = False
    poll_seconds: float = 20.0


class ActivityWork:
    """Works on the activities a worker receives."""

    def __init__(self, world: World, rng: random.Random, new_identity: Callable[[], str], habits: Habits) -> None:
        self._world = world
        self._rng = rng
        self._new_identity = new_identity
        self._habits = habits
        self._old_tokens: list[ActivityToken] = []

    async def work_on(self, task: PollActivityTaskQueueResponse) -> None:
        """Do one attempt of an activity."""
        step = activity_of(task.input)
        token = decode_activity(task.task_token)
        outcome = step.outcomes[min(task.attempt, len(step.outcomes)) - 1]
        try:
            is_cancelled = await self._work(step, token)
            if outcome == "hang":
                return
            if self._old_tokens and self._happens(self._habits.answers_with_old_token):
                await self._answer(self._rng.choice(self._old_tokens), "ok", must_be_refused=True)
            if self._happens(self._habits.answers_late):
                await asyncio.sleep(self._rng.uniform(0, 10))
            await self._answer(token, "cancel" if is_cancelled else outcome)
            self._old_tokens.append(token)
            if self._happens(self._habits.answers_twice):
                await self._answer(token, outcome, must_be_refused=True)
        except (CallFailed, NotFound):
            # What went wrong is in the ledger; the server is to sort it out.
            return

    def _happens(self, share: float) -> bool:
        return self._world.faults.is_on and self._rng.random() < share

    async def _work(self, step: ActivityStep, token: ActivityToken) -> bool:
        """Let the time pass that the work takes; return whether a heartbeat was told to cancel."""
        ends_at = asyncio.get_running_loop().time() + step.seconds
        while (left := ends_at - asyncio.get_running_loop().time()) > 0:
            if not step.heartbeats:
                await asyncio.sleep(left)
                return False
            await asyncio.sleep(min(left, step.heartbeat / 3))
            reply = await self._submit(token, HeartbeatActivity(token.run_id, token, b"", "heartbeat"))
            assert isinstance(reply, HeartbeatReply)
            if reply.cancel_requested:
                return True
        return False

    async def _answer(self, token: ActivityToken, outcome: str, *, must_be_refused: bool = False) -> None:
        identity = self._new_identity()
        given, event_field = _answer_of(token, outcome, identity)
        answer = Answer(token.run_id, event_field)
        self._world.ledger.answers[identity] = answer
        try:
            await self._submit(token, given)
        except NotFound:
            answer.fate = Fate.REFUSED
            if not must_be_refused:
                raise
            return
        assert not must_be_refused, (
            f"a second answer to activity {token.scheduled_event_id} of {token.run_id} was taken"
        )
        answer.fate = Fate.ACKNOWLEDGED

    async def _submit(self, token: ActivityToken, given: Input) -> object:
        key = WorkflowKey(token.namespace_id, token.workflow_id)
        return await self._world.call(lambda engine: engine.submit(key, given))


def _answer_of(token: ActivityToken, outcome: str, identity: str) -> tuple[Input, str]:
    """Return the input that says so, and the event that must follow; a failure may be retried and leave none."""
    if outcome == "ok":
        completed = RespondActivityTaskCompletedRequest(identity=identity)
        return CompleteActivity(token.run_id, token, completed), "activity_task_completed"
    if outcome == "cancel":
        canceled = RespondActivityTaskCanceledRequest(identity=identity)
        return CancelActivity(token.run_id, token, canceled), "activity_task_canceled"
    failed = RespondActivityTaskFailedRequest(identity=identity, failure=Failure(message="simulated"))
    return FailActivity(token.run_id, token, failed), ""
