"""What the matcher asks of the other nodes of a cluster."""

from __future__ import annotations

from typing import Protocol

from perdure.server.engine.matching.task_queue import QueueKey


class Neighbours(Protocol):
    """The other nodes of a cluster, as far as task queues concern them; see `cluster/queues.py`."""

    def polled(self, key: QueueKey, *, is_sticky: bool) -> None:
        """Note that a poll of a queue has come to this node."""

    def source(self, key: QueueKey, *, has_local: bool) -> str | None:
        """Return the node that a poll is to visit now, None where it should see to this node's own tasks."""

    def stays(self, key: QueueKey, node: str) -> None:
        """Note that a poll that was to visit a node has gone before."""

    def polls(self, key: QueueKey) -> bool:
        """Return whether another node polls a queue."""

    def left_over(self, key: QueueKey, count: int) -> None:
        """Note that this node holds offers for a queue, for which no poll waits here."""
