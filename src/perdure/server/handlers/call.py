"""What a handler may know of the call it answers, whatever carried it.

A front end gives its own implementation, which looks things up only when asked: most handlers ask nothing. A handler
must never learn which transport it was.
"""

from __future__ import annotations

from typing import Protocol

import msgspec


class Call(Protocol):
    """One call: until when its caller waits, and which client software it is."""

    @property
    def deadline(self) -> float | None:
        """Until when the caller waits, in seconds on the event loop's clock (`loop.time()`); None for ever."""

    @property
    def client_name(self) -> str:
        """The caller's `client-name`, like `temporal-python`; empty where it names none."""

    @property
    def client_version(self) -> str:
        """The caller's `client-version`; empty where it names none."""


class DirectCall(msgspec.Struct, frozen=True):
    """A call made inside the process."""

    deadline: float | None = None
    client_name: str = ""
    client_version: str = ""
