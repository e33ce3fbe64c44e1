"""The bytes of an event are those of its protocol message, whatever it holds."""

from __future__ import annotations

import pytest
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from temporalio.api.common.v1 import Link, Payload
from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import (
    HistoryEvent,
    TimerStartedEventAttributes,
    WorkflowExecutionSignaledEventAttributes,
)
from temporalio.api.sdk.v1 import UserMetadata

from perdure.server.core.events import build_event, event_at, event_of, event_type_of

AT = 1_700_000_000_000_000_321
ATTRIBUTES = [
    GetMessageClass(field.message_type)
    for field in HistoryEvent.DESCRIPTOR.oneofs_by_name["attributes"].fields
    if field.message_type is not None
]


@pytest.mark.parametrize("attributes_class", ATTRIBUTES, ids=lambda kind: kind.DESCRIPTOR.name)
def test_every_type_of_event_reads_back_and_is_serialised_as_its_message_is(attributes_class: type[Message]) -> None:
    data = build_event(300, AT, attributes_class()).serialize()
    read = HistoryEvent.FromString(data)
    assert read.SerializeToString() == data
    assert (read.event_id, event_at(read), read.event_type) == (300, AT, event_type_of(attributes_class))
    assert type(getattr(read, read.WhichOneof("attributes") or "")) is attributes_class


@pytest.mark.parametrize("event_id", [0, 1, 127, 128, 16_383, 16_384, 51_200])
@pytest.mark.parametrize("at", [0, 1, 999_999_999, 1_000_000_000, AT])
def test_numbers_of_every_length_are_written(event_id: int, at: int) -> None:
    data = build_event(event_id, at, TimerStartedEventAttributes(timer_id="t" * event_id)).serialize()
    read = HistoryEvent.FromString(data)
    assert (read.event_id, event_at(read)) == (event_id, at)
    assert read.timer_started_event_attributes.timer_id == "t" * event_id
    assert read.SerializeToString() == data


def test_summary_and_links_are_kept() -> None:
    event = build_event(7, AT, WorkflowExecutionSignaledEventAttributes(signal_name="s"))
    event.user_metadata = UserMetadata(summary=Payload(data=b"why"))
    event.links = [Link(workflow_event=Link.WorkflowEvent(workflow_id="w", run_id="r"))]
    read = HistoryEvent.FromString(event.serialize())
    assert read.SerializeToString() == event.serialize()
    assert event_of(read) == event
    assert read.event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED
