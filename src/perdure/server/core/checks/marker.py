"""Checks of RecordMarker."""

from __future__ import annotations

from typing import Final

from temporalio.api.command.v1 import RecordMarkerCommandAttributes
from temporalio.api.enums.v1 import WorkflowTaskFailedCause

from perdure.server.core.checks.bad_command import BadCommand
from perdure.server.core.checks.facts import RunFacts
from perdure.server.core.checks.names import byte_length, is_too_long
from perdure.server.core.checks.sizes import payloads_map_size
from perdure.server.core.limits import Limits

_BAD: Final = WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_BAD_RECORD_MARKER_ATTRIBUTES


def check_record_marker(attributes: RecordMarkerCommandAttributes, facts: RunFacts, limits: Limits) -> None:
    """Refuse a marker without a proper name; too large details end the run. Raises BadCommand."""
    name = attributes.marker_name
    if not name:
        raise BadCommand(_BAD, "MarkerName is not set on RecordMarkerCommand.")
    if is_too_long(name, limits):
        raise BadCommand(
            _BAD,
            "MarkerName on RecordMarkerCommand exceeds length limit. "
            f"MarkerName={name} Length={byte_length(name)} Limit={limits.id_length}",
        )
    if payloads_map_size(attributes.details) > limits.blob_size_error:
        raise BadCommand(_BAD, "RecordMarkerCommandAttributes.Details exceeds size limit.", terminate=True)
