"""What a handler may know of the call it answers, whatever carried it.

A front end gives its own implementation, which looks things up only when asked: most handlers ask nothing. A handler
must never learn which transport it was.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from perdure.server.engine.client_software import UNKNOWN, ClientSoftware


class Call(Protocol):
    """One call: until when its caller waits, and which client software it is."""

    @property
    def deadline(self) -> float | None:
        """Until when the caller waits, in seconds on the event loop's clock (`loop.time()`); None for ever."""

    @property
    def client(self) -> ClientSoftware:
        """Which software calls."""


class DirectCall(msgspec.Struct, frozen=True):
    """A call made inside the process."""

    deadline: float | None = None
    client: ClientSoftware = UNKNOWN
