"""The rows of a database, gathered by the run they belong to, in the order of run ids.

Every table whose key begins with a run id is read in key order, page by page, all of them side by side: so memory holds
one page of each table and the rows of one run, however many runs there are.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final, TypeVar

import msgspec

from perdure.server.core.records import RunRecord
from perdure.server.store.schema import INBOX, RUN, Table
from perdure.server.store.tools.checksums import key_of
from perdure.server.store.tools.interface import Database, Row
from perdure.server.store.tools.tables import DATA

T = TypeVar("T")

BY_RUN: Final = tuple(table for table in DATA if table.primary_key[0] in ("run_id", "sender_run_id"))
"""`run` itself, what hangs on a run, and what was received from one."""

assert RUN in BY_RUN and INBOX in BY_RUN, "tables of runs are known by their keys"


class RunRows(msgspec.Struct):
    """All rows with one run id, by table, in key order."""

    run_id: str
    tables: dict[str, list[Row]]

    def of(self, table: Table) -> list[Row]:
        """Return the rows of a table."""
        return self.tables.get(table.name, [])

    def run(self) -> RunRecord | None:
        """Return the run itself. Raises msgspec.ValidationError as `records` does."""
        if not (rows := self.of(RUN)):
            return None
        values = dict(zip(RUN.column_names, rows[0], strict=True))
        return msgspec.convert({**values, "stored_version": values["version"]}, RunRecord)

    def records(self, kind: type[T], table: Table) -> list[T]:
        """Make records of the rows of a table: named tuples of the columns that they have.

        Raises:
            msgspec.ValidationError: A value is not of its column's type.
        """
        places = [table.column_names.index(name) for name in kind.__annotations__]
        return [msgspec.convert([row[at] for at in places], kind) for row in self.of(table)]


async def runs(database: Database) -> AsyncIterator[RunRows]:
    """Yield the rows of each run id that is anywhere in the database."""
    readers = [_Reader(database, table) for table in BY_RUN]
    while True:
        heads = [run_id for reader in readers if (run_id := await reader.head()) is not None]
        if not heads:
            return
        gathered = RunRows(min(heads), {})
        for reader in readers:
            if rows := await reader.take(gathered.run_id):
                gathered.tables[reader.table.name] = rows
        yield gathered


class _Reader:
    """Reads one table; knows the run id of the next row."""

    def __init__(self, database: Database, table: Table) -> None:
        self.table = table
        self._database = database
        self._run_id_at = table.column_names.index(table.primary_key[0])
        self._page: list[Row] = []
        self._position = 0
        self._after: Row | None = None
        self._is_over = False

    async def head(self) -> str | None:
        """Return the run id of the next row, None where there is none."""
        if self._position == len(self._page) and not self._is_over:
            self._page = await self._database.read_page(self.table, self._after)
            self._position = 0
            self._is_over = not self._page
            if self._page:
                self._after = key_of(self.table, self._page[-1])
        return None if self._is_over else str(self._page[self._position][self._run_id_at])

    async def take(self, run_id: str) -> list[Row]:
        """Return the next rows as far as they have this run id."""
        taken: list[Row] = []
        while await self.head() == run_id:
            taken.append(self._page[self._position])
            self._position += 1
        return taken
