"""Rounds for tests of statements: what they hold does not matter, only of which lists there are rows."""

from __future__ import annotations

from collections.abc import Iterable

from perdure.server.core.records import WorkflowKey
from perdure.server.store.postgres.statements import CHANGES
from perdure.server.store.rounds import Round

EVERYTHING = tuple(change.rows for change in CHANGES)
"""The names of all lists."""


def round_with(names: Iterable[str] = EVERYTHING, *, workflows: int = 2) -> Round:
    """Return a round of so many workflows that has a row of nothing in each of these lists."""
    made, wanted = Round({WorkflowKey("n", str(number)) for number in range(workflows)}), set(names)
    for change in CHANGES:
        if change.rows in wanted:
            setattr(made, change.rows, [[None] * change.bulk.width])
    return made
