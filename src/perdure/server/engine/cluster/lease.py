"""A node's lease as the node itself may believe it: counted from when the renewal was sent, less a margin.

The database grants leases by its own clock. The node counts on a clock that goes on while the machine or the process
is suspended, so a node that was paused knows when it wakes that it may have been replaced. Pure but for that clock.
"""

from __future__ import annotations

import math
from collections.abc import Callable


class Lease:
    """One node's lease.

    Args:
        uptime: A clock in seconds that runs through suspension.
        seconds: What the database grants.
        margin: The share of it by which the node believes it to be shorter.
    """

    def __init__(self, uptime: Callable[[], float], seconds: float, margin: float) -> None:
        self.seconds = seconds
        self._uptime = uptime
        self._believed_seconds = seconds * (1 - margin)
        self._valid_until = -math.inf
        self._unbroken_since = math.inf

    def renewed(self, sent_at: float) -> None:
        """Note that the database has prolonged it by a request sent at `sent_at`, on the same clock."""
        if sent_at >= self._valid_until:
            self._unbroken_since = sent_at
        self._valid_until = max(self._valid_until, sent_at + self._believed_seconds)

    def lose(self) -> None:
        """Note that another node has declared this one dead."""
        self._valid_until = -math.inf
        self._unbroken_since = math.inf

    def is_valid(self) -> bool:
        """Return whether no other node can have taken what this one owns."""
        return self._uptime() < self._valid_until

    def may_judge_others(self) -> bool:
        """Return whether this node has held its lease without a break for as long as a lease lasts.

        Until then the others may have been kept from renewing by what kept this node from it: the database was away.
        """
        return self.is_valid() and self._uptime() - self._unbroken_since >= self.seconds
