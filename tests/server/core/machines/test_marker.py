"""Markers: kept in history as the worker gave them, and nothing else."""

from __future__ import annotations

from temporalio.api.common.v1 import Header
from temporalio.api.failure.v1 import Failure
from temporalio.api.history.v1 import MarkerRecordedEventAttributes

from tests.server.core.commands import payload, payloads, record_marker
from tests.server.core.stories import DECIDED, started_story


def test_a_marker_is_recorded_as_it_was_given() -> None:
    story = started_story()
    command = record_marker("Version")
    attributes = command.record_marker_command_attributes
    attributes.header.CopyFrom(Header(fields={"trace": payload("7")}))
    attributes.failure.CopyFrom(Failure(message="local activity failed"))
    command.user_metadata.summary.CopyFrom(payload("a patch"))
    story.decide(command)
    assert story.names() == [*DECIDED, "MarkerRecorded"]
    marker = story.last(MarkerRecordedEventAttributes)
    assert marker.marker_name == "Version"
    assert marker.details["change"] == payloads("1")
    assert marker.workflow_task_completed_event_id == 4
    assert marker.header == attributes.header
    assert marker.failure == attributes.failure
    assert story.history()[4].user_metadata.summary == payload("a patch")


def test_a_marker_does_not_wake_the_workflow() -> None:
    story = started_story()
    story.decide(record_marker(), record_marker("SideEffect"))
    assert story.names() == [*DECIDED, "MarkerRecorded", "MarkerRecorded"]
    assert not story.run.task.is_pending
