"""Namespaces on more than one node: whoever changes them, whenever, no change is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from perdure.server.core.errors import Aborted, NotFound
from perdure.server.core.records import NamespaceRecord
from perdure.server.engine.namespaces import Namespaces, NoFellows
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


class Fellow(NoFellows):
    """The other one of two nodes, which reads in its own time."""

    def __init__(self, other: Registry) -> None:
        self._other = other

    async def tell(self) -> bool:
        await asyncio.sleep(0)
        await self._other.namespaces.read_again()
        return True


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


@in_virtual_time
async def test_a_read_does_not_put_back_what_a_later_change_has_made() -> None:
    one, _ = await two_nodes()
    one.store.listed.shut()
    reading = await started(one.namespaces.read_again())
    registering = await started(one.namespaces.register("new", retention_seconds=1))
    one.store.listed.open()
    await asyncio.gather(reading, registering)
    assert one.namespaces.by_name("new") == await registering


@in_virtual_time
async def test_whether_a_namespace_is_there_is_asked_of_the_store_where_it_is_not_known() -> None:
    one, other = await two_nodes()
    record = await other.namespaces.register("new", retention_seconds=1)
    assert await one.namespaces.is_there(record.namespace_id)
    assert one.namespaces.by_name("new") == record
    assert not await one.namespaces.is_there("nobody's")


@in_virtual_time
async def test_nodes_that_tell_each_other_at_once_do_not_wait_for_each_other() -> None:
    one, other = await two_nodes()
    one.namespaces._fellows, other.namespaces._fellows = Fellow(other), Fellow(one)
    async with asyncio.timeout(1):
        await asyncio.gather(
            one.namespaces.register("a", retention_seconds=1), other.namespaces.register("b", retention_seconds=1)
        )
    assert one.namespaces.all() == other.namespaces.all()


@in_virtual_time
async def test_a_namespace_that_another_node_has_removed_and_this_one_forgotten_is_gone() -> None:
    one, other = await two_nodes()
    record = await one.namespaces.register("doomed", retention_seconds=1)
    await other.namespaces.read_again()
    assert await one.namespaces.remove(record)
    await other.namespaces.read_again()
    assert await other.namespaces.remove(record)
