"""Show what anyone with the database file can see: the SQL to type, and its answer.

The views are for people (docs/sql.md describes them). Reading them disturbs nothing, and works while the server is
down too.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

LONGEST_CELL = 48

WORKFLOWS = """
SELECT workflow_id, workflow_type, status, started, closed, history_length, state_transition_count
FROM workflows ORDER BY started
"""

WAITING_TASKS = """
SELECT workflow_id, ready_in_queue, status, attempt, scheduled
FROM workflow_tasks_not_completed
"""

WAITING = """
SELECT workflow_id, waits_for, task_queue, attempt, reason
FROM waiting
"""

PENDING_ACTIVITIES = """
SELECT workflow_id, activity_type, task_queue, status, attempt, last_failure
FROM pending_activities
"""

TIMERS = """
SELECT workflow_id, timer_id, started_event_id, fires
FROM timers
"""

HISTORY = """
SELECT event_id, time, event_type
FROM history WHERE workflow_id = 'order-1001' AND event_type LIKE 'Activity%' ORDER BY event_id
"""


def tell(database: Path, query: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield the lines that show a query and its answer, as the `sqlite3` program would."""
    yield f"  $ sqlite3 -box {database.name}"
    for number, line in enumerate(f"{query.strip()};".splitlines()):
        yield f"  {'sqlite>' if number == 0 else '   ...>'} {line}"
    yield from _table(columns, rows)


def answer(database: Path, query: str) -> tuple[list[str], list[list[str]]]:
    """Run a query, read only, and return the names of the columns and the rows as text."""
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=5.0)) as connection:
        cursor = connection.execute(query)
        columns = [column[0] for column in cursor.description]
        return columns, [[_text(value) for value in row] for row in cursor]


def _text(value: object) -> str:
    text = "" if value is None else str(value)
    return text if len(text) <= LONGEST_CELL else text[: LONGEST_CELL - 1] + "…"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, cells)) for cells in zip(columns, *rows, strict=True)]
    yield "  ┌─" + "─┬─".join("─" * width for width in widths) + "─┐"
    yield _row(columns, widths)
    yield "  ├─" + "─┼─".join("─" * width for width in widths) + "─┤"
    for row in rows:
        yield _row(row, widths)
    yield "  └─" + "─┴─".join("─" * width for width in widths) + "─┘"


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  │ " + " │ ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " │"
