"""The tables of the store, once for every database: their columns, keys and indexes as data.

A database's own file renders them in its dialect. Ids are text, times are integer nanoseconds since the epoch, opaque
values are bytes. The base tables are for the engine; people read the views (`views.py`).

Why the columns and indexes are what they are:

- `event` is appended in commit order and indexed by its key: clustering by the key instead cost two to three times as
  much per event written on SQLite and read no faster. Run ids that rise with time keep the index's inserts together.
- Closed runs have an index of their own and no alarm: however many are to be deleted, they are in nobody's way.
- Task queues and alarms are partial indexes over the state, so a run that waits for nobody costs them nothing. The
  shard is their last column, so that an index alone tells which rows are those of another node.
- The `nonce` of a node is written by what bumps its incarnation and may have to find out later whether it did.
- The outbox is read in the order of its key: messages of one run by their numbers, runs about as they began.
- The four listing indexes carry `(started_at, run_id)` last, which is the order of every listing.

This module must never hold a statement: it says what there is, not how to make it.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

SCHEMA_VERSION = 3
"""Counts up with every change of a table, an index or a view; each change comes with a migration step."""


class ColumnType(Enum):
    """What a column holds."""

    TEXT = "text"
    INTEGER = "integer"
    """64 bits, signed."""
    BOOLEAN = "boolean"
    BYTES = "bytes"


class Column(NamedTuple):
    """One column of a table."""

    name: str
    type: ColumnType
    nullable: bool = False
    is_derived: bool = False
    """Whether it follows from the others and is there to be searched by: no part of a record, and never read back."""


class Index(NamedTuple):
    """One index of a table; `where` restricts it to the rows worth finding.

    One that `rises` has few values before a time, so that new rows lie behind all others of theirs. A database that
    spreads its keys over servers has to split it up.
    """

    name: str
    columns: tuple[str, ...]
    unique: bool = False
    where: str | None = None
    rises: bool = False


class Table(NamedTuple):
    """One table. `clustered` tables live in the tree of their primary key, which suits small rows."""

    name: str
    columns: tuple[Column, ...]
    primary_key: tuple[str, ...]
    indexes: tuple[Index, ...] = ()
    clustered: bool = False

    @property
    def column_names(self) -> tuple[str, ...]:
        """The names of the columns, in order."""
        return tuple(column.name for column in self.columns)

    @property
    def record_columns(self) -> tuple[Column, ...]:
        """The columns that make a record, in order; they are the first ones."""
        return tuple(column for column in self.columns if not column.is_derived)


def _text(name: str, *, nullable: bool = False) -> Column:
    return Column(name, ColumnType.TEXT, nullable)


def _integer(name: str, *, nullable: bool = False) -> Column:
    return Column(name, ColumnType.INTEGER, nullable)


def _boolean(name: str) -> Column:
    return Column(name, ColumnType.BOOLEAN)


def _bytes(name: str) -> Column:
    return Column(name, ColumnType.BYTES)


_SHARD = Column("shard", ColumnType.INTEGER, is_derived=True)
"""Of the workflow id the row belongs to; of a message, its sender's."""

MIGRATION = Table(
    name="migration",
    columns=(_integer("version"), _integer("applied_at")),
    primary_key=("version",),
)

META = Table(
    name="meta",
    columns=(_text("name"), _text("value")),
    primary_key=("name",),
)

NODE = Table(
    name="node",
    columns=(_text("node"), _integer("incarnation"), _integer("batch"), _text("nonce", nullable=True)),
    primary_key=("node",),
)

MEMBER = Table(
    name="member",
    columns=(
        _text("node"),
        _text("session"),
        _text("release"),
        _integer("started_at"),
        _integer("lease_until"),
        _boolean("is_leaving"),
    ),
    primary_key=("node",),
)
"""The nodes of the cluster; their times are by the database's clock. No part of `node`: to prolong a lease must neither
wait for a batch nor be in its way."""

SHARD = Table(
    name="shard",
    columns=(_integer("shard"), _text("owner"), _integer("epoch")),
    primary_key=("shard",),
)

NAMESPACE = Table(
    name="namespace",
    columns=(
        _text("namespace_id"),
        _text("name"),
        _integer("state"),
        _text("description"),
        _text("owner_email"),
        _text("data"),
        _integer("retention_seconds"),
        _integer("created_at"),
        _text("search_attributes"),
        _integer("delete_delay_seconds", nullable=True),
        _integer("drained_at", nullable=True),
    ),
    primary_key=("namespace_id",),
    indexes=(Index("namespace_name", ("name",), unique=True),),
)

RUN = Table(
    name="run",
    columns=(
        _text("namespace_id"),
        _text("workflow_id"),
        _text("run_id"),
        _integer("version"),
        _boolean("is_current"),
        _integer("status"),
        _text("workflow_type"),
        _text("task_queue"),
        _integer("started_at"),
        _integer("execution_at"),
        _integer("closed_at", nullable=True),
        _integer("next_event_id"),
        _integer("history_size_bytes"),
        _integer("transition_count"),
        _integer("alarm_at", nullable=True),
        _text("task_state"),
        _integer("task_attempt"),
        _integer("task_scheduled_at", nullable=True),
        _integer("task_started_at", nullable=True),
        _text("task_ready_queue", nullable=True),
        _integer("task_ready_at", nullable=True),
        _bytes("memo"),
        _bytes("search_attributes"),
        _bytes("state"),
        _SHARD,
    ),
    primary_key=("run_id",),
    indexes=(
        Index("run_current", ("namespace_id", "workflow_id"), unique=True, where="is_current"),
        Index(
            "run_ready_task",
            ("namespace_id", "task_ready_queue", "task_ready_at", "run_id", "shard"),
            where="task_ready_queue IS NOT NULL",
            rises=True,
        ),
        Index("run_alarm", ("alarm_at", "run_id", "shard"), where="alarm_at IS NOT NULL", rises=True),
        Index(
            "run_closed", ("namespace_id", "closed_at", "run_id", "shard"), where="closed_at IS NOT NULL", rises=True
        ),
        Index("run_by_start", ("namespace_id", "started_at", "run_id"), rises=True),
        Index("run_by_status", ("namespace_id", "status", "started_at", "run_id"), rises=True),
        Index("run_by_type", ("namespace_id", "workflow_type", "started_at", "run_id"), rises=True),
        Index("run_by_workflow", ("namespace_id", "workflow_id", "started_at", "run_id")),
    ),
)

EVENT = Table(
    name="event",
    columns=(
        _text("run_id"),
        _integer("event_id"),
        _integer("event_type"),
        _integer("event_at"),
        _bytes("data"),
    ),
    primary_key=("run_id", "event_id"),
)

ACTIVITY = Table(
    name="activity",
    columns=(
        _text("run_id"),
        _integer("scheduled_event_id"),
        _text("namespace_id"),
        _text("workflow_id"),
        _text("activity_id"),
        _text("activity_type"),
        _text("task_queue"),
        _text("status"),
        _boolean("cancel_requested"),
        _integer("attempt"),
        _integer("ready_at", nullable=True),
        _integer("scheduled_at"),
        _integer("started_at", nullable=True),
        _integer("last_heartbeat_at", nullable=True),
        _text("last_failure", nullable=True),
        _text("last_worker", nullable=True),
        _bytes("state"),
        _SHARD,
    ),
    primary_key=("run_id", "scheduled_event_id"),
    indexes=(
        Index(
            "activity_ready",
            ("namespace_id", "task_queue", "ready_at", "run_id", "scheduled_event_id", "shard"),
            where="ready_at IS NOT NULL",
            rises=True,
        ),
    ),
)

TIMER = Table(
    name="timer",
    columns=(_text("run_id"), _text("timer_id"), _integer("started_event_id"), _integer("fires_at")),
    primary_key=("run_id", "timer_id"),
    clustered=True,
)

BUFFERED_EVENT = Table(
    name="buffered_event",
    columns=(_text("run_id"), _integer("position"), _bytes("data")),
    primary_key=("run_id", "position"),
)

REQUEST = Table(
    name="request",
    columns=(_text("run_id"), _text("request_id")),
    primary_key=("run_id", "request_id"),
    clustered=True,
)

CHILD = Table(
    name="child",
    columns=(
        _text("run_id"),
        _integer("initiated_event_id"),
        _text("namespace_id"),
        _text("workflow_id"),
        _text("child_workflow_id"),
        _text("child_run_id", nullable=True),
        _text("child_workflow_type"),
        _integer("started_event_id"),
        _integer("initiated_at"),
    ),
    primary_key=("run_id", "initiated_event_id"),
    clustered=True,
)

OUTBOX = Table(
    name="outbox",
    columns=(
        _text("run_id"),
        _integer("number"),
        _text("namespace_id"),
        _text("workflow_id"),
        _text("receiver_namespace_id"),
        _text("receiver_workflow_id"),
        _text("kind"),
        _integer("initiated_event_id"),
        _integer("sent_at"),
        _bytes("body"),
        _SHARD,
    ),
    primary_key=("run_id", "number"),
)

INBOX = Table(
    name="inbox",
    columns=(
        _text("sender_run_id"),
        _text("namespace_id"),
        _text("workflow_id"),
        _integer("number"),
        _text("run_id"),
    ),
    primary_key=("sender_run_id", "namespace_id", "workflow_id"),
    clustered=True,
)

DISCARDED_HISTORY = Table(
    name="discarded_history",
    columns=(_text("run_id"), _text("namespace_id"), _text("workflow_id"), _SHARD),
    primary_key=("run_id",),
    clustered=True,
)

TABLES = (
    MIGRATION,
    META,
    NODE,
    MEMBER,
    SHARD,
    NAMESPACE,
    RUN,
    EVENT,
    ACTIVITY,
    TIMER,
    BUFFERED_EVENT,
    REQUEST,
    CHILD,
    OUTBOX,
    INBOX,
    DISCARDED_HISTORY,
)
