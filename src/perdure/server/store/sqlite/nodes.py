"""The small tables: who writes (the fence), what cluster this is, and the namespaces."""

# ruff: noqa: S608 - built at import, of the names in the schema.

from __future__ import annotations

import sqlite3

import msgspec

from perdure.server.core.records import NamespaceRecord
from perdure.server.store.interface import LOST_ID, Claim, Fenced, StoreMismatch
from perdure.server.store.namespace_rows import NamespaceRow, namespace_record, namespace_row, stale_namespace
from perdure.server.store.schema import NAMESPACE

_CLUSTER_ID = "SELECT value FROM meta WHERE name = 'cluster_id'"
_ROOM_PROVED = 65_536
_FILL_ROOM = f"INSERT OR REPLACE INTO meta (name, value) VALUES ('room', hex(zeroblob({_ROOM_PROVED // 2})))"
_EMPTY_ROOM = "DELETE FROM meta WHERE name = 'room'"
_CLAIM = (
    "INSERT INTO node (node, incarnation, batch) VALUES (?, 1, 0)"
    " ON CONFLICT (node) DO UPDATE SET incarnation = incarnation + 1 RETURNING incarnation, batch"
)
_RESOLVE = (
    "UPDATE node SET incarnation = incarnation + 1 WHERE node = ? AND incarnation = ? RETURNING incarnation, batch"
)
_NAMESPACE_NAMES = ", ".join(NAMESPACE.column_names)
_INSERT_NAMESPACE = f"INSERT INTO namespace ({_NAMESPACE_NAMES}) VALUES ({', '.join('?' * len(NAMESPACE.columns))})"
_REPLACE_NAMESPACE = (
    f"UPDATE namespace SET {', '.join(f'{name} = ?' for name in NAMESPACE.column_names)}"
    f" WHERE {' AND '.join(f'{name} IS ?' for name in NAMESPACE.column_names)}"
)
_LIST_NAMESPACES = (
    f"SELECT json_group_array(json_array({_NAMESPACE_NAMES})) FROM (SELECT * FROM namespace ORDER BY name)"
)

_namespace_rows = msgspec.json.Decoder(list[NamespaceRow])


def cluster_id(connection: sqlite3.Connection) -> str:
    """See `Store.cluster_id`. Raises StoreMismatch where it is lost."""
    row: tuple[str] | None = connection.execute(_CLUSTER_ID).fetchone()
    if row is None:
        raise StoreMismatch(LOST_ID)
    return row[0]


def prove_room(connection: sqlite3.Connection) -> None:
    """Make some bytes durable and delete them again. Where that breaks off between the two, the next time mends it."""
    connection.execute(_FILL_ROOM)
    connection.execute(_EMPTY_ROOM)


def claim(connection: sqlite3.Connection, node: str) -> Claim:
    """See `Store.claim`."""
    return Claim(*connection.execute(_CLAIM, (node,)).fetchall()[0])


def resolve(connection: sqlite3.Connection, node: str, incarnation: int) -> Claim:
    """See `Store.resolve`."""
    rows = connection.execute(_RESOLVE, (node, incarnation)).fetchall()
    if not rows:
        raise Fenced(f"Another process has taken the place of node {node!r} since incarnation {incarnation}.")
    return Claim(*rows[0])


def save_namespace(connection: sqlite3.Connection, namespace: NamespaceRecord, former: NamespaceRecord | None) -> None:
    """See `Store.save_namespace`."""
    if former is None:
        connection.execute(_INSERT_NAMESPACE, namespace_row(namespace))
    elif not connection.execute(_REPLACE_NAMESPACE, (*namespace_row(namespace), *namespace_row(former))).rowcount:
        raise stale_namespace(namespace)


def list_namespaces(connection: sqlite3.Connection) -> list[NamespaceRecord]:
    """See `Store.list_namespaces`."""
    row: tuple[str] = connection.execute(_LIST_NAMESPACES).fetchone()
    return [namespace_record(columns) for columns in _namespace_rows.decode(row[0])]
