"""The statements that make indexes and views: the same text in every SQL database. Tables are each dialect's own."""

from __future__ import annotations

from perdure.server.store.schema import Index, Table
from perdure.server.store.views import View


def create_index(table: Table, index: Index) -> str:
    """Return the statement that makes an index."""
    unique = "UNIQUE " if index.unique else ""
    where = f" WHERE {index.where}" if index.where else ""
    return f"CREATE {unique}INDEX {index.name} ON {table.name} ({', '.join(index.columns)}){where}"


def create_view(view: View) -> str:
    """Return the statement that makes a view."""
    return f"CREATE VIEW {view.name} AS {view.query.strip()}"
