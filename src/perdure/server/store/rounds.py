"""The rows of a batch, gathered by table: what every SQL database writes, whatever its dialect.

Gathering happens when the batch is given, so what the caller changes afterwards does not matter. Entities do not share
rows, so the rows of all entities of a batch go into one statement per table; only an entity that a batch holds twice
starts another round.

A database writes a round so that the unique index of current runs is whole at every statement: runs give the place up
before others take it. No row is both written and removed in a round. The shard of a row is that of the entity that
writes it. This module must never hold a statement.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias, TypeVar

import msgspec

from perdure.server.core.records import EntityWrite, MailWrite, RunRecord, WorkflowKey
from perdure.server.core.shards import shard_of

SqlValue: TypeAlias = str | int | bytes | None
Row: TypeAlias = Sequence[SqlValue]
_AnyRow = TypeVar("_AnyRow", bound=tuple[SqlValue, ...])


class Fence(NamedTuple):
    """Who writes which batch."""

    node: str
    incarnation: int
    batch: int


class Round(msgspec.Struct):
    """The rows of many entities, each entity once. Run rows to update begin with (run id, expected version)."""

    keys: set[WorkflowKey] = set()
    runs_advanced: list[Row] = []
    """Runs that only came further, as most do: fewer columns, and no index of listings to keep."""
    runs_not_current: list[Row] = []
    runs_current: list[Row] = []
    runs_new: list[Row] = []
    events: list[Row] = []
    activities: list[Row] = []
    activities_removed: list[Row] = []
    timers: list[Row] = []
    timers_removed: list[Row] = []
    buffered_cleared: list[Row] = []
    buffered: list[Row] = []
    requests: list[Row] = []
    runs_closed: list[Row] = []
    runs_deleted: list[Row] = []
    histories_deleted: list[Row] = []
    """Run ids whose events and request ids go with the run."""
    histories_discarded: list[Row] = []
    """Rows that say of which deleted runs they go later."""
    children: list[Row] = []
    children_removed: list[Row] = []
    outbox: list[Row] = []
    outbox_removed: list[Row] = []
    inbox: list[Row] = []
    inbox_removed: list[Row] = []


def gather(writes: Sequence[EntityWrite]) -> list[Round]:
    """Sort the rows of entities by table, into as few rounds as no entity appears twice in."""
    rounds = [Round()]
    for write in writes:
        if write.key in rounds[-1].keys:
            rounds.append(Round())
        _gather_entity(rounds[-1], write)
    return rounds


def _gather_entity(into: Round, write: EntityWrite) -> None:
    into.keys.add(write.key)
    shard = shard_of(write.key)
    for run in write.runs:
        if run.run_id in write.runs_advanced:
            into.runs_advanced.append(_advanced_row(run))
        else:
            _gather_run(into, run, shard, is_deleted=run.run_id in write.runs_deleted)
    into.activities_removed += write.activities_removed
    into.timers_removed += write.timers_removed
    into.buffered_cleared += zip(write.buffered_cleared)
    if write.mail is not None:
        _gather_mail(into, write.mail, shard)
    if write.runs_closed or write.runs_deleted:
        _gather_end(into, write, shard)
        return
    into.events += write.events
    into.activities += _with_shard(_left(write.activities, write.activities_removed), shard)
    into.timers += _left(write.timers, write.timers_removed)
    into.buffered += write.buffered
    into.requests += write.requests


def _gather_end(into: Round, write: EntityWrite, shard: int) -> None:
    """Gather what belongs to runs where some have ended: what ends in the same batch need not be written first."""
    ended = {*write.runs_closed, *write.runs_deleted}
    activities = _left(write.activities, write.activities_removed)
    into.activities += _with_shard([row for row in activities if row.run_id not in ended], shard)
    into.timers += [row for row in _left(write.timers, write.timers_removed) if row.run_id not in ended]
    into.buffered += [row for row in write.buffered if row.run_id not in ended]
    # The request ids of a run are kept as long as its events.
    into.events += [row for row in write.events if row.run_id not in write.runs_deleted]
    into.requests += [row for row in write.requests if row.run_id not in write.runs_deleted]
    into.runs_closed += [(run_id,) for run_id in ended]
    into.runs_deleted += [(run_id,) for run_id in write.runs_deleted]
    discarded = write.histories_discarded
    into.histories_deleted += [(run_id,) for run_id in write.runs_deleted if run_id not in discarded]
    into.histories_discarded += [(run_id, *write.key, shard) for run_id in discarded]


def _gather_mail(into: Round, mail: MailWrite, shard: int) -> None:
    into.children += _left(mail.children, mail.children_removed)
    into.children_removed += mail.children_removed
    into.outbox += _with_shard(_left(mail.outbox, mail.outbox_removed), shard)
    into.outbox_removed += mail.outbox_removed
    into.inbox += mail.inbox
    into.inbox_removed += mail.inbox_removed


def _left(rows: Sequence[_AnyRow], removed: Sequence[tuple[str, int] | tuple[str, str]]) -> Sequence[_AnyRow]:
    """Return the rows that are not also removed, by their first two values; a statement would not see them yet."""
    if not rows or not removed:
        return rows
    gone = set(removed)
    return [row for row in rows if row[:2] not in gone]


def _with_shard(rows: Sequence[tuple[SqlValue, ...]], shard: int) -> list[Row]:
    return [(*row, shard) for row in rows]


def _gather_run(into: Round, run: RunRecord, shard: int, *, is_deleted: bool) -> None:
    if run.stored_version == 0:
        if not is_deleted:
            into.runs_new.append(_new_row(run, shard))
    elif is_deleted or not run.is_current:
        # A run about to be deleted gives its place up, so that another run of its entity may take it.
        into.runs_not_current.append(_changed_row(run, is_current=False))
    else:
        into.runs_current.append(_changed_row(run, is_current=True))


def _new_row(run: RunRecord, shard: int) -> Row:
    return (
        run.namespace_id,
        run.workflow_id,
        run.run_id,
        run.version,
        run.is_current,
        run.status,
        run.workflow_type,
        run.task_queue,
        run.started_at,
        run.execution_at,
        run.closed_at,
        run.next_event_id,
        run.history_size_bytes,
        run.transition_count,
        run.alarm_at,
        run.task_state,
        run.task_attempt,
        run.task_scheduled_at,
        run.task_started_at,
        run.task_ready_queue,
        run.task_ready_at,
        run.memo,
        run.search_attributes,
        run.state,
        shard,
    )


def _changed_row(run: RunRecord, *, is_current: bool) -> Row:
    return (
        run.run_id,
        run.stored_version,
        run.version,
        is_current,
        run.status,
        run.execution_at,
        run.closed_at,
        run.next_event_id,
        run.history_size_bytes,
        run.transition_count,
        run.alarm_at,
        run.task_state,
        run.task_attempt,
        run.task_scheduled_at,
        run.task_started_at,
        run.task_ready_queue,
        run.task_ready_at,
        run.memo,
        run.search_attributes,
        run.state,
    )


def _advanced_row(run: RunRecord) -> Row:
    return (
        run.run_id,
        run.stored_version,
        run.version,
        run.next_event_id,
        run.history_size_bytes,
        run.transition_count,
        run.alarm_at,
        run.task_state,
        run.task_attempt,
        run.task_scheduled_at,
        run.task_started_at,
        run.task_ready_queue,
        run.task_ready_at,
        run.state,
    )


CHANGED_COLUMNS = (
    "run_id",
    "stored_version",
    "version",
    "is_current",
    "status",
    "execution_at",
    "closed_at",
    "next_event_id",
    "history_size_bytes",
    "transition_count",
    "alarm_at",
    "task_state",
    "task_attempt",
    "task_scheduled_at",
    "task_started_at",
    "task_ready_queue",
    "task_ready_at",
    "memo",
    "search_attributes",
    "state",
)
"""The columns of `_changed_row`: all that can change after the start."""

ADVANCED_COLUMNS = (
    "run_id",
    "stored_version",
    "version",
    "next_event_id",
    "history_size_bytes",
    "transition_count",
    "alarm_at",
    "task_state",
    "task_attempt",
    "task_scheduled_at",
    "task_started_at",
    "task_ready_queue",
    "task_ready_at",
    "state",
)
"""The columns of `_advanced_row`: how far a run has come."""
