"""One thing a check found wrong."""

from __future__ import annotations

from typing import NamedTuple

from perdure.server.store.schema import Table


class Problem(NamedTuple):
    """What is wrong with what, and what to do about it."""

    where: str
    """A table, an index, or a run with its workflow id."""
    what: str
    remedy: str
    is_fatal: bool = False
    """Whether the rest cannot be checked for it."""


def deletion(table: Table, run_id: str) -> str:
    """Say how to get rid of what a table has of a run."""
    quoted = run_id.replace("'", "''")
    return f"With no server running: DELETE FROM {table.name} WHERE {table.primary_key[0]} = '{quoted}';"  # noqa: S608 - for people
