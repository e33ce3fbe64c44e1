"""What a run waits for from other workflow ids, as rows, and back.

A child has a row of its own. An external signal or cancel is pending as long as its message is in the outbox, so that
row is all there is of it.
"""

from __future__ import annotations

from collections.abc import Sequence

from temporalio.api.history.v1 import HistoryEvent

from perdure.server.core.machines import child, external_cancel, external_signal
from perdure.server.core.mail import Mail, child_record, mail_of
from perdure.server.core.messages import CancelMessage, SignalMessage, StartChildMessage
from perdure.server.core.records import StoredChild, StoredMessage, StoredRun
from perdure.server.core.run import Run

_START = str(StartChildMessage.__struct_config__.tag)
_SIGNAL = str(SignalMessage.__struct_config__.tag)
_CANCEL = str(CancelMessage.__struct_config__.tag)


def store_pending(stored: StoredRun, run: Run, mail: Mail, events: Sequence[HistoryEvent]) -> None:
    """Add what the store would give back of a run's pending children and messages."""
    messages: list[tuple[int, str, int]] = []
    for pending in mail.children.values():
        initiated = events[pending.initiated_event_id - 1].SerializeToString()
        stored.children.append(StoredChild(child_record(run, pending), initiated))
        if pending.state is child.State.INITIATED:
            messages.append((pending.message, _START, pending.initiated_event_id))
    messages += [(each.message, _SIGNAL, each.initiated_event_id) for each in mail.external_signals.values()]
    messages += [(each.message, _CANCEL, each.initiated_event_id) for each in mail.external_cancels.values()]
    for number, kind, initiated_event_id in sorted(messages):
        initiated = events[initiated_event_id - 1].SerializeToString()
        stored.messages.append(StoredMessage(number, kind, initiated_event_id, initiated))


def restore_pending(run: Run, stored: StoredRun) -> None:
    """Give a run read from the store its pending children and messages; a closed one waits for none."""
    if not run.is_open:
        return
    mail = mail_of(run)
    for row in stored.children:
        event = HistoryEvent.FromString(row.initiated_event)
        initiated = event.start_child_workflow_execution_initiated_event_attributes
        mail.children[row.record.initiated_event_id] = child.restored(row.record, initiated)
    for message in stored.messages:
        _restore_message(mail, message)


def _restore_message(mail: Mail, message: StoredMessage) -> None:
    event_id = message.initiated_event_id
    if message.kind == _START and event_id in mail.children:
        pending = mail.children[event_id]
        if pending.state is child.State.INITIATED:
            pending.message = message.number
    elif message.kind == _SIGNAL:
        event = HistoryEvent.FromString(message.initiated_event)
        signal = external_signal.new_external_signal(
            event_id, event.signal_external_workflow_execution_initiated_event_attributes
        )
        mail.external_signals[event_id] = signal
        signal.message = message.number
    elif message.kind == _CANCEL:
        event = HistoryEvent.FromString(message.initiated_event)
        cancel = external_cancel.new_external_cancel(
            event_id, event.request_cancel_external_workflow_execution_initiated_event_attributes
        )
        mail.external_cancels[event_id] = cancel
        cancel.message = message.number
