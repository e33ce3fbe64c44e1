"""Whether the rows of one run make a run that a server could go on with, and say the same everywhere. Pure.

Four steps: rows belong to something; history is whole and its columns say what its events say; the run is restored and
keeps `check_invariants`, as after every step in tests; and written again it would be the rows it was read from, which
covers what only SQL reads: the index of ready tasks, alarms, what the views show.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from google.protobuf.message import DecodeError
from temporalio.api.history.v1 import HistoryEvent

from perdure.server.core import machines
from perdure.server.core.errors import InvariantBroken
from perdure.server.core.invariants import check_invariants
from perdure.server.core.records import (
    ActivityRecord,
    BufferedEventRecord,
    ChildRecord,
    EventRecord,
    OutboxRecord,
    RequestRecord,
    RunRecord,
    StoredActivity,
    StoredChild,
    StoredMessage,
    StoredRun,
    TimerRecord,
    WorkflowKey,
)
from perdure.server.core.run import Run
from perdure.server.core.shards import shard_of
from perdure.server.core.stored import restore, stored_run
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
from perdure.server.store.tools.problem import Problem, deletion
from perdure.server.tools.run_rows import BY_RUN, RunRows

assert machines.__path__, "importing the package registers every machine"

_OPEN: Final = (1, 8)
"""Running, paused."""
_PENDING: Final = (ACTIVITY, TIMER, BUFFERED_EVENT, CHILD)
"""What only an open run has."""
_MAY_OUTLIVE_ITS_RUN: Final = (RUN, OUTBOX, INBOX, DISCARDED_HISTORY)

_COMPARED_AS_STATE: Final = ("memo", "search_attributes", "state")
"""Columns of bytes: `check_invariants` compares what they say. The same map can be written in several ways."""

_RESTORE: Final = "Restore a backup in which it is whole."


def run_problems(rows: RunRows) -> Iterator[Problem]:
    """Yield what is wrong with the rows of one run id, messages apart.

    Raises:
        msgspec.ValidationError: A value is not of its column's type.
    """
    yield from _stray_shards(rows)
    run = rows.run()
    if run is None:
        yield from _orphans(rows)
        return
    where = f"run {run.run_id} of workflow {run.workflow_id}"
    if run.status not in _OPEN:
        for table in _PENDING:
            if count := len(rows.of(table)):
                yield Problem(where, f"is closed and has {count} rows in {table.name}", deletion(table, run.run_id))
    yield from _stray_keys(rows, run, where)
    records = rows.records(EventRecord, EVENT)
    try:
        events = [HistoryEvent.FromString(record.data) for record in records]
    except DecodeError:
        yield Problem(where, "has an event that cannot be read", _RESTORE)
        return
    yield from _history_problems(run, records, events, where)
    if events:
        yield from _state_problems(rows, run, records, events, where)


def _orphans(rows: RunRows) -> Iterator[Problem]:
    for table in BY_RUN:
        if table in (EVENT, REQUEST) and rows.of(DISCARDED_HISTORY):
            # What is large is deleted after the run, bit by bit.
            continue
        count = len(rows.of(table))
        if count and table not in _MAY_OUTLIVE_ITS_RUN:
            what = f"has {count} rows of a run {rows.run_id} that does not exist"
            yield Problem(f"table {table.name}", what, deletion(table, rows.run_id))


def _stray_keys(rows: RunRows, run: RunRecord, where: str) -> Iterator[Problem]:
    """Rows that name their workflow must name that of their run."""
    named = [
        *(("activity", each.namespace_id, each.workflow_id) for each in rows.records(ActivityRecord, ACTIVITY)),
        *(("child", each.namespace_id, each.workflow_id) for each in rows.records(ChildRecord, CHILD)),
        *(("outbox", each.namespace_id, each.workflow_id) for each in rows.records(OutboxRecord, OUTBOX)),
    ]
    for table, namespace_id, workflow_id in named:
        if (namespace_id, workflow_id) != (run.namespace_id, run.workflow_id):
            yield Problem(where, f"has a row in {table} that names another workflow: {workflow_id}", _RESTORE)


def _stray_shards(rows: RunRows) -> Iterator[Problem]:
    """A row in another shard than its workflow's is never looked at by the node that runs it."""
    for table in BY_RUN:
        if "shard" not in table.column_names:
            continue
        namespace_at, workflow_at, shard_at = map(table.column_names.index, ("namespace_id", "workflow_id", "shard"))
        for row in rows.of(table):
            shard = shard_of(WorkflowKey(str(row[namespace_at]), str(row[workflow_at])))
            if row[shard_at] != shard:
                what = f"has a row of run {rows.run_id} in shard {row[shard_at]!r}, which belongs to {shard}"
                remedy = f"UPDATE {table.name} SET shard = {shard} WHERE run_id = '{rows.run_id}';"  # noqa: S608 - for people
                yield Problem(f"table {table.name}", what, f"With no server running: {remedy}")


# --- history ----------------------------------------------------------------------------------------------------------


def _history_problems(
    run: RunRecord, records: Sequence[EventRecord], events: Sequence[HistoryEvent], where: str
) -> Iterator[Problem]:
    ids = [record.event_id for record in records]
    if ids != list(range(1, run.next_event_id)):
        what = f"should have events 1 to {run.next_event_id - 1} and has {_as_ranges(ids) or 'none'}"
        yield Problem(where, what, _RESTORE)
    for record, event in zip(records, events, strict=True):
        said = (event.event_id, event.event_type, event.event_time.ToNanoseconds())
        if said != (record.event_id, record.event_type, record.event_at):
            yield Problem(where, f"event {record.event_id} is not the event that its row says it is", _RESTORE)


def _as_ranges(ids: Sequence[int]) -> str:
    """Write rising numbers as people do: 1-4, 6."""
    ranges: list[tuple[int, int]] = []
    for number in ids:
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1] = (ranges[-1][0], number)
        else:
            ranges.append((number, number))
    return ", ".join(f"{first}" if first == last else f"{first}-{last}" for first, last in ranges)


# --- state ------------------------------------------------------------------------------------------------------------


def _state_problems(
    rows: RunRows, record: RunRecord, records: Sequence[EventRecord], events: Sequence[HistoryEvent], where: str
) -> Iterator[Problem]:
    try:
        stored = _stored(rows, record, records)
        run = restore(stored)
        check_invariants(run, events)
        differences = list(_differences(run, stored, events))
    except InvariantBroken as error:
        yield Problem(where, f"cannot be: {error}", _RESTORE)
    except Exception as error:  # noqa: BLE001 - what broken rows do to the core is what is asked for here
        yield Problem(where, f"cannot be restored from its rows: {error!r}", _RESTORE)
    else:
        for difference in differences:
            yield Problem(where, difference, _RESTORE)


def _stored(rows: RunRows, run: RunRecord, events: Sequence[EventRecord]) -> StoredRun:
    """Put the rows together as a store does."""
    data = {event.event_id: event.data for event in events}
    return StoredRun(
        run,
        data.get(1, b""),
        activities=[
            StoredActivity(each, data.get(each.scheduled_event_id, b""))
            for each in rows.records(ActivityRecord, ACTIVITY)
        ],
        timers=rows.records(TimerRecord, TIMER),
        buffered=rows.records(BufferedEventRecord, BUFFERED_EVENT),
        request_ids=[each.request_id for each in rows.records(RequestRecord, REQUEST)],
        children=[
            StoredChild(each, data.get(each.initiated_event_id, b"")) for each in rows.records(ChildRecord, CHILD)
        ],
        messages=[
            StoredMessage(each.number, each.kind, each.initiated_event_id, data.get(each.initiated_event_id, b""))
            for each in rows.records(OutboxRecord, OUTBOX)
            if each.initiated_event_id
        ],
    )


def _differences(run: Run, stored: StoredRun, events: Sequence[HistoryEvent]) -> Iterator[str]:
    """Yield what would be written otherwise if the run were written again as it is."""
    again = stored_run(run, events)
    again.run.version = again.run.stored_version = stored.run.version
    for name in RunRecord.__struct_fields__:
        here, there = getattr(stored.run, name), getattr(again.run, name)
        if here != there and name not in _COMPARED_AS_STATE:
            yield f"has {here!r} in the column {name}, which should be {there!r}"
    for table, name in ((ACTIVITY, "activities"), (TIMER, "timers"), (CHILD, "children")):
        if getattr(stored, name) != getattr(again, name):
            yield f"has rows in {table.name} that are not what its state says"
    # There may be more: that a child has started may be known before the message that started it is answered.
    for message in again.messages:
        if message not in stored.messages:
            yield f"waits for the answer to its message {message.number}, {message.kind}, which is not in the outbox"
