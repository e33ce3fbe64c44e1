"""The rows of a round as few statements: each changes several tables, and may begin with the fence.

Every part of a statement sees the database as it was before the statement, and would be done in any order. So a part
waits for what it must not come before by reading how much that has done: for the fence, which lets nothing happen where
it is refused and locks the row of the node before any other, and for an earlier change of the same table.

Texts are made once for each set of changes that occurs together; the driver prepares each once per connection. Where
few workflows are at work a batch holds one: the commonest of these have texts of their own for their numbers of rows.
"""

# ruff: noqa: S608 - made of texts that are written in this package.

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from itertools import chain
from operator import attrgetter
from typing import Final, NamedTuple

from perdure.server.store.postgres.bulk import ALWAYS, Bulk, columns_of, delete, insert, update_runs, upsert
from perdure.server.store.rounds import ADVANCED_COLUMNS, CHANGED_COLUMNS, Fence, Round, Row
from perdure.server.store.schema import (
    ACTIVITY,
    BUFFERED_EVENT,
    CHILD,
    DISCARDED_HISTORY,
    EVENT,
    INBOX,
    OUTBOX,
    REQUEST,
    RUN,
    TIMER,
)

FENCE: Final = "UPDATE node SET batch = $3::bigint WHERE node = $1 AND incarnation = $2 AND batch = $3::bigint - 1"


class Change(NamedTuple):
    """What is done with one of the lists of a round."""

    rows: str
    """The list's name in the round."""
    bulk: Bulk
    is_counted: bool = False
    """Whether each of its rows must change one of the table: else what is stored is not what it was computed on."""
    sees_others: bool = False
    """Whether it is about rows that an earlier change of the table may have written."""


_OF_RUN: Final = ("run_id",)

CHANGES: Final = (
    Change("runs_advanced", update_runs(ADVANCED_COLUMNS), is_counted=True),
    Change("runs_not_current", update_runs(CHANGED_COLUMNS), is_counted=True),
    Change("runs_deleted", delete(RUN, _OF_RUN), sees_others=True),
    Change("runs_current", update_runs(CHANGED_COLUMNS), is_counted=True),
    Change("runs_new", insert(RUN)),
    Change("events", insert(EVENT)),
    Change("histories_deleted", delete(EVENT, _OF_RUN)),
    Change("activities", upsert(ACTIVITY)),
    Change("activities_removed", delete(ACTIVITY, ACTIVITY.primary_key)),
    Change("runs_closed", delete(ACTIVITY, _OF_RUN)),
    Change("timers", upsert(TIMER)),
    Change("timers_removed", delete(TIMER, TIMER.primary_key)),
    Change("runs_closed", delete(TIMER, _OF_RUN)),
    Change("buffered_cleared", delete(BUFFERED_EVENT, _OF_RUN)),
    Change("buffered", insert(BUFFERED_EVENT)),
    Change("runs_closed", delete(BUFFERED_EVENT, _OF_RUN)),
    Change("requests", insert(REQUEST, conflict=" ON CONFLICT DO NOTHING")),
    Change("histories_deleted", delete(REQUEST, _OF_RUN)),
    Change("histories_discarded", insert(DISCARDED_HISTORY)),
    Change("children", upsert(CHILD)),
    Change("children_removed", delete(CHILD, CHILD.primary_key)),
    Change("outbox", insert(OUTBOX)),
    Change("outbox_removed", delete(OUTBOX, OUTBOX.primary_key)),
    # The row of the next message of a pair takes the place of the last one's: it must not go with it.
    Change("inbox_removed", delete(INBOX, INBOX.primary_key, up_to="number")),
    Change("inbox", upsert(INBOX)),
)
"""All that a round may change; what concerns one table in the order in which it has to happen.

Runs give their place as the current one up before others take it, so that its unique index is whole all the time.
"""


_lists_of: Final = attrgetter(*(change.rows for change in CHANGES))


class Statement(NamedTuple):
    """Several changes as one statement. Its result is one row, or none where a fence refused it."""

    text: str
    parameters: list[object]


def group_changes(rows: Round, *, changes_tables_once: bool) -> Sequence[tuple[Change, ...]]:
    """Return the changes of a round, by the statements they go into, as few as possible.

    Args:
        rows: The round.
        changes_tables_once: Whether the database takes no second change of a table in one statement.
    """
    return _grouped(tuple(map(bool, _lists_of(rows))), changes_tables_once)


@cache
def _grouped(are_there: tuple[bool, ...], changes_tables_once: bool) -> Sequence[tuple[Change, ...]]:
    found: list[list[Change]] = []
    last_of_table: dict[str, int] = {}
    for change, is_there in zip(CHANGES, are_there, strict=True):
        if not is_there:
            continue
        table = change.bulk.table.name
        number = last_of_table.get(table, 0)
        if table in last_of_table and (changes_tables_once or change.sees_others):
            number += 1
        last_of_table[table] = number
        if number == len(found):
            found.append([])
        found[number].append(change)
    return tuple(map(tuple, found))


class FewRows:
    """Which batches of a single workflow are written value by value: the first kinds of them that occur.

    Not all, for each kind is a text, and what a session prepares of it takes a third of a megabyte: workflows that do
    many things at once would fill the database's memory with texts that it hardly uses again.
    """

    _EVENTS_MAX: Final = 4

    def __init__(self, kinds_max: int = 48) -> None:
        self._kinds_max = kinds_max
        self._kinds: set[tuple[tuple[Change, ...], tuple[int, ...]]] = set()

    def admit(self, changes: tuple[Change, ...], rows: Round, counts: tuple[int, ...]) -> bool:
        """Return whether changes with so many rows each have a text of their own."""
        if len(rows.keys) != 1 or len(rows.events) > self._EVENTS_MAX:
            return False
        if any(count > 1 and change.rows != "events" for change, count in zip(changes, counts, strict=True)):
            return False
        kind = (changes, counts)
        if kind not in self._kinds and len(self._kinds) < self._kinds_max:
            self._kinds.add(kind)
        return kind in self._kinds


def statement(
    changes: tuple[Change, ...], rows: Round, fence: Fence | None = None, few: FewRows | None = None
) -> Statement:
    """Return changes of a round as one statement.

    It fails with a division by zero where a run is not stored in the expected version.

    Args:
        changes: What is done with which lists of the round.
        rows: The round.
        fence: What the statement begins with, if it does.
        few: What is written value by value; without it nothing is.
    """
    given: list[Sequence[Row]] = [change.bulk.that_count(getattr(rows, change.rows)) for change in changes]
    counts = tuple(map(len, given))
    parameters: list[object] = [] if fence is None else [*fence]
    is_few = few is not None and few.admit(changes, rows, counts)
    for each in given:
        parameters += chain.from_iterable(each) if is_few else columns_of(each)
    expected = sum(count for change, count in zip(changes, counts, strict=True) if change.is_counted)
    if expected:
        parameters.append(expected)
    return Statement(_text(changes, counts if is_few else None, fence is not None), parameters)


@cache
def _text(changes: tuple[Change, ...], counts: tuple[int, ...] | None, is_fenced: bool) -> str:
    """Return the text for changes of so many rows each; of any number, where none is given."""
    parts = [f"fence AS ({FENCE} RETURNING 1)"] if is_fenced else []
    passed = ["EXISTS (SELECT 1 FROM fence)"] if is_fenced else []
    parameter = len(Fence._fields) + 1 if is_fenced else 1
    last_of_table: dict[str, str] = {}
    counted = []
    for number, change in enumerate(changes):
        bulk, name = change.bulk, f"change_{number}"
        before = last_of_table.get(bulk.table.name)
        waits = [] if before is None else [f"{_count(before)} >= 0"]
        make = bulk.of_many if counts is None else partial(bulk.of_few, counts[number])
        text = make(first_parameter=parameter, guard=" AND ".join(passed + waits) or ALWAYS)
        # What is returned nobody reads of most, but CockroachDB takes no part of a WITH that returns nothing.
        parts.append(f"{name} AS ({text} RETURNING 1)")
        parameter += bulk.width * (1 if counts is None else counts[number])
        last_of_table[bulk.table.name] = name
        if change.is_counted:
            counted.append(_count(name))
    are_all_there = f"CASE WHEN {' + '.join(counted)} = ${parameter}::bigint THEN 1 ELSE 0 END"
    # What PostgreSQL's `div` returns takes the driver long to read, and CockroachDB's `/` is no division of integers.
    result = f"div(1, {are_all_there})::bigint" if counted else "1"
    return f"WITH {', '.join(parts)} SELECT {result} AS done{' FROM fence' if is_fenced else ''}"


def _count(part: str) -> str:
    return f"(SELECT count(*) FROM {part})"
