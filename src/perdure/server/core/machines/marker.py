"""Markers: facts of the worker's own that the server only keeps (local activities, side effects, patches)."""

from __future__ import annotations

from temporalio.api.command.v1 import Command
from temporalio.api.enums.v1 import CommandType
from temporalio.api.history.v1 import MarkerRecordedEventAttributes

from perdure.server.core import registry
from perdure.server.core.checks import check_record_marker
from perdure.server.core.command_batch import CommandBatch, metadata_of
from perdure.server.core.transition import Transition


def _check(batch: CommandBatch, command: Command) -> None:
    check_record_marker(command.record_marker_command_attributes, batch.facts, batch.limits)


def _record(t: Transition, command: Command) -> None:
    attributes = command.record_marker_command_attributes
    marker = MarkerRecordedEventAttributes(
        marker_name=attributes.marker_name,
        details=attributes.details,
        workflow_task_completed_event_id=t.run.last_task_completed_event_id,
    )
    if attributes.HasField("header"):
        marker.header.CopyFrom(attributes.header)
    if attributes.HasField("failure"):
        marker.failure.CopyFrom(attributes.failure)
    t.record(marker, user_metadata=metadata_of(command))


registry.command(CommandType.COMMAND_TYPE_RECORD_MARKER, check=_check, record=_record)
