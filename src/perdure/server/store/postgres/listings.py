"""Listing and counting runs.

A filter is the one thing whose SQL is made per call; what a caller wrote enters it as parameters only.
"""

# ruff: noqa: S608 - what a caller wrote enters the text as parameters only.

from __future__ import annotations

import re
from itertools import count
from typing import TYPE_CHECKING

from perdure.server.core.records import RunRecord
from perdure.server.store.interface import CountGroup, ListPosition
from perdure.server.store.postgres.queries import RUN_COLUMNS, run_record
from perdure.server.store.visibility.filter import Filter
from perdure.server.store.visibility.sql import translate

if TYPE_CHECKING:
    from perdure.server.store.postgres.connections import Reader


async def list_runs(
    reader: Reader, namespace_id: str, filter: Filter, limit: int, after: ListPosition | None
) -> list[RunRecord]:
    """See `Store.list_runs`."""
    condition, parameters = translate(filter)
    position: tuple[str | int, ...] = ()
    if after is not None:
        condition = f"(started_at, run_id) < (?, ?) AND {condition}"
        position = after
    query = (
        f"SELECT {RUN_COLUMNS} FROM run WHERE namespace_id = ? AND {condition}"
        " ORDER BY started_at DESC, run_id DESC LIMIT ?"
    )
    rows = await reader.fetch(numbered(query), namespace_id, *position, *parameters, limit)
    return [run_record(row) for row in rows]


async def count_runs(reader: Reader, namespace_id: str, filter: Filter) -> int:
    """See `Store.count_runs`."""
    return sum(group.count for group in await count_runs_by_status(reader, namespace_id, filter))


async def count_runs_by_status(reader: Reader, namespace_id: str, filter: Filter) -> list[CountGroup]:
    """See `Store.count_runs_by_status`."""
    condition, parameters = translate(filter)
    query = f"SELECT status, count(*) FROM run WHERE namespace_id = ? AND {condition} GROUP BY status ORDER BY status"
    return [CountGroup(*row) for row in await reader.fetch(numbered(query), namespace_id, *parameters)]


def numbered(query: str) -> str:
    """Give the placeholders their numbers."""
    numbers = count(1)
    return re.sub(r"\?", lambda _: f"${next(numbers)}", query)
