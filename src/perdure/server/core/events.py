"""History events: which attributes message belongs to which event type, and how an event is built.

The attributes message *is* the fact: machines decide by returning one and apply by taking one. This module knows the
protocol's naming and nothing of the rules.
"""

from __future__ import annotations

from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent

NANOS_PER_SECOND = 1_000_000_000


def _attribute_fields() -> dict[type, tuple[int, str]]:
    fields: dict[type, tuple[int, str]] = {}
    for field in HistoryEvent.DESCRIPTOR.oneofs_by_name["attributes"].fields:
        name = field.name.removesuffix("_event_attributes").upper()
        assert field.message_type is not None, "all attributes are messages"
        attributes_class = GetMessageClass(field.message_type)
        fields[attributes_class] = (EventType.Value(f"EVENT_TYPE_{name}"), field.name)
    return fields


_FIELD_OF_CLASS = _attribute_fields()
_FIELD_OF_TYPE = dict(_FIELD_OF_CLASS.values())


def event_type_of(attributes_class: type) -> int:
    """Return the `EventType` whose attributes are of this class."""
    return _FIELD_OF_CLASS[attributes_class][0]


def build_event(event_id: int, at: int, attributes: Message) -> HistoryEvent:
    """Build a history event.

    Args:
        event_id: Its id, 0 for an event that is buffered and gets its id later.
        at: Its time, in nanoseconds since the epoch.
        attributes: Its attributes; their class says its type.
    """
    event_type, field = _FIELD_OF_CLASS[type(attributes)]
    # Field by field: to name them in the constructor takes twice as long.
    event = HistoryEvent()
    event.event_id = event_id
    event.event_type = event_type  # type: ignore[assignment]  # a plain number
    event_time = event.event_time
    event_time.seconds, event_time.nanos = divmod(at, NANOS_PER_SECOND)
    getattr(event, field).CopyFrom(attributes)
    return event


def attributes_of(event: HistoryEvent) -> Message:
    """Return an event's attributes message."""
    attributes: Message = getattr(event, _FIELD_OF_TYPE[event.event_type])
    return attributes


def event_at(event: HistoryEvent) -> int:
    """Return an event's time in nanoseconds since the epoch."""
    event_time = event.event_time
    return event_time.seconds * NANOS_PER_SECOND + event_time.nanos
