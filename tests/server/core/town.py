"""Several workflows that write to each other: a story for each, one place where all are stored, and a post.

    town = Town()
    town["order"].start()
    town["order"].decide(start_child("shipment"))
    town.deliver()
    assert town["order"].names()[-2:] == ["ChildWorkflowExecutionStarted", "WorkflowTaskScheduled"]

The post does what the outbox of the engine does, one message at a time, and nothing before a test says so.
"""

from __future__ import annotations

from perdure.server.core.inputs import Acknowledge, Deliver
from perdure.server.core.limits import Limits
from perdure.server.core.messages import Answer, Message, Outcome
from perdure.server.core.records import WorkflowKey
from tests.server.core.rows import Rows
from tests.server.core.story import KEY, Story


class Town:
    """Workflow ids of one namespace, made when they are first asked for."""

    def __init__(self, *, limits: Limits | None = None) -> None:
        self.rows = Rows()
        self._limits = limits
        self._stories: dict[str, Story] = {}

    def __getitem__(self, workflow_id: str) -> Story:
        story = self._stories.get(workflow_id)
        if story is None:
            key = WorkflowKey(KEY.namespace_id, workflow_id)
            story = self._stories[workflow_id] = Story(limits=self._limits, key=key, rows=self.rows)
        return story

    # --- the post -----------------------------------------------------------------------------------------------------

    @property
    def outbox(self) -> list[Message]:
        """What is stored and not acknowledged, each pair in order."""
        return self.rows.outbox()

    def deliver(self) -> list[Answer]:
        """Deliver and acknowledge until the outbox is empty; return the answers."""
        answers = []
        while self.outbox:
            message = self.outbox[0]
            answer = self.carry(message)
            answers.append(answer)
            self.acknowledge(message, answer)
        assert not self.rows.inbox, "an inbox row outlives its message"
        return answers

    def carry(self, message: Message) -> Answer:
        """Deliver one message, for the first or another time, and leave it unacknowledged."""
        received = self.rows.inbox.get((message.sender_run_id, *message.receiver))
        answer = self[message.receiver.workflow_id].do(Deliver(message.body.run_id, message, received))
        assert isinstance(answer, Answer)
        return answer

    def acknowledge(self, message: Message, answer: Answer | None = None) -> None:
        """Bring an answer back."""
        given = Acknowledge(message.sender_run_id, message, answer or Answer(Outcome.DONE))
        self[message.sender.workflow_id].do(given)
