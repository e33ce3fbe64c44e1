"""Which rows of a table were ever taken: tests ask it, so that no legal move stays untried."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from perdure._machine._table import S, Table, observe


class Coverage:
    """Collects the moves that are taken while it watches, of all machines alike."""

    def __init__(self) -> None:
        self._taken: set[tuple[object, type]] = set()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Collect moves within the block."""
        stop = observe(self.note)
        try:
            yield
        finally:
            stop()

    def note(self, state: object, fact: type) -> None:
        """Collect one move, from this state by this type of fact."""
        self._taken.add((state, fact))

    def untaken(self, table: Table[S]) -> list[str]:
        """Return the rows of a table that were never taken, as `STATE + Fact`, in the table's order."""
        return [f"{state.name} + {fact.__name__}" for state, fact in table if (state, fact) not in self._taken]
