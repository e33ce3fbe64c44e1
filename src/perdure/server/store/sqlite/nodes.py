"""The small tables: who writes (the fence), what cluster this is, and the namespaces."""

# ruff: noqa: S608 - built at import, of the names in the schema.

from __future__ import annotations

import sqlite3

import msgspec

from perdure.server.core.records import NamespaceRecord
from perdure.server.store.interface import Claim, Fenced
from perdure.server.store.schema import NAMESPACE
from perdure.server.store.sqlite.bulk import SqlValue

_CLUSTER_ID = "SELECT value FROM meta WHERE name = 'cluster_id'"
_CLAIM = (
    "INSERT INTO node (node, incarnation, batch) VALUES (?, 1, 0)"
    " ON CONFLICT (node) DO UPDATE SET incarnation = incarnation + 1 RETURNING incarnation, batch"
)
_RESOLVE = (
    "UPDATE node SET incarnation = incarnation + 1 WHERE node = ? AND incarnation = ? RETURNING incarnation, batch"
)
_NAMESPACE_NAMES = ", ".join(NAMESPACE.column_names)
_SAVE_NAMESPACE = (
    f"INSERT INTO namespace ({_NAMESPACE_NAMES}) VALUES ({', '.join('?' * len(NAMESPACE.columns))})"
    " ON CONFLICT (namespace_id) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in NAMESPACE.column_names if name != "namespace_id")
)
_LIST_NAMESPACES = (
    f"SELECT json_group_array(json_array({_NAMESPACE_NAMES})) FROM (SELECT * FROM namespace ORDER BY name)"
)

_namespace_rows = msgspec.json.Decoder(list[tuple[str, str, int, str, str, str, int, int, str]])
_data = msgspec.json.Decoder(dict[str, str])
_search_attributes = msgspec.json.Decoder(dict[str, int])


def cluster_id(connection: sqlite3.Connection) -> str:
    """See `Store.cluster_id`."""
    row: tuple[str] = connection.execute(_CLUSTER_ID).fetchone()
    return row[0]


def claim(connection: sqlite3.Connection, node: str) -> Claim:
    """See `Store.claim`."""
    return Claim(*connection.execute(_CLAIM, (node,)).fetchall()[0])


def resolve(connection: sqlite3.Connection, node: str, incarnation: int) -> Claim:
    """See `Store.resolve`."""
    rows = connection.execute(_RESOLVE, (node, incarnation)).fetchall()
    if not rows:
        raise Fenced(f"Another process has taken the place of node {node!r} since incarnation {incarnation}.")
    return Claim(*rows[0])


def namespace_row(namespace: NamespaceRecord) -> tuple[SqlValue, ...]:
    """Return the columns of a namespace."""
    return (
        namespace.namespace_id,
        namespace.name,
        namespace.state,
        namespace.description,
        namespace.owner_email,
        msgspec.json.encode(namespace.data).decode(),
        namespace.retention_seconds,
        namespace.created_at,
        msgspec.json.encode(namespace.search_attributes).decode(),
    )


def save_namespace(connection: sqlite3.Connection, row: tuple[SqlValue, ...]) -> None:
    """See `Store.save_namespace`."""
    connection.execute(_SAVE_NAMESPACE, row)


def list_namespaces(connection: sqlite3.Connection) -> list[NamespaceRecord]:
    """See `Store.list_namespaces`."""
    row: tuple[str] = connection.execute(_LIST_NAMESPACES).fetchone()
    return [
        NamespaceRecord(*columns[:5], _data.decode(data), *columns[6:8], _search_attributes.decode(search_attributes))
        for columns in _namespace_rows.decode(row[0])
        for data, search_attributes in [(columns[5], columns[8])]
    ]
