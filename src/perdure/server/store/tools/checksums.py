"""The checksum of a table's rows in key order, the same whatever database they were read from.

Each row is written as MessagePack, which says of every value where it ends, and hashed.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from typing import Final, NamedTuple

import msgspec

from perdure.server.store.schema import Table
from perdure.server.store.tools.interface import Database, Row

_DIGEST_BYTES: Final = 16
_encode = msgspec.msgpack.Encoder().encode


class Checksum(NamedTuple):
    """How many rows, and what is in them."""

    rows: int
    digest: str


class Checksummer:
    """Takes rows in key order."""

    def __init__(self) -> None:
        self._hash = blake2b(digest_size=_DIGEST_BYTES)
        self._rows = 0

    def add(self, rows: Iterable[Row]) -> None:
        """Take the next rows."""
        for row in rows:
            self._hash.update(_encode(row))
            self._rows += 1

    @property
    def checksum(self) -> Checksum:
        """The checksum of the rows so far."""
        return Checksum(self._rows, self._hash.hexdigest())


async def checksum_of(database: Database, table: Table) -> Checksum:
    """Read a whole table, page by page."""
    total = Checksummer()
    after: Row | None = None
    while page := await database.read_page(table, after):
        total.add(page)
        after = key_of(table, page[-1])
    return total.checksum


def key_of(table: Table, row: Row) -> Row:
    """Return the key of a row."""
    return tuple(row[table.column_names.index(name)] for name in table.primary_key)
