"""An outbox on a table that a test writes directly."""

from __future__ import annotations

from perdure.server.core.inputs import Acknowledge, Deliver, Input
from perdure.server.core.messages import Answer, Message, Outcome, SignalMessage, outbox_record
from perdure.server.core.records import OutboxRecord, WorkflowKey
from perdure.server.engine.background import Background
from perdure.server.engine.cluster.ownership import SoleOwner
from perdure.server.engine.deliveries import Deliveries
from perdure.server.engine.outbox import Outbox
from perdure.server.engine.settings import EngineSettings
from perdure.server.store.interface import MessagePosition, OutboxPage, PairState
from perdure.server.store.memory import MemoryStore
from tests.server.engine.node import Gate, NamespaceIds

SENDER = WorkflowKey("n", "sender")


class Table(MemoryStore):
    """A table of messages that a test writes directly. What is read is what was there when the read began."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: dict[tuple[str, int], Message] = {}
        self.unreadable: list[OutboxRecord] = []
        self.inbox: list[str] = []
        self.gate = Gate()
        self.reads = 0

    async def read_outbox(self, max_messages: int, max_bytes: int, after: MessagePosition | None = None) -> OutboxPage:
        self.reads += 1
        records = [outbox_record(message) for name, message in sorted(self.messages.items()) if name > (after or ("",))]
        records += self.unreadable
        await self.gate.passed()
        return OutboxPage(records[:max_messages], len(records) <= max_messages)

    async def read_pair(self, receiver: WorkflowKey, sender_run_id: str, number: int) -> PairState:
        self.inbox.append(sender_run_id)
        return PairState(None, (sender_run_id, number) in self.messages)


class Post:
    """An outbox on such a table, and what it delivered. A message leaves the table with its acknowledgement."""

    def __init__(self, *, room: int = 100, at_once: int = 100, room_bytes: int = 1_000_000) -> None:
        self.table = Table()
        self.delivered: list[tuple[str, int]] = []
        self.answers: list[Outcome] = []
        self.errors: list[Exception] = []
        self.broken: dict[str, Exception] = {}
        """What the delivery to a receiver fails with, by its workflow id."""
        self.delivering = Gate()
        self.acknowledging = Gate()
        self.namespaces = NamespaceIds("n")
        self.under_way = 0
        self.tried = 0
        self.most_under_way = 0
        settings = EngineSettings(outbox_messages=room, messages_at_once=at_once, outbox_bytes=room_bytes)
        deliveries = Deliveries(self.table, self._submit, Background(), SoleOwner(), None, self.namespaces)
        self.outbox = Outbox(self.table, settings, self._submit, deliveries.deliver, SoleOwner())

    async def _submit(self, key: WorkflowKey, given: Input) -> object:
        if isinstance(given, Acknowledge):
            await self.acknowledging.passed()
            self.answers.append(given.answer.outcome)
            self.table.messages.pop((given.message.sender_run_id, given.message.number), None)
            return None
        assert isinstance(given, Deliver)
        self.tried += 1
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await self.delivering.passed()
            if self.errors:
                raise self.errors.pop(0)
            if key.workflow_id in self.broken:
                raise self.broken[key.workflow_id]
        finally:
            self.under_way -= 1
        self.delivered.append((given.message.sender_run_id, given.message.number))
        return Answer(Outcome.DONE)

    def store(self, run_id: str = "r", number: int = 1, receiver: str = "other", size: int = 0) -> Message:
        """Put a message into the table only, as an earlier life did."""
        body = SignalMessage(5, bytes(size), "")
        message = Message(SENDER, run_id, WorkflowKey("n", receiver), number, 0, body)
        self.table.messages[run_id, number] = message
        return message

    def commit(self, run_id: str = "r", number: int = 1, receiver: str = "other", size: int = 0) -> Message:
        """Do what a commit does: the row, then the effect."""
        message = self.store(run_id, number, receiver, size)
        self.outbox.sent(message)
        return message
