"""Random lives of workflows that write to each other: what must hold of messages holds, whatever is lost or repeated.

`Story` checks every run after every step and every cut. Here messages are delivered in the order of their pairs, once,
twice, or long after their sender has gone; crashes forget what was not cut, on either side. In the end everything is
delivered, and the histories of all must agree.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from random import Random

import pytest
from temporalio.api.command.v1 import Command
from temporalio.api.enums.v1 import ParentClosePolicy, WorkflowIdReusePolicy
from temporalio.api.history.v1 import HistoryEvent

from perdure.server.core.errors import Refusal
from perdure.server.core.inputs import Delete
from perdure.server.core.limits import Limits
from perdure.server.core.machines.child import State as ChildState
from perdure.server.core.messages import Message
from perdure.server.core.run import Run
from perdure.server.core.stored import restore
from tests.server.core.commands import (
    SECOND,
    cancel_external,
    cancel_workflow,
    complete_workflow,
    continue_as_new,
    fail_workflow,
    retry_policy,
    signal_external,
    start_child,
    start_timer,
)
from tests.server.core.story import Story
from tests.server.core.town import Town

IDS = ("a", "b", "c", "d")
_Policy = ParentClosePolicy
_Reuse = WorkflowIdReusePolicy
POLICIES = (
    _Policy.PARENT_CLOSE_POLICY_TERMINATE,
    _Policy.PARENT_CLOSE_POLICY_ABANDON,
    _Policy.PARENT_CLOSE_POLICY_REQUEST_CANCEL,
)
REUSES = (
    _Reuse.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE,
    _Reuse.WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE,
    _Reuse.WORKFLOW_ID_REUSE_POLICY_TERMINATE_IF_RUNNING,
)


class Walk:
    """A town and what happens in it."""

    def __init__(self, seed: int) -> None:
        self.dice = Random(seed)
        self.town = Town(limits=Limits(buffered_events_count=8, pending_external_signals=4, pending_child_workflows=3))
        self.signals = 0
        for name in IDS:
            self.town[name].cuts = False

    def step(self) -> None:
        story = self.town[self.dice.choice(IDS)]
        current = story.workflow.current
        if current is None or (not current.is_open and self.dice.random() < 0.3):
            self.attempt(lambda: story.start(request_id=str(self.dice.random())))
            return
        happenings: Sequence[Callable[[], object]] = (
            lambda: self.decide(story),
            self.post,
            story.cut,
            story.crash,
            lambda: self.let_time_pass(story),
            lambda: self.attempt(story.terminate),
            lambda: self.attempt(lambda: story.do(Delete(self.dice.choice(list(story.workflow.runs))))),
        )
        self.dice.choices(happenings, weights=(8, 14, 6, 1, 2, 0.4, 0.4))[0]()

    def attempt(self, action: Callable[[], object]) -> None:
        try:
            action()
        except Refusal:
            return

    def decide(self, story: Story) -> None:
        run = story.run
        if not run.is_open:
            return
        if not run.task.is_pending:
            story.signal()
        if run.task.is_started or not run.task.is_pending:
            return
        task = story.poll()
        for _ in range(self.dice.randrange(3)):
            self.post()
        commands = [self.command() for _ in range(self.dice.randrange(4))]
        if self.dice.random() < 0.25:
            commands.append(self.closing_command())
        # The task may be gone, in a crash or by the hand of a parent; else it times out.
        self.attempt(lambda: story.complete(task, *commands))

    def command(self) -> Command:
        dice, other = self.dice, self.dice.choice(IDS)
        self.signals += 1
        makers: Sequence[Callable[[], Command]] = (
            lambda: signal_external(other, name=f"s{self.signals}", child_only=dice.random() < 0.3),
            lambda: cancel_external(other, child_only=dice.random() < 0.5),
            lambda: start_child(
                other,
                parent_close_policy=dice.choice(POLICIES),
                workflow_id_reuse_policy=dice.choice(REUSES),
                retry_policy=retry_policy(attempts=2) if dice.random() < 0.3 else None,
            ),
            lambda: start_timer(f"t{self.signals}", seconds=dice.randrange(5)),
        )
        return dice.choices(makers, weights=(4, 1, 4, 1))[0]()

    def closing_command(self) -> Command:
        return self.dice.choice((complete_workflow(), fail_workflow(), cancel_workflow(), continue_as_new()))

    def let_time_pass(self, story: Story) -> None:
        due = story.next_due()
        if due is not None and due[0] - story.now < 100 * SECOND:
            story.wait(max(0.0, (due[0] - story.now) / SECOND))

    def post(self) -> None:
        """Bring a message somewhere; its answer only if what it did is durable."""
        heads = list(_heads(self.town.outbox))
        if not heads:
            return
        message = self.dice.choice(heads)
        answer = self.town.carry(message)
        receiver = self.town[message.receiver.workflow_id]
        if self.dice.random() < 0.1:
            # Whoever delivers waits until it is durable or lost.
            receiver.crash()
            return
        receiver.cut()
        if self.dice.random() < 0.2:
            return
        self.town.acknowledge(message, answer)
        sender = self.town[message.sender.workflow_id]
        if self.dice.random() < 0.1:
            sender.crash()
        else:
            sender.cut()

    def settle(self) -> None:
        """Deliver everything, whatever that leads to."""
        for name in IDS:
            self.town[name].cut()
            self.town[name].cuts = True
        while self.town.outbox:
            for message in _heads(self.town.outbox):
                self.town.acknowledge(message, self.town.carry(message))

    def open_runs(self) -> list[Run]:
        runs = [restore(stored) for name in IDS for stored in self.town.rows.runs(self.town[name].key)]
        return [run for run in runs if run.is_open]

    def histories(self) -> list[list[HistoryEvent]]:
        rows = self.town.rows
        return [
            [HistoryEvent.FromString(data) for data in rows.events(stored.run.run_id)]
            for name in IDS
            for stored in rows.runs(self.town[name].key)
        ]


def _heads(outbox: list[Message]) -> Iterator[Message]:
    """Yield the first message of each pair."""
    seen = set()
    for message in outbox:
        pair = (message.sender_run_id, message.receiver)
        if pair not in seen:
            seen.add(pair)
            yield message


@pytest.mark.parametrize("seed", range(12))
def test_all_sides_agree_in_the_end(seed: int) -> None:
    walk = Walk(seed)
    for _ in range(250):
        walk.step()
    walk.settle()
    assert walk.town.rows.inbox == {}
    check_signals(walk.histories())
    check_starts(walk.histories())
    check_pending(walk)


def check_signals(histories: list[list[HistoryEvent]]) -> None:
    """Nobody got a signal twice, and nobody got one that failed."""
    received = Counter(
        event.workflow_execution_signaled_event_attributes.signal_name
        for events in histories
        for event in events
        if event.workflow_execution_signaled_event_attributes.HasField("external_workflow_execution")
    )
    assert all(count == 1 for count in received.values()), received
    for events in histories:
        for event in events:
            failed = event.signal_external_workflow_execution_failed_event_attributes
            if failed.initiated_event_id:
                initiated = events[failed.initiated_event_id - 1]
                name = initiated.signal_external_workflow_execution_initiated_event_attributes.signal_name
                assert not received[name], f"{name} failed and arrived"


def check_starts(histories: list[list[HistoryEvent]]) -> None:
    """No child was started twice."""
    starts = Counter(
        (started.parent_workflow_execution.run_id, started.parent_initiated_event_id)
        for events in histories
        if (started := events[0].workflow_execution_started_event_attributes).parent_initiated_event_id
        and not started.continued_execution_run_id
    )
    assert all(count == 1 for count in starts.values()), starts


def check_pending(walk: Walk) -> None:
    """Whoever waits for a child has one that runs, and nobody waits for an answer."""
    running = walk.open_runs()
    parents = {
        (run.key.workflow_id, run.start.parent_workflow_execution.run_id, run.start.parent_initiated_event_id)
        for run in running
    }
    for run in running:
        if run.mail is None:
            continue
        assert not run.mail.external_signals
        assert not run.mail.external_cancels
        for child in run.mail.children.values():
            assert child.state is ChildState.STARTED
            assert (child.workflow_id, run.run_id, child.initiated_event_id) in parents
