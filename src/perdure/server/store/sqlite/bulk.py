"""Statements that take a variable number of rows in a single step.

A statement with room for N rows is one step of the database, so its cost does not depend on how busy the event loop's
thread is (see `thread.py`). Room comes in powers of two: what is not used is filled with NULL, which every statement
here is written to pass over. All texts are built at import.
"""

from __future__ import annotations

import sqlite3
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
        self._width = width
        self._largest = largest
        self._texts: dict[int, str] = {}
        row = f"({', '.join('?' * width)})"
        room = 1
        while room <= largest:
            self._texts[room] = template.replace("{rows}", ", ".join([row] * room))
            room *= 2

    def steps(self, rows: Sequence[Sequence[SqlValue]]) -> Iterator[tuple[str, list[SqlValue]]]:
        """Yield the statements, with their parameters, that together cover the rows."""
        for first in range(0, len(rows), self._largest):
            part = rows[first : first + self._largest]
            room = 1 << (len(part) - 1).bit_length()
            parameters: list[SqlValue] = list(chain.from_iterable(part))
            parameters += [None] * (self._width * (room - len(part)))
            yield self._texts[room], parameters

    def execute(self, connection: sqlite3.Connection, rows: Sequence[Sequence[SqlValue]]) -> int:
        """Execute over the rows and return how many rows of the table were changed."""
        return sum(connection.execute(text, parameters).rowcount for text, parameters in self.steps(rows))
