"""What a run has to do with other workflow ids: messages it sent, and what waits for their answers.

A run has this only once it has dealt with another id: one that keeps to itself pays nothing for it. `send` and
`withdraw` are the only ways to the outbox.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from perdure.server.core.effects import MessageSent, MessageWithdrawn
from perdure.server.core.messages import Body, Message, outbox_record
from perdure.server.core.records import ChildRecord, EntityWrite, MailWrite, WorkflowKey
from perdure.server.core.run import Run
from perdure.server.core.transition import Transition

if TYPE_CHECKING:
    from perdure.server.core.machines.child import Child
    from perdure.server.core.machines.external_cancel import ExternalCancel
    from perdure.server.core.machines.external_signal import ExternalSignal


@dataclass(slots=True)
class Mail:
    """The dealings of one run with other workflow ids; what is pending goes by the id of its Initiated event."""

    sent: int = 0
    """The number of the last message; not in history."""
    children: dict[int, Child] = field(default_factory=dict)
    external_signals: dict[int, ExternalSignal] = field(default_factory=dict)
    external_cancels: dict[int, ExternalCancel] = field(default_factory=dict)

    # --- since the last cut -------------------------------------------------------------------------------------------
    outgoing: dict[int, Message] = field(default_factory=dict, compare=False)
    withdrawn: list[int] = field(default_factory=list, compare=False)
    changed_children: set[int] = field(default_factory=set, compare=False)

    @property
    def pending(self) -> int:
        """How much the run waits for."""
        return len(self.children) + len(self.external_signals) + len(self.external_cancels)

    def drop_pending(self) -> None:
        """Forget what is pending: the run has closed."""
        self.changed_children.update(self.children)
        self.children.clear()
        self.external_signals.clear()
        self.external_cancels.clear()

    def child_got_its_started_event(self, initiated_event_id: int, event_id: int) -> None:
        """Note the id of a Started event that was buffered until now."""
        child = self.children.get(initiated_event_id)
        if child is not None:
            child.started_event_id = event_id
            self.changed_children.add(initiated_event_id)


def mail_of(run: Run) -> Mail:
    """Return a run's mail, which it has from now on."""
    if run.mail is None:
        run.mail = Mail()
    return run.mail


def send(t: Transition, receiver: WorkflowKey, body: Body) -> int:
    """Send a message in this step's transaction.

    Returns:
        Its number, greater than that of any message the run sent before.
    """
    run = t.run
    assert receiver != run.key, "messages go between different workflow ids"
    mail = mail_of(run)
    mail.sent += 1
    message = Message(run.key, run.run_id, receiver, mail.sent, t.now, body)
    mail.outgoing[mail.sent] = message
    t.touch()
    t.effects.append(MessageSent(message))
    return mail.sent


def withdraw(t: Transition, receiver: WorkflowKey, number: int) -> bool:
    """Take back a message that is not acknowledged; return whether it may have been delivered all the same.

    A delivery that has begun goes on. What is sent to the same id afterwards comes after it.
    """
    mail = mail_of(t.run)
    t.touch()
    t.effects.append(MessageWithdrawn(t.run.run_id, receiver, number))
    if mail.outgoing.pop(number, None) is not None:
        return False
    mail.withdrawn.append(number)
    return True


def mail_write(write: EntityWrite) -> MailWrite:
    """Return the part of a write that is about messages, which it has from now on."""
    if write.mail is None:
        write.mail = MailWrite()
    return write.mail


def take_mail(write: MailWrite, run: Run, mail: Mail) -> None:
    """Add to a write what changed in a run's mail since the last cut, and start anew."""
    write.outbox.extend(map(outbox_record, mail.outgoing.values()))
    write.outbox_removed.extend((run.run_id, number) for number in mail.withdrawn)
    for initiated_event_id in sorted(mail.changed_children):
        child = mail.children.get(initiated_event_id)
        if child is None:
            write.children_removed.append((run.run_id, initiated_event_id))
        else:
            write.children.append(child_record(run, child))
    mail.outgoing.clear()
    mail.withdrawn.clear()
    mail.changed_children.clear()


def child_record(run: Run, child: Child) -> ChildRecord:
    """Return a pending child as its row."""
    return ChildRecord(
        run.run_id,
        child.initiated_event_id,
        *run.key,
        child.workflow_id,
        child.run_id or None,
        child.attributes.workflow_type.name,
        child.started_event_id,
        child.initiated_at,
    )
