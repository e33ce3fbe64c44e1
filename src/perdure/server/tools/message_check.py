"""Whether the messages of one run, sent and received, fit together. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import msgspec

from perdure.server.core.messages import kind_of, message_of
from perdure.server.core.records import InboxRecord, OutboxRecord, WorkflowKey
from perdure.server.store.schema import INBOX, OUTBOX
from perdure.server.store.tools.problem import Problem, deletion
from perdure.server.tools.run_rows import RunRows

_REFUSED = "It will never be delivered, and holds up those after it. Restore a backup in which it is whole."


def message_problems(rows: RunRows) -> Iterator[Problem]:
    """Yield what is wrong with the messages that a run has sent, and with what their receivers know of them.

    Raises:
        msgspec.ValidationError: A value is not of its column's type.
    """
    last_sent: defaultdict[WorkflowKey, int] = defaultdict(int)
    for message in rows.records(OutboxRecord, OUTBOX):
        receiver = WorkflowKey(message.receiver_namespace_id, message.receiver_workflow_id)
        last_sent[receiver] = max(last_sent[receiver], message.number)
        if fault := _fault(message, receiver):
            yield Problem(f"message {message.number} of run {rows.run_id}", fault, _REFUSED)
    for received in rows.records(InboxRecord, INBOX):
        key = WorkflowKey(received.namespace_id, received.workflow_id)
        if received.number > last_sent[key]:
            yield Problem(
                f"inbox of workflow {received.workflow_id}",
                f"remembers message {received.number} of run {rows.run_id}, which is not in the outbox any more",
                deletion(INBOX, rows.run_id),
            )


def _fault(record: OutboxRecord, receiver: WorkflowKey) -> str:
    if receiver == (record.namespace_id, record.workflow_id):
        return "goes to its own workflow id"
    try:
        message = message_of(record)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        return f"cannot be read: {error}"
    if (kind_of(message.body), message.body.initiated_event_id) != (record.kind, record.initiated_event_id):
        return "is not what its row says it is"
    return ""
