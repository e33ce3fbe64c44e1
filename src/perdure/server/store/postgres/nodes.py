"""The small tables: who writes (the fence), what cluster this is, and the namespaces."""

# ruff: noqa: S608 - built at import, of the names in the schema.

from __future__ import annotations

from typing import TYPE_CHECKING

from perdure.server.core.records import NamespaceRecord
from perdure.server.store.interface import LOST_ID, Claim, Fenced, StoreMismatch, StoreUnavailable
from perdure.server.store.namespace_rows import namespace_record, namespace_row, stale_namespace
from perdure.server.store.schema import NAMESPACE

if TYPE_CHECKING:
    from perdure.server.store.postgres.connections import Connection, Reader

BUMP_VERSION = "UPDATE meta SET value = (value::bigint + 1)::text WHERE name = 'cluster_version'"
"""Has every node of the cluster look at what has changed."""
_CLUSTER_ID = "SELECT value FROM meta WHERE name = 'cluster_id'"
CLAIM = (
    "INSERT INTO node (node, incarnation, batch) VALUES ($1, 1, 0) ON CONFLICT (node)"
    " DO UPDATE SET incarnation = node.incarnation + 1, nonce = NULL RETURNING incarnation, batch"
)
RESOLVE = (
    "UPDATE node SET incarnation = incarnation + 1, nonce = $3"
    " WHERE node = $1 AND (incarnation = $2 OR nonce = $3) RETURNING incarnation, batch"
)
"""It also takes a row whose last bump was a resolve with the same nonce: one of ours, whose answer was lost."""
_IS_READ_ONLY = "SELECT current_setting('transaction_read_only') = 'on'"
_NAMESPACE_NAMES = ", ".join(NAMESPACE.column_names)
_PLACES = [f"${number}" for number, _ in enumerate(NAMESPACE.columns, start=1)]
_FORMER_PLACES = [f"${number}" for number, _ in enumerate(NAMESPACE.columns, start=1 + len(_PLACES))]
_BUMP_IF_SAVED = f"{BUMP_VERSION} AND EXISTS (SELECT 1 FROM saved)"
_INSERT_NAMESPACE = (
    f"WITH saved AS (INSERT INTO namespace ({_NAMESPACE_NAMES}) VALUES ({', '.join(_PLACES)}) RETURNING namespace_id)"
    f" {_BUMP_IF_SAVED}"
)
_REPLACE_NAMESPACE = (
    f"WITH saved AS (UPDATE namespace SET ({_NAMESPACE_NAMES}) = ({', '.join(_PLACES)})"
    f" WHERE namespace_id = {_FORMER_PLACES[0]} AND "
    + " AND ".join(
        # CockroachDB documents no IS NOT DISTINCT FROM.
        f"({column.name} = {place} OR ({column.name} IS NULL AND {place} IS NULL))"
        if column.nullable
        else f"{column.name} = {place}"
        for column, place in zip(NAMESPACE.columns, _FORMER_PLACES, strict=True)
        if column.name != "namespace_id"
    )
    + f" RETURNING namespace_id) {_BUMP_IF_SAVED}"
)
_LIST_NAMESPACES = f"SELECT {_NAMESPACE_NAMES} FROM namespace ORDER BY name"


async def cluster_id(reader: Reader) -> str:
    """See `Store.cluster_id`. Raises StoreMismatch where it is lost."""
    rows = await reader.fetch(_CLUSTER_ID)
    if not rows:
        raise StoreMismatch(LOST_ID)
    return str(rows[0]["value"])


async def claim(session: Reader, node: str) -> Claim:
    """See `Store.claim`."""
    [(incarnation, batch)] = await session.fetch(CLAIM, node)
    return Claim(incarnation, batch)


async def resolve(session: Reader, node: str, incarnation: int, nonce: str) -> Claim:
    """See `Store.resolve`.

    Args:
        session: In a transaction.
        node: Our name.
        incarnation: The last one that we know we have.
        nonce: The same as in our last resolve, where we do not know what became of that one.
    """
    rows = await session.fetch(RESOLVE, node, incarnation, nonce)
    if not rows:
        raise Fenced(f"Another process has taken the place of node {node!r} since incarnation {incarnation}.")
    [(bumped, batch)] = rows
    return Claim(bumped, batch)


async def check(connection: Connection) -> None:
    """See `Store.check`."""
    [(is_read_only,)] = await connection.fetch(_IS_READ_ONLY)
    if is_read_only:
        # Where the URL names several servers, the next connection may find the one that takes writes now.
        connection.terminate()
        raise StoreUnavailable("The database takes no writes: it is a standby, or was made read-only.")


async def save_namespace(connection: Connection, namespace: NamespaceRecord, former: NamespaceRecord | None) -> None:
    """See `Store.save_namespace`."""
    row = namespace_row(namespace)
    if former is None:
        await connection.execute(_INSERT_NAMESPACE, *row)
    elif await connection.execute(_REPLACE_NAMESPACE, *row, *namespace_row(former)) == "UPDATE 0":
        raise stale_namespace(namespace)


async def list_namespaces(reader: Reader) -> list[NamespaceRecord]:
    """See `Store.list_namespaces`."""
    return [
        namespace_record((row[0], row[1], row[2], row[3], row[4], row[5], row[6], row[7], row[8], row[9], row[10]))
        for row in await reader.fetch(_LIST_NAMESPACES)
    ]
