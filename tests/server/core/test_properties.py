"""Random lives of a workflow: whatever comes in whatever order, what must hold holds.

`Story` checks after every step the invariants, that a refusal changed nothing, that what is not dirty is not changed,
the count of transitions and the effects; at every cut, that the rows give the same workflow back. Here a crash forgets
what was not cut, answers come late, twice or by id, and alarms ring early, in time or much too late.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from operator import itemgetter
from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule
from temporalio.api.command.v1 import Command
from temporalio.api.enums.v1 import QueryResultType, WorkflowIdConflictPolicy, WorkflowIdReusePolicy
from temporalio.api.history.v1 import (
    TimerFiredEventAttributes,
    WorkflowExecutionCompletedEventAttributes,
    WorkflowExecutionFailedEventAttributes,
    WorkflowExecutionTerminatedEventAttributes,
)
from temporalio.api.query.v1 import WorkflowQueryResult
from temporalio.api.workflowservice.v1 import PollActivityTaskQueueResponse

from perdure.server.core.durations import duration_of
from perdure.server.core.errors import Refusal
from perdure.server.core.events import build_event
from perdure.server.core.inputs import (
    Acknowledge,
    AnswerQuery,
    Delete,
    Deliver,
    EndRetention,
    Locate,
    ResetStickiness,
    ResumeOffers,
    ReturnQuery,
    StartActivity,
    StickyWorkerGone,
    TakeQuery,
    WithdrawQuery,
)
from perdure.server.core.limits import Limits
from perdure.server.core.machines import activity, query, workflow_task
from perdure.server.core.machines.child import Child
from perdure.server.core.messages import Answer, ChildClosedMessage, Message, Outcome
from perdure.server.core.records import WorkflowKey
from perdure.server.core.replies import StartReply, WorkflowTaskCompleted, WorkflowTaskStarted
from perdure.server.core.run import Run
from perdure.server.core.tokens import decode_activity
from tests.server.core.commands import (
    SECOND,
    application_failure,
    cancel_activity,
    cancel_external,
    cancel_timer,
    cancel_workflow,
    complete_workflow,
    continue_as_new,
    fail_workflow,
    modify_memo,
    record_marker,
    retry_policy,
    schedule_activity,
    signal_external,
    start_child,
    start_timer,
    upsert_search_attributes,
)
from tests.server.core.story import KEY, QUEUE, STICKY, Story

ANSWER = WorkflowQueryResult(result_type=QueryResultType.QUERY_RESULT_TYPE_ANSWERED)
SEEDS = st.integers(0, 2**32 - 1)
"""Each step draws one number and throws dice from it: that spreads better than many small choices."""
_Conflict = WorkflowIdConflictPolicy
_Reuse = WorkflowIdReusePolicy

STARTS: Sequence[dict[str, object]] = (
    {},
    {"workflow_run_timeout": duration_of(60 * SECOND)},
    {"workflow_execution_timeout": duration_of(90 * SECOND), "retry_policy": retry_policy(attempts=3)},
    {"cron_schedule": "* * * * *"},
    {"cron_schedule": "@every 30s", "retry_policy": retry_policy(initial=2, attempts=2)},
    {"workflow_start_delay": duration_of(20 * SECOND)},
    {"request_eager_execution": True},
)
POLICIES: Sequence[dict[str, object]] = (
    {"workflow_id_conflict_policy": _Conflict.WORKFLOW_ID_CONFLICT_POLICY_FAIL},
    {"workflow_id_conflict_policy": _Conflict.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING},
    {"workflow_id_conflict_policy": _Conflict.WORKFLOW_ID_CONFLICT_POLICY_TERMINATE_EXISTING},
    {"workflow_id_reuse_policy": _Reuse.WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE},
    {"workflow_id_reuse_policy": _Reuse.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE_FAILED_ONLY},
)


def any_command(run: Run, dice: Random) -> Command:
    """Make a command that mostly is legal for the run as it is."""
    activity_id = f"a{dice.randrange(6)}"
    makers: Sequence[Callable[[], Command]] = (
        lambda: start_timer(f"t{dice.randrange(8)}", seconds=dice.randrange(7)),
        lambda: cancel_timer(dice.choice(_timer_ids(run))),
        lambda: schedule_activity(activity_id),
        lambda: schedule_activity(activity_id, to_close=20, heartbeat=3, start_to_close=5),
        lambda: schedule_activity(activity_id, to_start=4, eager=True, retry=retry_policy(attempts=2)),
        lambda: schedule_activity(activity_id, to_close=8, start_to_close=2, retry=retry_policy(initial=3)),
        lambda: schedule_activity(activity_id, eager=True, retry=retry_policy(attempts=1)),
        lambda: cancel_activity(dice.choice(_cancellable(run))),
        lambda: dice.choice((record_marker(), upsert_search_attributes(Colour="red"), modify_memo(note="x"))),
        lambda: dice.choice((signal_external, cancel_external))(dice.choice(("other", KEY.workflow_id))),
        lambda: start_child(f"child {dice.randrange(3)}"),
    )
    return dice.choices(makers, weights=(3, 3, 1, 1, 1, 1, 1, 1, 1, 3, 3))[0]()


def _timer_ids(run: Run) -> Sequence[str]:
    fired = [
        event.attributes.timer_id for event in run.buffered if isinstance(event.attributes, TimerFiredEventAttributes)
    ]
    return [*run.timers, *fired] or ["unknown"]


def _cancellable(run: Run) -> Sequence[int]:
    """Return activities that may be cancelled; rarely there is none, and one that does not exist."""
    return [event_id for event_id, pending in run.activities.items() if not pending.cancel_requested] or [1]


def closing_command(dice: Random) -> Command:
    return dice.choice(
        (
            complete_workflow(),
            complete_workflow(None),
            fail_workflow(),
            fail_workflow(application_failure(non_retryable=True)),
            cancel_workflow(),
            continue_as_new(),
            continue_as_new(backoff=5, run_timeout=30, cron="@every 10s", retry=retry_policy()),
        )
    )


class Life(RuleBasedStateMachine):
    """One workflow id, its clients and its workers."""

    def __init__(self) -> None:
        super().__init__()
        self.story = Story(limits=Limits(buffered_events_count=6, history_count_error=150), cuts=False)
        self.tasks: list[WorkflowTaskStarted] = []
        self.activity_tasks: list[PollActivityTaskQueueResponse] = []
        self.queries = 0

    def attempt(self, action: Callable[[], object]) -> object:
        """Do something that may be refused."""
        try:
            return action()
        except Refusal:
            return None

    def has_run(self) -> bool:
        return self.story.workflow.current is not None

    def is_open(self) -> bool:
        current = self.story.workflow.current
        return current is not None and current.is_open

    # --- clients ------------------------------------------------------------------------------------------------------

    @rule(seed=SEEDS)
    def start(self, seed: int) -> None:
        dice = Random(seed)
        if self.is_open() and dice.random() < 0.7:
            return
        fields = {**dice.choice(POLICIES), "request_id": f"start-{dice.randrange(50)}"}
        if dice.random() < 0.2:
            self.attempt(lambda: self.story.signal_with_start(**fields))
            return
        reply = self.attempt(lambda: self.story.start(**fields, **dice.choice(STARTS)))
        if isinstance(reply, StartReply) and reply.eager_task is not None:
            self.tasks.append(reply.eager_task)

    @precondition(is_open)
    @rule(seed=SEEDS)
    def tell(self, seed: int) -> None:
        dice, story = Random(seed), self.story
        request_id = dice.choice(("", f"signal-{dice.randrange(7)}"))
        self.attempt(story.cancel if dice.random() < 0.2 else lambda: story.signal(request_id=request_id))

    @precondition(has_run)
    @rule(seed=SEEDS)
    def ask(self, seed: int) -> None:
        """Query, or take what was asked to its next state."""
        dice, story = Random(seed), self.story
        pending = list(story.run.queries.pending.values())
        if not pending or dice.random() < 0.3:
            self.queries += 1
            self.attempt(lambda: story.query(f"q{self.queries}"))
            return
        asked = dice.choice(pending)
        if asked.state is query.State.TAKEN:
            story.do(dice.choice((ReturnQuery("", asked.query_id), AnswerQuery("", asked.query_id, ANSWER))))
        elif dice.random() < 0.1:
            story.do(WithdrawQuery("", asked.query_id))
        else:
            self.attempt(lambda: story.do(TakeQuery("", asked.query_id, dice.choice((STICKY, "")))))

    # --- workflow workers ---------------------------------------------------------------------------------------------

    def poll(self) -> None:
        task = self.story.run.task
        sticky_queue = task.task_queue if task.task_queue != QUEUE else ""
        started = self.attempt(lambda: self.story.poll(sticky_queue=sticky_queue))
        if isinstance(started, WorkflowTaskStarted):
            self.tasks.append(started)

    def complete(self, task: WorkflowTaskStarted, dice: Random, *, closes: float) -> None:
        made = [any_command(self.story.run, dice) for _ in range(dice.randrange(4))]
        if dice.random() < closes:
            made.append(closing_command(dice))
        reply = self.attempt(
            lambda: self.story.complete(
                task,
                *made,
                sticky=dice.random() < 0.5,
                force_create_new_workflow_task=dice.random() < 0.2,
                return_new_workflow_task=dice.random() < 0.4,
                query_results=dict.fromkeys(task.response.queries, ANSWER) if dice.random() < 0.7 else {},
            )
        )
        if isinstance(reply, WorkflowTaskCompleted):
            if reply.next_task is not None:
                self.tasks.append(reply.next_task)
            self.activity_tasks += [started.response for started in reply.activities]

    @precondition(is_open)
    @rule(seed=SEEDS)
    def work(self, seed: int) -> None:
        """Poll the task that is ready, or complete the one that is started."""
        if self.story.run.task.is_started and self.tasks:
            self.complete(self.tasks[-1], Random(seed), closes=0.25)
        else:
            self.poll()

    @precondition(is_open)
    @rule(seed=SEEDS)
    def decide(self, seed: int) -> None:
        """Take the workflow one task further, which is what mostly happens."""
        if not self.story.run.task.is_pending:
            self.story.signal()
        if not self.story.run.task.is_started:
            self.poll()
        if self.tasks:
            self.complete(self.tasks[-1], Random(seed), closes=0.0)

    @precondition(lambda self: self.tasks)
    @rule(seed=SEEDS)
    def spoil(self, seed: int) -> None:
        """Answer a workflow task badly, or one that is long gone."""
        dice = Random(seed)
        task = dice.choice((self.tasks[-1], dice.choice(self.tasks)))
        answers: Sequence[Callable[[], object]] = (
            lambda: self.story.fail(task),
            lambda: self.story.take_back(task),
            lambda: self.story.complete(task, start_timer("")),
            lambda: self.story.complete(task, cancel_timer("unknown")),
        )
        self.attempt(dice.choice(answers))

    # --- activity workers ---------------------------------------------------------------------------------------------

    def has_activities(self) -> bool:
        return self.has_run() and bool(self.story.run.activities)

    @precondition(has_activities)
    @rule(seed=SEEDS)
    def perform(self, seed: int) -> None:
        """Start an activity that is ready, or answer one that is started."""
        dice = Random(seed)
        scheduled_event_id, pending = dice.choice(sorted(self.story.run.activities.items(), key=itemgetter(0)))
        if pending.state is activity.State.STARTED:
            present = [task for task in self.activity_tasks if decode_activity(task.task_token).nonce == pending.nonce]
            self.answer(present[0] if present else pending.activity_id, dice)
            return
        given = StartActivity("", scheduled_event_id, "worker", "request")
        started = self.attempt(lambda: self.story.do(given))
        if isinstance(started, PollActivityTaskQueueResponse):
            self.activity_tasks.append(started)

    @precondition(has_run)
    @rule(seed=SEEDS)
    def answer_anything(self, seed: int) -> None:
        """Answer an activity that may be long gone, by its token or by its id."""
        if not self.activity_tasks:
            return
        dice = Random(seed)
        task = dice.choice(self.activity_tasks)
        self.answer(task if dice.random() < 0.5 else task.activity_id, dice)

    def answer(self, task: PollActivityTaskQueueResponse | str, dice: Random) -> None:
        story = self.story
        answers: list[Callable[[], object]] = [
            lambda: story.complete_activity(task),
            lambda: story.fail_activity(task, application_failure()),
            lambda: story.fail_activity(task, application_failure(non_retryable=True)),
            lambda: story.fail_activity(task, application_failure(delay=2)),
            lambda: story.cancel_activity(task),
            lambda: story.heartbeat(task, "half"),
        ]
        if not isinstance(task, str):
            answers.append(lambda: story.take_back_activity(task))
        self.attempt(dice.choice(answers))

    # --- other workflows ----------------------------------------------------------------------------------------------

    @precondition(has_run)
    @rule(seed=SEEDS)
    def hear(self, seed: int) -> None:
        """Get the answer to a message, perhaps once more or long after, or the word of a child that has closed."""
        dice, story = Random(seed), self.story
        sent = story.rows.outbox()
        if sent and dice.random() < 0.7:
            message = dice.choice(sent)
            answer = Answer(dice.choice((Outcome.DONE, Outcome.DONE, *Outcome)), "run of child")
            story.do(Acknowledge(message.sender_run_id, message, answer))
            return
        children = list(story.run.mail.children.values()) if story.run.mail is not None else []
        if children:
            self.hear_of_the_end(dice.choice(children), dice)

    def hear_of_the_end(self, child: Child, dice: Random) -> None:
        story = self.story
        closing = dice.choice(
            (
                WorkflowExecutionCompletedEventAttributes(),
                WorkflowExecutionFailedEventAttributes(),
                WorkflowExecutionTerminatedEventAttributes(),
            )
        )
        event = build_event(7, story.now, closing).serialize()
        body = ChildClosedMessage(story.run.run_id, child.initiated_event_id, "run of child", event)
        sender = WorkflowKey(KEY.namespace_id, child.workflow_id)
        message = Message(sender, "run of child", story.key, 1, story.now, body)
        story.do(Deliver(story.run.run_id, message, None))

    # --- time, the store and accidents --------------------------------------------------------------------------------

    @rule(seed=SEEDS)
    def let_time_pass(self, seed: int) -> None:
        dice = Random(seed)
        due = self.story.next_due()
        if due is not None and dice.random() < 0.7:
            self.story.wait(max(0.0, (due[0] - self.story.now) / SECOND))
        else:
            self.story.wait(dice.choice((0.5, 1.0, 3.0)))

    @precondition(has_run)
    @rule(seed=SEEDS)
    def ring_late(self, seed: int) -> None:
        self.story.now += Random(seed).choice((0, 0, 1, 2, 7, 100)) * SECOND
        self.story.ring()

    @precondition(has_run)
    @rule(seed=SEEDS)
    def disturb(self, seed: int) -> None:
        dice, story = Random(seed), self.story
        accidents: Sequence[Callable[[], object]] = (
            story.cut,
            story.crash,
            self.forget_old_runs,
            self.read,
            self.lose_stickiness,
            lambda: self.attempt(story.terminate),
            lambda: self.attempt(lambda: story.do(Delete(""))),
            lambda: self.attempt(lambda: story.do(EndRetention(""))),
        )
        dice.choices(accidents, weights=(4, 4, 2, 1, 2, 1, 1, 1))[0]()

    def forget_old_runs(self) -> None:
        self.story.cut()
        self.story.forget_old_runs()

    def read(self) -> None:
        self.story.describe()
        assert not self.story.last_step.is_dirty
        self.story.do(Locate(""))
        assert not self.story.last_step.is_dirty

    def lose_stickiness(self) -> None:
        for given in (ResumeOffers(""), ResetStickiness(""), StickyWorkerGone("", STICKY)):
            self.attempt(partial(self.story.do, given))

    def teardown(self) -> None:
        """Let time run out: what waits is never stuck for ever, and what is closed is deleted in the end."""
        story = self.story
        story.cut()
        story.crash()
        assert all(_waits_for_somebody(run) for run in story.workflow.runs.values())
        story.now += story.namespace.retention_seconds * SECOND
        for run in list(story.workflow.runs.values()):
            assert story.do(EndRetention(run.run_id)) is not run.is_open


def _waits_for_somebody(run: Run) -> bool:
    """Say whether a run that was read anew has ended, or has something ahead: an alarm, a task, a worker's answer."""
    return (
        not run.is_open
        or run.first_alarm() is not None
        or run.task.state is workflow_task.State.SCHEDULED
        or any(pending.state is not activity.State.BACKING_OFF for pending in run.activities.values())
        or bool(run.previous_started_event_id)
        or run.mail is not None
    )


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=100, stateful_step_count=50)

Walk = tuple[int, Callable[[Life], object], Callable[[Life, int], None]]
WALK: Sequence[Walk] = (
    (3, lambda life: not life.is_open(), Life.start),
    (1, Life.has_run, Life.start),
    (3, Life.is_open, Life.tell),
    (3, Life.has_run, Life.ask),
    (3, Life.is_open, Life.work),
    (8, Life.is_open, Life.decide),
    (2, lambda life: life.tasks, Life.spoil),
    (12, Life.has_activities, Life.perform),
    (2, Life.has_run, Life.answer_anything),
    (4, Life.has_run, Life.hear),
    (6, Life.has_run, Life.let_time_pass),
    (1, Life.has_run, Life.ring_late),
    (5, Life.has_run, Life.disturb),
)
"""How often each kind of step is taken in a walk, and when it can be: as workers and clients mostly do."""


@pytest.mark.parametrize("seed", range(16))
def test_long_lives(seed: int) -> None:
    """Short lives are Hypothesis's, which makes failures small. Long ones get deeper where the dice are weighted."""
    dice = Random(seed)
    life = Life()
    weights = [weight for weight, _, _ in WALK]
    for _ in range(400):
        _, is_possible, step = dice.choices(WALK, weights)[0]
        if is_possible(life):
            step(life, dice.getrandbits(32))
    life.teardown()
