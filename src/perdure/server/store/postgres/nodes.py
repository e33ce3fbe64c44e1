"""The small tables: who writes (the fence), what cluster this is, and the namespaces."""

# ruff: noqa: S608 - built at import, of the names in the schema.

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import asyncpg

from perdure.server.core.records import NamespaceRecord
from perdure.server.store.interface import Claim, Fenced, StoreUnavailable
from perdure.server.store.namespace_rows import namespace_record, namespace_row, stale_namespace
from perdure.server.store.schema import NAMESPACE

if TYPE_CHECKING:
    from perdure.server.store.postgres.connections import Connection, Reader

BUMP_VERSION = "UPDATE meta SET value = (value::bigint + 1)::text WHERE name = 'cluster_version'"
"""Has every node of the cluster look at what has changed."""
_CLUSTER_ID = "SELECT value FROM meta WHERE name = 'cluster_id'"
CLAIM = (
    "INSERT INTO node (node, incarnation, batch) VALUES ($1, 1, 0)"
    " ON CONFLICT (node) DO UPDATE SET incarnation = node.incarnation + 1 RETURNING incarnation, batch"
)
RESOLVE = (
    "UPDATE node SET incarnation = incarnation + 1 WHERE node = $1 AND incarnation = $2"
    " RETURNING incarnation, batch, pg_current_xact_id()::text"
)
_FATE = "SELECT pg_xact_status($1::text::xid8)"
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
        f"{name} IS NOT DISTINCT FROM {place}"
        for name, place in zip(NAMESPACE.column_names, _FORMER_PLACES, strict=True)
        if name != "namespace_id"
    )
    + f" RETURNING namespace_id) {_BUMP_IF_SAVED}"
)
_LIST_NAMESPACES = f"SELECT {_NAMESPACE_NAMES} FROM namespace ORDER BY name"


class Resolution(NamedTuple):
    """What a resolve would make of our claim, and the transaction that does it."""

    claim: Claim
    transaction: str


async def cluster_id(reader: Reader) -> str:
    """See `Store.cluster_id`."""
    [(value,)] = await reader.fetch(_CLUSTER_ID)
    return str(value)


async def claim(session: Reader, node: str) -> Claim:
    """See `Store.claim`."""
    [(incarnation, batch)] = await session.fetch(CLAIM, node)
    return Claim(incarnation, batch)


async def resolve(connection: Connection, node: str, incarnation: int) -> Resolution:
    """See `Store.resolve`; within a transaction."""
    rows = await connection.fetch(RESOLVE, node, incarnation)
    if not rows:
        raise Fenced(f"Another process has taken the place of node {node!r} since incarnation {incarnation}.")
    [(bumped, batch, transaction)] = rows
    return Resolution(Claim(bumped, batch), transaction)


async def happened(connection: Connection, transaction: str) -> bool:
    """Whether a transaction was committed. Raises StoreUnavailable while it is not decided."""
    try:
        [(fate,)] = await connection.fetch(_FATE, transaction)
    except asyncpg.InvalidParameterValueError:
        # It is beyond all that this database knows: it never got there.
        return False
    if fate == "in progress":
        raise StoreUnavailable("The database has not decided yet on our claim.")
    return bool(fate == "committed")


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
