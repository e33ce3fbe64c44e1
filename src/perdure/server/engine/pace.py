"""A pace: so many things per second, whoever does them, one after the other in the order in which they asked."""

from __future__ import annotations

import asyncio


class Pace:
    """Spreads work over time.

    What was not done while nobody asked is not made up for: there are no bursts.

    Args:
        per_second: How many things.
    """

    def __init__(self, per_second: int) -> None:
        self.per_second = per_second
        self._free_at = 0.0

    async def turn(self, count: int) -> None:
        """Wait until it is the caller's turn to do so many things."""
        now = asyncio.get_running_loop().time()
        begins_at = max(now, self._free_at)
        self._free_at = begins_at + count / self.per_second
        await asyncio.sleep(begins_at - now)
