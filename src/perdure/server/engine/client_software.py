"""What a caller says of the software it uses, in the headers that SDKs send with every call.

It is the caller's word: what it decides must do no harm where it is wrong.
"""

from __future__ import annotations

from typing import Final, NamedTuple

_FOLLOWS_RUNS: Final = "follows-next-run-id"


class ClientSoftware(NamedTuple):
    """Which software calls; empty where it does not say."""

    name: str = ""
    """Its `client-name`, like `temporal-python`."""
    version: str = ""
    """Its `client-version`."""
    features: str = ""
    """Its `supported-features`: what it can do beyond what all clients can, separated by commas."""

    @property
    def follows_runs(self) -> bool:
        """Whether it goes on to the next run by itself where a run was retried or is repeated by a cron schedule."""
        return _FOLLOWS_RUNS in self.features.split(",")


UNKNOWN: Final = ClientSoftware()
