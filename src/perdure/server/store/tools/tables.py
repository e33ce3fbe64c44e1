"""What the tools know of the tables beyond the schema: what is data, and what belongs to one database only.

Everything is made of `schema.TABLES`, so that a new table or column is copied and checked without an edit here.
"""

from __future__ import annotations

from typing import Final

from perdure.server.store.schema import MEMBER, META, MIGRATION, NODE, SHARD, TABLES

OF_ONE_DATABASE: Final = (MIGRATION, META, NODE, MEMBER, SHARD)
"""What says how this database was made, and who writes to it by which leases and fences. A copy has its own: of all
that only the id of the cluster goes along, and nobody has written to the copy yet."""

DATA: Final = tuple(table for table in TABLES if table not in OF_ONE_DATABASE)
"""What is the same in a copy, row by row."""
