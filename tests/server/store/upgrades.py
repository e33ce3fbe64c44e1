"""What a migration step does to the release before it, which goes on beside it: two catalogs in, faults out.

A server of that release writes the columns it knows, by their names, and reads them. So a step may add tables, indexes,
views, and columns that are empty or have a default; it may not take away, rename, retype or forbid anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from perdure.server.store.tools.interface import CatalogTable


def faults(before: Mapping[str, CatalogTable], after: Mapping[str, CatalogTable]) -> Iterator[str]:
    """Yield what the release before would trip over."""
    for name, table in before.items():
        changed = after.get(name)
        if changed is None:
            yield f"the table {name} is gone"
        else:
            yield from (f"{name}: {fault}" for fault in _table_faults(table, changed))


def _table_faults(before: CatalogTable, after: CatalogTable) -> Iterator[str]:
    for name, column in before.columns.items():
        changed = after.columns.get(name)
        if changed is None:
            yield f"the column {name} is gone"
        elif changed.type != column.type:
            yield f"the column {name} was {column.type} and is {changed.type}"
        elif column.nullable and not changed.nullable:
            yield f"the column {name} must be filled now"
    for name in after.columns.keys() - before.columns.keys():
        if not after.columns[name].nullable and not after.columns[name].has_default:
            yield f"the new column {name} must be filled, and has no default"
    if after.primary_key != before.primary_key:
        yield "the primary key is another one"
    for name, index in before.indexes.items():
        if name not in after.indexes:
            yield f"the index {name} is gone"
        elif index.unique and not after.indexes[name].unique:
            yield f"the index {name} forbids nothing any more"
    for name in after.indexes.keys() - before.indexes.keys():
        if after.indexes[name].unique:
            yield f"the new index {name} forbids rows that were allowed"
    if after.triggers != before.triggers:
        yield "a trigger changes what is written"
