"""A stream between two nodes, as the transport offers it. An interface only."""

from __future__ import annotations

from typing import Protocol


class ByteStream(Protocol):
    """A connection. The end of either side is the end of both."""

    async def read(self) -> bytes | None:
        """Return the next piece of bytes, None at the end."""

    async def write(self, data: bytes) -> None:
        """Send bytes, waiting while the other side does not keep up. Raises OSError where the connection is lost."""
