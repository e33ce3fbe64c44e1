"""Checks of the fields that many requests share: ids, names, task queues, durations, links, sizes.

Each raises InvalidArgument with the words Temporal's server uses and changes at most what it says it fills in. Lengths
are in UTF-8 bytes. A check here must never look at the state of a run.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from temporalio.api.common.v1 import Link, WorkflowExecution, WorkflowType
from temporalio.api.enums.v1 import EventType
from temporalio.api.taskqueue.v1 import TaskQueue

from perdure.server.core.checks.names import has_nul, is_too_long, normalize_task_queue, refuse_internal_queue
from perdure.server.core.durations import cap_duration, duration_fault
from perdure.server.core.errors import InvalidArgument
from perdure.server.core.limits import Limits

_RUN_ID = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")
_LINK_SIZE_MAX = 4000


def check_text(field: str, value: str, limits: Limits) -> None:
    """Refuse an id or a name that is too long, or that a database may not be able to hold."""
    if is_too_long(value, limits):
        raise InvalidArgument(f"{field} length exceeds limit.")
    if has_nul(value):
        raise InvalidArgument(f"{field} contains a NUL character.")


def check_workflow_id(workflow_id: str, limits: Limits) -> None:
    """Refuse an unset or unusable workflow id."""
    if not workflow_id:
        raise InvalidArgument("WorkflowId is not set on request.")
    check_text("WorkflowId", workflow_id, limits)


def check_workflow_type(workflow_type: WorkflowType, limits: Limits) -> None:
    """Refuse an unset or unusable workflow type."""
    name = workflow_type.name
    if not name:
        raise InvalidArgument("WorkflowType is not set on request.")
    check_text("WorkflowType", name, limits)


def check_signal_name(name: str, limits: Limits) -> None:
    """Refuse an unset or unusable signal name."""
    if not name:
        raise InvalidArgument("SignalName is not set on request.")
    check_text("SignalName", name, limits)


def check_execution(is_set: bool, execution: WorkflowExecution) -> None:
    """Refuse an execution that cannot name one.

    Args:
        is_set: Whether the request has the field at all.
        execution: The field. Its run id may be empty: the current run.
    """
    if not is_set:
        raise InvalidArgument("Execution is not set on request.")
    workflow_id = execution.workflow_id
    if not workflow_id:
        raise InvalidArgument("WorkflowId is not set on request.")
    if has_nul(workflow_id):
        raise InvalidArgument("WorkflowId contains a NUL character.")
    run_id = execution.run_id
    if run_id and not _RUN_ID.fullmatch(run_id):
        raise InvalidArgument("Invalid RunId.")


def check_run_id(run_id: str) -> None:
    """Refuse a run id that is not a UUID. Empty is right: the current run."""
    if run_id and not _RUN_ID.fullmatch(run_id):
        raise InvalidArgument("Invalid RunId.")


def request_id_or_new(request_id: str, limits: Limits) -> str:
    """Return the request id, a random one where the caller sent none."""
    if not request_id:
        return str(uuid.uuid4())
    check_text("RequestId", request_id, limits)
    return request_id


def check_task_queue(is_set: bool, task_queue: TaskQueue, limits: Limits) -> None:
    """Refuse a task queue nobody can poll; fill in the kind of one that leaves it open.

    Args:
        is_set: Whether the request has the field at all.
        task_queue: The field.
        limits: For the length of names.
    """
    normalized = normalize_task_queue(task_queue if is_set else None, limits)
    if has_nul(normalized.normal_name):
        raise InvalidArgument("taskQueue contains a NUL character")
    task_queue.kind = normalized.kind


def check_user_task_queue(is_set: bool, task_queue: TaskQueue, limits: Limits) -> None:
    """As `check_task_queue`, for a queue that a new workflow is put on."""
    check_task_queue(is_set, task_queue, limits)
    refuse_internal_queue(task_queue.name)


def check_duration(message: str, duration: Duration) -> None:
    """Refuse a duration that is negative and cut one that is absurdly long, in place; `message` opens the refusal."""
    if fault := duration_fault(duration):
        raise InvalidArgument(f"{message} cause: {fault}")
    cap_duration(duration)


def check_blob_size(blob: Message, limits: Limits) -> None:
    """Refuse payloads that are too large for one event."""
    if is_blob_too_large(blob, limits):
        raise InvalidArgument("Blob data size exceeds limit.")


def is_blob_too_large(blob: Message, limits: Limits) -> bool:
    """Say whether payloads, or a failure, are too large for one event."""
    return blob.ByteSize() > limits.blob_size_error


def check_links(links: Sequence[Link], limits: Limits) -> None:
    """Refuse links that are too many, too large, or that point nowhere."""
    if not links:
        return
    if len(links) > limits.links_per_request:
        raise InvalidArgument(f"cannot attach more than {limits.links_per_request} links per request, got {len(links)}")
    for link in links:
        if link.ByteSize() > _LINK_SIZE_MAX:
            raise InvalidArgument(f"link exceeds allowed size of {_LINK_SIZE_MAX}, got {link.ByteSize()}")
        _check_link(link)


def _check_link(link: Link) -> None:
    match link.WhichOneof("variant"):
        case "workflow_event":
            _check_event_link(link.workflow_event)
        case "batch_job":
            if not link.batch_job.job_id:
                raise InvalidArgument("batch job link must not have an empty job ID")
        case _:
            raise InvalidArgument("unsupported link variant")


def _check_event_link(link: Link.WorkflowEvent) -> None:
    for field, value in (("namespace", link.namespace), ("workflow ID", link.workflow_id), ("run ID", link.run_id)):
        if not value:
            raise InvalidArgument(f"workflow event link must not have an empty {field} field")
    reference = link.event_ref
    if reference.event_id and reference.event_type == EventType.EVENT_TYPE_UNSPECIFIED:
        raise InvalidArgument("workflow event link ref cannot have an unspecified event type and a non-zero event ID")
