"""Namespaces on more than one node: whoever changes them, whenever, no change is lost."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from perdure.server.core.errors import Aborted, NotFound
from perdure.server.core.records import NamespaceRecord
from perdure.server.engine.namespaces import Namespaces
from perdure.server.store.memory import MemoryDatabase, MemoryStore
from tests.server.engine.node import CountingClock, Gate, started
from tests.virtual_time import in_virtual_time


class Store(MemoryStore):
    """The store of one node, with a gate before what it writes of namespaces, and one behind what it reads."""

    def __init__(self, database: MemoryDatabase) -> None:
        super().__init__(database)
        self.saving = Gate()
        self.listed = Gate()
        self.before_save: Callable[[], None] = lambda: None

    async def list_namespaces(self) -> list[NamespaceRecord]:
        records = await super().list_namespaces()
        await self.listed.passed()
        return records

    async def save_namespace(self, namespace: NamespaceRecord, former: NamespaceRecord | None = None) -> None:
        await self.saving.passed()
        self.before_save()
        await super().save_namespace(namespace, former)


class Registry:
    """The namespaces of one node."""

    def __init__(self, database: MemoryDatabase) -> None:
        self.store = Store(database)
        self.namespaces = Namespaces(self.store, CountingClock())

    async def open(self) -> Registry:
        await self.store.open()
        await self.namespaces.load()
        return self


async def two_nodes() -> tuple[Registry, Registry]:
    database = MemoryDatabase()
    return await Registry(database).open(), await Registry(database).open()


def owned_by(email: str) -> Callable[[NamespaceRecord], None]:
    def edit(record: NamespaceRecord) -> None:
        record.owner_email = email

    return edit


def describe(text: str) -> Callable[[NamespaceRecord], None]:
    def edit(record: NamespaceRecord) -> None:
        record.description = text

    return edit


@in_virtual_time
async def test_a_change_keeps_what_another_node_has_changed_unheard() -> None:
    one, other = await two_nodes()
    await one.namespaces.change("default", owned_by("a@example.org"))
    await other.namespaces.change("default", describe("new"))
    [stored] = await one.store.list_namespaces()
    assert (stored.owner_email, stored.description) == ("a@example.org", "new")
    assert other.namespaces.by_name("default") == stored


@in_virtual_time
async def test_changes_of_two_nodes_at_once_are_both_kept() -> None:
    """The one that is slower was computed on what is stored no longer."""
    one, other = await two_nodes()
    one.store.saving.shut()
    slower = await started(one.namespaces.change("default", owned_by("a@example.org")))
    await other.namespaces.change("default", describe("new"))
    one.store.saving.open()
    changed = await slower
    assert (changed.owner_email, changed.description) == ("a@example.org", "new")
    assert await other.store.list_namespaces() == [changed]


@in_virtual_time
async def test_a_change_of_a_namespace_that_is_removed_meanwhile_does_not_bring_it_back() -> None:
    one, other = await two_nodes()
    record = await other.namespaces.register("doomed", retention_seconds=1)
    one.store.saving.shut()
    slower = await started(one.namespaces.change("doomed", describe("late")))
    assert await other.namespaces.remove(record)
    one.store.saving.open()
    with pytest.raises(NotFound):
        await slower
    assert [record.name for record in await one.store.list_namespaces()] == ["default"]


@in_virtual_time
async def test_a_change_that_is_always_too_late_is_given_up() -> None:
    one, _ = await two_nodes()
    row = next(iter(one.store.database.tables.namespaces.values()))

    def be_faster() -> None:
        row.retention_seconds += 1

    one.store.before_save = be_faster
    with pytest.raises(Aborted, match="try again"):
        await one.namespaces.change("default", describe("late"))
    assert row.description == ""
