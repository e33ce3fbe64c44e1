"""History events: which attributes message belongs to which event type, and the bytes of an event.

The attributes message *is* the fact: machines decide by returning one and apply by taking one. What stands around it in
a `HistoryEvent` is added as bytes: to build that message for each event, only to serialise it, cost more than anything
else about an event. This module knows the protocol's naming and nothing of the rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from temporalio.api.common.v1 import Link
from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.sdk.v1 import UserMetadata

from perdure.server.core.wire import message_tag, number_tag, time_field, varint

NANOS_PER_SECOND = 1_000_000_000


def _attribute_fields() -> dict[type, tuple[int, str]]:
    fields: dict[type, tuple[int, str]] = {}
    for field in HistoryEvent.DESCRIPTOR.oneofs_by_name["attributes"].fields:
        name = field.name.removesuffix("_event_attributes").upper()
        assert field.message_type is not None, "all attributes are messages"
        attributes_class = GetMessageClass(field.message_type)
        fields[attributes_class] = (EventType.Value(f"EVENT_TYPE_{name}"), field.name)
    return fields


_FIELD_OF_CLASS: Final = _attribute_fields()
_FIELD_OF_TYPE: Final = dict(_FIELD_OF_CLASS.values())
_NUMBERS: Final = {field.name: field.number for field in HistoryEvent.DESCRIPTOR.fields}
_EVENT_ID: Final = number_tag(_NUMBERS["event_id"])
_EVENT_TIME: Final = message_tag(_NUMBERS["event_time"])
_EVENT_TYPE: Final = number_tag(_NUMBERS["event_type"])
_HEAD_OF_TYPE: Final = {
    event_type: _EVENT_TYPE + varint(event_type) + message_tag(_NUMBERS[field])
    for event_type, field in _FIELD_OF_TYPE.items()
}
"""What stands between an event's time and the length of its attributes."""


class Event(msgspec.Struct, gc=False):
    """A fact of a run. What it holds must not be changed once it is recorded, but for what is filled in there."""

    event_id: int
    """0 for an event that is buffered and gets its id later."""
    event_type: int
    at: int
    """Nanoseconds since the epoch."""
    attributes: Message
    user_metadata: UserMetadata | None = None
    links: Sequence[Link] = ()
    data: bytes = b""
    """Its bytes, where they were asked for before it was appended."""

    def serialize(self) -> bytes:
        """Return the bytes of the `HistoryEvent`, exactly as its message would be serialised."""
        attributes = self.attributes.SerializeToString()
        head = _EVENT_ID + varint(self.event_id) if self.event_id else b""
        parts = (
            head,
            time_field(_EVENT_TIME, self.at),
            _HEAD_OF_TYPE[self.event_type],
            varint(len(attributes)),
            attributes,
        )
        if self.user_metadata is None and not self.links:
            return b"".join(parts)
        return b"".join((*parts, HistoryEvent(user_metadata=self.user_metadata, links=self.links).SerializeToString()))


def event_type_of(attributes_class: type) -> int:
    """Return the `EventType` whose attributes are of this class."""
    return _FIELD_OF_CLASS[attributes_class][0]


def build_event(event_id: int, at: int, attributes: Message) -> Event:
    """Build an event.

    Args:
        event_id: Its id, 0 for an event that is buffered and gets its id later.
        at: Its time, in nanoseconds since the epoch.
        attributes: Its attributes, not copied; their class says its type.
    """
    return Event(event_id, _FIELD_OF_CLASS[type(attributes)][0], at, attributes)


def event_of(message: HistoryEvent) -> Event:
    """Return the event that a message from history holds."""
    event = Event(message.event_id, message.event_type, event_at(message), attributes_of(message))
    if message.HasField("user_metadata"):
        event.user_metadata = message.user_metadata
    if message.links:
        event.links = message.links
    return event


def attributes_of(message: HistoryEvent) -> Message:
    """Return the attributes of an event from history."""
    attributes: Message = getattr(message, _FIELD_OF_TYPE[message.event_type])
    return attributes


def event_at(message: HistoryEvent) -> int:
    """Return the time of an event from history, in nanoseconds since the epoch."""
    event_time = message.event_time
    return event_time.seconds * NANOS_PER_SECOND + event_time.nanos
