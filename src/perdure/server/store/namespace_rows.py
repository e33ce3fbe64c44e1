"""A namespace as a row, the same in every SQL database: its maps are JSON text, which people can read.

This module must never hold a statement.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from perdure.server.core.records import NamespaceRecord
from perdure.server.store.interface import StaleVersion

NamespaceRow: TypeAlias = tuple[str, str, int, str, str, str, int, int, str, int | None, int | None]
"""The columns of `namespace`."""

_data = msgspec.json.Decoder(dict[str, str])
_search_attributes = msgspec.json.Decoder(dict[str, int])


def namespace_row(namespace: NamespaceRecord) -> NamespaceRow:
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
        namespace.delete_delay_seconds,
        namespace.drained_at,
    )


def stale_namespace(namespace: NamespaceRecord) -> StaleVersion:
    """Return what is raised where somebody else has changed a namespace."""
    return StaleVersion(f"Namespace {namespace.namespace_id} was changed by somebody else meanwhile.")


def namespace_record(row: NamespaceRow) -> NamespaceRecord:
    """Make a namespace of its columns."""
    return NamespaceRecord(*row[:5], _data.decode(row[5]), *row[6:8], _search_attributes.decode(row[8]), *row[9:])
