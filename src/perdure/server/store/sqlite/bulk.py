"""Statements that take a variable number of rows in a single step.

A statement with room for N rows is one step of the database, so its cost does not depend on how busy the event loop's
thread is (see `thread.py`). Room comes in a few sizes, a third or a half apart: what is not used is filled with rows
whose first value is NULL, which every statement here is written to pass over. All texts are built at import.
"""

from __future__ import annotations

import sqlite3
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import chain

from perdure.server.store.rounds import SqlValue


class Bulk:
    """One statement over many rows.

    Args:
        template: The statement, with `{rows}` where the list of rows goes (as in `VALUES {rows}`). A row whose first
            value is NULL must have no effect.
        width: How many values a row has.
        largest: How many rows the largest variant takes, a power of two; more rows take several steps.
    """

    def __init__(self, template: str, width: int, *, largest: int = 512) -> None:
        assert largest & (largest - 1) == 0
        self._largest = largest
        # `sqlite3` binds a number faster than NULL (see `adapters.py`).
        self._padding: list[SqlValue] = [None, *[0] * (width - 1)]
        self._texts: dict[int, str] = {}
        row = f"({', '.join('?' * width)})"
        self._rooms = [room for size in range(largest.bit_length()) for room in _rooms_up_to(1 << size)]
        for room in self._rooms:
            self._texts[room] = template.replace("{rows}", ", ".join([row] * room))

    def steps(self, rows: Sequence[Sequence[SqlValue]]) -> Iterator[tuple[str, list[SqlValue]]]:
        """Yield the statements, with their parameters, that together cover the rows."""
        for first in range(0, len(rows), self._largest):
            part = rows[first : first + self._largest]
            room = self._rooms[bisect_left(self._rooms, len(part))]
            parameters: list[SqlValue] = list(chain.from_iterable(part))
            parameters += self._padding * (room - len(part))
            yield self._texts[room], parameters

    def execute(self, connection: sqlite3.Connection, rows: Sequence[Sequence[SqlValue]]) -> int:
        """Execute over the rows and return how many rows of the table were changed."""
        if not rows:
            return 0
        return sum(connection.execute(text, parameters).rowcount for text, parameters in self.steps(rows))


def _rooms_up_to(size: int) -> tuple[int, ...]:
    """Return a power of two, after the size between it and the one before."""
    return (size * 3 // 4, size) if size > 2 else (size,)
