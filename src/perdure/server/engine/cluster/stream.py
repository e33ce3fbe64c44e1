"""A stream between two nodes, as the transport offers it. An interface only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class ByteStream(Protocol):
    """A connection. The end of either side is the end of both.

    `read` and `write` wait, for who takes turns with the other side, as a greeting does. `carry` and `send` are for who
    has many things under way: no task has to be woken for a piece.
    """

    async def read(self) -> bytes | None:
        """Return the next piece of bytes, None at the end."""

    async def write(self, data: bytes) -> None:
        """Send bytes, waiting while the other side does not keep up. Raises OSError where the connection is lost."""

    async def carry(self, take: Callable[[bytes], None]) -> None:
        """Hand each piece over as it arrives, until the end; nothing else may read. What `take` raises is raised."""

    def send(self, data: bytes) -> bool:
        """Send bytes at once; return False, having sent nothing, where the other side does not keep up or is lost."""
