"""Copying a database into an empty one, of the same kind or another.

Rows go over in key order, a page per transaction, so what is in the target says how far the copy has come: who calls
again goes on behind the last key of each table. Each page is written through the mark (see `marker.py`), which only one
call holds, so two calls at once do no harm. At the end both databases are read in key order and compared by counts and
checksums; then the mark is taken away. Whatever goes wrong before leaves a target that no server starts on.
"""

# ruff: noqa: S608 - texts are made of the names in the schema.

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from perdure.server.store.schema import NODE, SCHEMA_VERSION, Table
from perdure.server.store.tools.checksums import Checksum, Checksummer, checksum_of, key_of
from perdure.server.store.tools.interface import Database, Row, ToolError
from perdure.server.store.tools.marker import MARK, Marker, marker_text
from perdure.server.store.tools.state import Standing, read_fences, read_state
from perdure.server.store.tools.tables import DATA

_SET_MARK = "INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO NOTHING"
_CHANGE_MARK = "UPDATE meta SET value = ? WHERE name = ? AND value = ?"
_DROP_MARK = "DELETE FROM meta WHERE name = ? AND value = ?"
_SET_CLUSTER_ID = "UPDATE meta SET value = ? WHERE name = 'cluster_id'"
_SET_VERSION = "INSERT INTO migration (version, applied_at) VALUES (?, ?)"


class Progress(NamedTuple):
    """How far a copy has come."""

    step: str
    """`copied` or `compared`."""
    table: str
    rows: int
    is_done: bool


class Copied(NamedTuple):
    """A table that was copied."""

    table: str
    checksum: Checksum


Report = Callable[[Progress], None]


async def begin(source: Database) -> Marker:
    """Describe the copy that would be begun now. Raises ToolError where the source cannot be copied."""
    state = await read_state(source)
    if state.standing is Standing.OLDER:
        raise ToolError(
            f"{source.shown} has schema version {state.version}: lead it to {SCHEMA_VERSION} first, with"
            " `perdure db migrate`."
        )
    if state.marker is not None:
        raise ToolError(f"{source.shown} is no source: {state.marker.refusal()}")
    if state.standing is not Standing.CURRENT or state.cluster_id is None:
        raise ToolError(f"{source.shown} is no source: `perdure db status` says why.")
    return Marker(
        source=source.shown,
        cluster_id=state.cluster_id,
        schema_version=SCHEMA_VERSION,
        fences=await read_fences(source),
        session=str(uuid.uuid4()),
    )


async def copy(source: Database, target: Database, begun: Marker, report: Report) -> list[Copied]:
    """Copy everything, or go on with a copy of the same source.

    Args:
        source: Open to be copied from.
        target: Open to be copied into.
        begun: What `begin` said of the source.
        report: Told of every page.

    Raises:
        ToolError: The databases are not as they must be, or something else wrote to one of them meanwhile.
    """
    mark = await _take(target, begun)
    sums = {table.name: await _copy_table(source, target, table, mark, report) for table in DATA}
    copied = [await _compared(source, target, table, sums[table.name], report) for table in DATA]
    await source.refresh()
    if await read_fences(source) != begun.fences:
        raise ToolError(
            f"A server has run on {source.shown} while it was copied, and what it did is not in the copy. Stop it, and"
            " begin again with an empty target."
        )
    await _finish(target, mark)
    return copied


# --- the mark ---------------------------------------------------------------------------------------------------------


async def _take(target: Database, begun: Marker) -> str:
    """Mark the target as ours, a new one or one that was begun with. Returns the mark."""
    state = await read_state(target)
    mark = marker_text(begun)
    if state.marker is not None:
        _require_same(target, state.marker, begun)
        if not await target.execute(_CHANGE_MARK, mark, MARK, marker_text(state.marker)):
            raise ToolError(f"Another call goes on with the copy into {target.shown} at this moment.")
        return mark
    if state.cluster_id == begun.cluster_id:
        # What the source has done since may be missing there: nobody compared them.
        raise ToolError(
            f"{target.shown} is {begun.source} itself, or holds an earlier or complete copy of it: nothing was copied."
            " To copy again, give an empty target."
        )
    if state.standing not in (Standing.EMPTY, Standing.CURRENT):
        raise ToolError(f"{target.shown} is no target: `perdure db status` says why. Copy into a new database.")
    await target.migrate()

    async def mark_it() -> None:
        # First: whoever begins at the same moment waits here until we are through, and then finds our mark.
        if not await target.execute(_SET_MARK, MARK, mark):
            raise ToolError(
                f"Another call is copying into {target.shown} at this moment: nothing was copied by this one."
                " Let that one finish, or give another empty target."
            )
        for table in (*DATA, NODE):
            if await target.fetch(f"SELECT 1 FROM {table.name} LIMIT 1"):
                raise ToolError(
                    f"{target.shown} is not empty: there are rows in the table {table.name}. Copy into a new database."
                )
        await target.execute(_SET_CLUSTER_ID, begun.cluster_id)
        await target.execute("DELETE FROM migration")

    await target.transact(mark_it)
    return mark


def _require_same(target: Database, earlier: Marker, begun: Marker) -> None:
    if earlier.cluster_id != begun.cluster_id:
        raise ToolError(
            f"{target.shown} holds a part of {earlier.source}, which is another database than {begun.source}."
        )
    if earlier.schema_version != begun.schema_version:
        raise ToolError(
            f"The copy into {target.shown} was begun by a release with schema version {earlier.schema_version}; this"
            f" one has {begun.schema_version}. Finish it with that release, or begin again with an empty target."
        )
    if earlier.fences != begun.fences:
        raise ToolError(
            f"A server has run on {begun.source} since the copy into {target.shown} was begun. Begin again with an"
            " empty target."
        )


async def _finish(target: Database, mark: str) -> None:
    async def finish() -> None:
        if await target.fetch(f"SELECT 1 FROM {NODE.name} LIMIT 1"):
            raise ToolError(
                f"A server has run on {target.shown} while it was copied into. Begin again with an empty one."
            )
        await _require_mark(target, await target.execute(_DROP_MARK, MARK, mark))
        await target.execute(_SET_VERSION, SCHEMA_VERSION, time.time_ns())

    await target.transact(finish)


async def _require_mark(target: Database, rows: int) -> None:
    if not rows:
        raise ToolError(f"Another call has gone on with the copy into {target.shown}; this one leaves it to that.")


# --- rows -------------------------------------------------------------------------------------------------------------


async def _copy_table(
    source: Database, target: Database, table: Table, mark: str, report: Report
) -> Checksummer | None:
    """Copy what is missing of a table. Returns the checksum of the source where all of it went by."""
    after = await _last_key(target, table)
    total = Checksummer() if after is None else None
    rows = 0
    while page := await source.read_page(table, after):
        await target.transact(partial(_write_page, target, table, mark, page))
        if total is not None:
            total.add(page)
        rows += len(page)
        after = key_of(table, page[-1])
        report(Progress("copied", table.name, rows, is_done=False))
    report(Progress("copied", table.name, rows, is_done=True))
    return total


async def _write_page(target: Database, table: Table, mark: str, page: Sequence[Row]) -> None:
    await _require_mark(target, await target.execute(_CHANGE_MARK, mark, MARK, mark))
    await target.insert(table, page)


async def _last_key(target: Database, table: Table) -> Row | None:
    order = ", ".join(f"{name} DESC" for name in table.primary_key)
    rows = await target.fetch(f"SELECT {', '.join(table.primary_key)} FROM {table.name} ORDER BY {order} LIMIT 1")
    return rows[0] if rows else None


async def _compared(
    source: Database, target: Database, table: Table, total: Checksummer | None, report: Report
) -> Copied:
    here = await checksum_of(source, table) if total is None else total.checksum
    there = await checksum_of(target, table)
    if here != there:
        raise ToolError(
            f"The table {table.name} is not the same in {target.shown}: {there.rows} rows with checksum {there.digest};"
            f" {source.shown} has {here.rows} with {here.digest}. Begin again with an empty target."
        )
    report(Progress("compared", table.name, there.rows, is_done=True))
    return Copied(table.name, there)
