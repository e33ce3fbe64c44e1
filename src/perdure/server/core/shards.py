"""Which shard a workflow id belongs to.

A shard is what nodes own and hand over: a fixed part of all workflow ids. The number of shards and the function are
stored with every row, so neither may ever change.
"""

from __future__ import annotations

from typing import Final
from zlib import crc32

from perdure.server.core.records import WorkflowKey

SHARDS: Final = 1024


def shard_of(key: WorkflowKey) -> int:
    """Return the shard of a workflow id, from 0 up to, not including, `SHARDS`."""
    # A lone surrogate has no UTF-8. Such an id is refused before it is stored; until then it must lie somewhere.
    return crc32(f"{key.namespace_id}\0{key.workflow_id}".encode(errors="surrogatepass")) % SHARDS
