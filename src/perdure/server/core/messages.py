"""Messages between workflow ids: what one run says to another workflow id, and what it is answered. Data only.

A message is written with the transition that sends it and delivered until it is acknowledged; a refusal is an
acknowledgement too. Its number counts the messages of the sending run, so it rises within every pair of a sending run
and a receiving id, in which messages are delivered in order. A body carries the protocol's own messages as bytes.

`Body` is stored: fields of its types are only ever added at the end, with a default, and tags never change.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, assert_never

import msgspec

from perdure.server.core.records import OutboxRecord, WorkflowKey


class StartChildMessage(msgspec.Struct, gc=False, frozen=True, array_like=True, tag="start child"):
    """Start a run under the receiver's id as a child of the sender."""

    initiated_event_id: int
    attributes: bytes
    """A StartChildWorkflowExecutionInitiatedEventAttributes."""
    parent_namespace: str
    root_workflow_id: str
    root_run_id: str
    user_metadata: bytes
    priority: bytes
    """A `Priority`: the child's own over its parent's; empty for none."""
    run_id: str = ""


class SignalMessage(msgspec.Struct, gc=False, frozen=True, array_like=True, tag="signal"):
    """Signal a run of the receiver."""

    initiated_event_id: int
    attributes: bytes
    """A SignalExternalWorkflowExecutionInitiatedEventAttributes."""
    run_id: str
    """Which run; empty for the current one."""


class CancelMessage(msgspec.Struct, gc=False, frozen=True, array_like=True, tag="request cancel"):
    """Request the cancellation of a run of the receiver."""

    initiated_event_id: int
    attributes: bytes
    """A RequestCancelExternalWorkflowExecutionInitiatedEventAttributes."""
    run_id: str
    """Which run; empty for the current one."""


class ParentClosedMessage(msgspec.Struct, gc=False, frozen=True, array_like=True, tag="parent closed"):
    """The sender has closed, and its child, whichever run of it is the current one, is to end by this policy."""

    policy: int
    """A `ParentClosePolicy`."""
    first_run_id: str
    """The first run of the child; empty where the sender never heard that it started."""
    initiated_event_id: int = 0
    run_id: str = ""


class ChildClosedMessage(msgspec.Struct, gc=False, frozen=True, array_like=True, tag="child closed"):
    """The last run of a child has closed."""

    run_id: str
    """The run of the receiver that is the parent."""
    parent_initiated_event_id: int
    first_run_id: str
    """The child's first run."""
    closing_event: bytes
    initiated_event_id: int = 0


Body = StartChildMessage | SignalMessage | CancelMessage | ParentClosedMessage | ChildClosedMessage


class Message(msgspec.Struct, gc=False):
    """One message on its way."""

    sender: WorkflowKey
    sender_run_id: str
    receiver: WorkflowKey
    number: int
    sent_at: int
    body: Body


class Outcome(Enum):
    """What became of a message at its receiver. All but `DONE` are refusals."""

    DONE = "done"
    NOT_FOUND = "not found"
    CLOSED = "closed"
    ID_TAKEN = "id taken"
    LIMIT_EXCEEDED = "limit exceeded"
    NAMESPACE_NOT_FOUND = "namespace not found"


class Answer(msgspec.Struct, gc=False):
    """A receiver's acknowledgement."""

    outcome: Outcome
    run_id: str = ""
    """The run the message had its effect on."""


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Body).decode


def kind_of(body: Body) -> str:
    """Return the name of a message's kind, for people and for the store."""
    kind = body.__struct_config__.tag
    assert isinstance(kind, str), "every body has a tag"
    return kind


def size_of(body: Body) -> int:
    """Return about how many bytes a body takes: those of the protocol's messages in it."""
    match body:
        case StartChildMessage():
            return len(body.attributes) + len(body.user_metadata) + len(body.priority)
        case SignalMessage() | CancelMessage():
            return len(body.attributes)
        case ChildClosedMessage():
            return len(body.closing_event)
        case ParentClosedMessage():
            return 0
        case _:
            assert_never(body)


def outbox_record(message: Message) -> OutboxRecord:
    """Return a message as its row."""
    body = message.body
    return OutboxRecord(
        message.sender_run_id,
        message.number,
        *message.sender,
        *message.receiver,
        kind_of(body),
        body.initiated_event_id,
        message.sent_at,
        _encode(body),
    )


def message_of(record: OutboxRecord) -> Message:
    """Return the message of a row."""
    return Message(
        WorkflowKey(record.namespace_id, record.workflow_id),
        record.run_id,
        WorkflowKey(record.receiver_namespace_id, record.receiver_workflow_id),
        record.number,
        record.sent_at,
        _decode(record.body),
    )
