"""Until when a long poll may wait: it has to come back empty before its caller gives up, or it looks like a failure."""

from __future__ import annotations

import asyncio
from typing import Final

from perdure.server.handlers.call import Call

TASK_POLL_SECONDS: Final = 60.0
"""A poll for a task ends empty after this."""
HISTORY_POLL_SECONDS: Final = 20.0
"""A wait for new events ends empty after this."""
QUERY_SECONDS: Final = 30.0
"""A query without an answer fails after this."""
_TAIL_SECONDS: Final = 1.0
_TAIL_SHARE: Final = 0.1


def poll_deadline(call: Call, longest_seconds: float) -> float:
    """Return the end of a wait on the clock of the event loop.

    It leaves a second, or a tenth of a short wait, for the empty reply to reach the caller.

    Args:
        call: The call, with its caller's deadline.
        longest_seconds: How long to wait for a caller that is in no hurry.
    """
    now = asyncio.get_running_loop().time()
    if call.deadline is None:
        return now + longest_seconds
    remaining = call.deadline - now
    return now + min(longest_seconds, remaining - min(_TAIL_SECONDS, remaining * _TAIL_SHARE))
