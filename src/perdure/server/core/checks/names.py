"""Names that callers and workers choose: how long they may be, which task queues there may be, which priorities."""

from __future__ import annotations

from typing import Final

from temporalio.api.common.v1 import Priority
from temporalio.api.enums.v1 import TaskQueueKind
from temporalio.api.taskqueue.v1 import TaskQueue

from perdure.server.core.errors import InvalidArgument
from perdure.server.core.limits import Limits

_INTERNAL_QUEUE: Final = "temporal-sys-per-ns-tq"
_NORMAL: Final = TaskQueueKind.TASK_QUEUE_KIND_NORMAL
_STICKY: Final = TaskQueueKind.TASK_QUEUE_KIND_STICKY

RESERVED_QUEUE_PREFIX = "/_sys/"
"""No task queue may be called so: in Temporal's own tools such a name means a partition of a queue."""


def byte_length(text: str) -> int:
    """Return the length of a name in UTF-8 bytes, which is what limits count."""
    return len(text) if text.isascii() else len(text.encode())


def is_too_long(name: str, limits: Limits) -> bool:
    """Whether a name is longer than an id may be."""
    return byte_length(name) > limits.id_length


def has_nul(name: str) -> bool:
    """Whether a name has a NUL character, which not every store can hold."""
    return "\0" in name


def normalize_task_queue(task_queue: TaskQueue | None, limits: Limits, *, default_name: str = "") -> TaskQueue:
    """Check the task queue of a request or a command and return a copy with its kind and name filled in.

    Args:
        task_queue: The queue, None where the message does not have the field.
        limits: The limits of the namespace.
        default_name: The name where the queue has none; empty if it must have one.

    Raises:
        InvalidArgument: If it is missing, nameless, too long, reserved or not text that can be stored.
    """
    if task_queue is None:
        raise InvalidArgument("taskQueue is not set")
    normalized = TaskQueue()
    normalized.CopyFrom(task_queue)
    fill_in_task_queue(normalized, limits, default_name=default_name)
    return normalized


def fill_in_task_queue(task_queue: TaskQueue, limits: Limits, *, default_name: str = "") -> None:
    """Do the same in place, for a task queue that is set. Raises InvalidArgument."""
    name = task_queue.name
    if not name:
        name = task_queue.name = default_name
    if not name:
        raise InvalidArgument("missing task queue name")
    if is_too_long(name, limits):
        raise InvalidArgument("taskQueue length exceeds limit")
    if has_nul(name):
        raise InvalidArgument("taskQueue contains a NUL character")
    if name.startswith(RESERVED_QUEUE_PREFIX):
        raise InvalidArgument(f"task queue name cannot start with reserved prefix {RESERVED_QUEUE_PREFIX}")
    kind = task_queue.kind
    if not kind:
        task_queue.kind = _NORMAL
    elif kind == _STICKY and is_too_long(task_queue.normal_name, limits):
        raise InvalidArgument("taskQueue length exceeds limit")


def refuse_internal_queue(name: str, *, parent: str = "") -> None:
    """Refuse the queue of the server's own workflows in a namespace, unless it is one of these that asks.

    Args:
        name: The queue.
        parent: That of the workflow whose command names it; empty where a client does.

    Raises:
        InvalidArgument: A user's workflow or client asks for it.
    """
    if name != _INTERNAL_QUEUE or parent == _INTERNAL_QUEUE:
        return
    where = f" (in parent component task queue: {parent})" if parent else ""
    raise InvalidArgument(f"cannot use internal per-namespace task queue:{name}{where}")


def check_priority(priority: Priority, limits: Limits) -> None:
    """Refuse a priority that cannot be meant; an empty one is right. Raises InvalidArgument."""
    if priority.priority_key < 0:
        raise InvalidArgument("priority key can't be negative")
    if byte_length(priority.fairness_key) > limits.fairness_key_length:
        raise InvalidArgument("fairness key length exceeds limit")
    if priority.fairness_weight < 0:
        raise InvalidArgument("must be greater than zero")
