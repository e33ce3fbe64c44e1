"""The engine of a node, as its cluster knows it. An interface only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from perdure.server.store.interface import Claim, ShardMove


class Node(Protocol):
    """What becoming and ceasing to be an owner means for the engine."""

    def gained(self, shards: frozenset[int]) -> None:
        """This node serves shards that it did not serve before."""

    def released(self, shards: frozenset[int]) -> None:
        """This node does not serve these shards any more: forget what is held of them."""

    async def give_away(self, moves: Sequence[ShardMove]) -> None:
        """Write the moves behind all that is collected for their shards. Raises ServerError."""

    async def replaced(self) -> None:
        """This node's place was taken: write nothing more, and forget everything."""

    def resume(self, claim: Claim) -> None:
        """Begin to write again, as the holder of a new claim."""

    def give_up(self) -> None:
        """End the process: another one uses this node's name."""

    def view_changed(self) -> None:
        """Something in the database has changed, be it a namespace."""

    def linked(self) -> None:
        """Another node can be reached that could not: what was announced meanwhile may have been missed."""
