"""Namespaces in a cluster: what a node was not told of, it finds in the database."""

from __future__ import annotations

import asyncio

import pytest

from perdure.server.core.errors import NotFound
from perdure.server.engine.namespaces import NoFellows
from tests.server.engine.cluster.nodes import LEASE_SECONDS, town
from tests.server.engine.node import unavailable
from tests.virtual_time import in_virtual_time


@in_virtual_time
async def test_a_node_that_was_not_told_reads_them_with_its_next_renewal() -> None:
    async with town("a", "b") as nodes:
        a, b = nodes.nodes.values()
        b.engine.namespaces._fellows = NoFellows()
        record = await b.engine.namespaces.register("new", retention_seconds=86_400)
        with pytest.raises(NotFound):
            a.engine.namespaces.resolve("new")
        await asyncio.sleep(LEASE_SECONDS / 2)
        assert a.engine.namespaces.resolve("new") == record
        assert await b.engine.namespaces.remove(record)
        await asyncio.sleep(LEASE_SECONDS / 2)
        with pytest.raises(NotFound):
            a.engine.namespaces.resolve("new")


@in_virtual_time
async def test_they_are_read_until_the_store_answers_however_long_that_takes() -> None:
    async with town("a", "b") as nodes:
        a, b = nodes.nodes.values()
        b.engine.namespaces._fellows = NoFellows()
        a.store.reading_namespaces.errors = [unavailable()] * 30
        record = await b.engine.namespaces.register("new", retention_seconds=86_400)
        await asyncio.sleep(20)
        with pytest.raises(NotFound):
            a.engine.namespaces.resolve("new")
        await asyncio.sleep(20)
        assert a.engine.namespaces.resolve("new") == record


@in_virtual_time
async def test_what_changes_during_a_read_is_read_after_it() -> None:
    async with town("a", "b") as nodes:
        a, b = nodes.nodes.values()
        b.engine.namespaces._fellows = NoFellows()
        a.store.reading_namespaces.shut()
        await b.engine.namespaces.register("one", retention_seconds=86_400)
        await asyncio.sleep(LEASE_SECONDS / 2)
        assert a.store.reading_namespaces.waiting == 1
        await b.engine.namespaces.register("two", retention_seconds=86_400)
        await asyncio.sleep(LEASE_SECONDS / 2)
        a.store.reading_namespaces.open()
        await asyncio.sleep(1)
        assert [record.name for record in a.engine.namespaces.all()] == ["default", "one", "two"]
