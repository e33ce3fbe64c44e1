"""Taking in messages of other workflow ids, and the answers to one's own. Called by the entity.

A message has its effect once: the receiver's inbox keeps the number of the last message of each sending run that had
one, written with it. What was refused had none and is simply decided anew when it comes again. The row of the inbox
goes with that of the outbox, in the transaction in which the sender notes the answer: it could only come again from
there. A message that is withdrawn is followed by another to the same id, with which its row goes.

What is raised here is no answer: the message comes again. So nothing may be refused by raising but for what passes soon
by itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from perdure.server.core import starting
from perdure.server.core.inputs import Acknowledge, Deliver
from perdure.server.core.messages import Answer, Message, Outcome, StartChildMessage
from perdure.server.core.records import InboxRecord, MailWrite, WorkflowKey
from perdure.server.core.registry import answer_handlers, message_handlers
from perdure.server.core.run import Run
from perdure.server.core.transition import Circumstances, Transition


@dataclass(slots=True)
class Notes:
    """What an entity has to write about messages besides what they did to its runs."""

    inbox: list[InboxRecord] = field(default_factory=list)
    acknowledged: list[Message] = field(default_factory=list)

    def take(self, write: MailWrite) -> None:
        """Move the notes into a write."""
        write.inbox.extend(self.inbox)
        for message in self.acknowledged:
            write.outbox_removed.append((message.sender_run_id, message.number))
            write.inbox_removed.append((message.sender_run_id, *message.receiver, message.number))


def deliver(
    key: WorkflowKey, target: Run | None, given: Deliver, world: Circumstances
) -> tuple[list[Transition], Answer]:
    """Carry a message out.

    Args:
        key: The receiver.
        target: The run the message names, or the current one; None where there is none.
        given: The message.
        world: The time and the rest.
    """
    message = given.message
    if given.received is not None and given.received.number >= message.number:
        return [], Answer(Outcome.DONE, given.received.run_id)
    if isinstance(message.body, StartChildMessage):
        return starting.start_child(key, target, message, message.body, world)
    if target is None:
        return [], Answer(Outcome.NOT_FOUND)
    t = Transition(target, world, world.now)
    answer = message_handlers[type(message.body)](t, message, message.body)
    return [t], answer


def acknowledge(sender: Run | None, given: Acknowledge, world: Circumstances) -> list[Transition]:
    """Tell the sending run what became of its message; one that is closed or gone does not want to know."""
    handler = answer_handlers.get(type(given.message.body))
    if sender is None or not sender.is_open or handler is None:
        return []
    t = Transition(sender, world, world.now)
    handler(t, given.message.body, given.answer)
    return [t]


def inbox_record(message: Message, answer: Answer) -> InboxRecord:
    """Return the row by which a message that comes again is known."""
    return InboxRecord(message.sender_run_id, *message.receiver, message.number, answer.run_id)
