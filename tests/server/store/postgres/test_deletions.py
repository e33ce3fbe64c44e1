"""Histories that go piece by piece while two nodes delete them: each may do so, as a shard moves between them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from perdure.server.core.records import DiscardedHistory
from perdure.server.store.postgres import PostgresStore, deletions
from tests.server.store import rows
from tests.server.store.postgres.shell import Shell, until

PIECE = 5
WAITS = "EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')"


@pytest.fixture
async def store(postgres_url: str) -> AsyncIterator[PostgresStore]:
    store = PostgresStore(postgres_url)
    await store.open()
    await store.claim("node")
    yield store
    await store.close()


async def _discard(shell: Shell, events: int) -> None:
    await shell.execute(f"INSERT INTO event SELECT 'r', id, 1, 1, '' FROM generate_series(1, {events}) AS id")
    await shell.execute("INSERT INTO discarded_history VALUES ('r', $1, 'w', 1)", rows.NAMESPACE)


async def test_who_finds_that_another_took_the_same_piece_does_not_forget_the_rest(
    store: PostgresStore, shell: Shell, postgres_url: str
) -> None:
    await _discard(shell, 4 * PIECE)
    async with shell.transaction():
        assert await shell.fetchval(deletions.DELETE_SOME, "r", PIECE) == PIECE
        waiting = asyncio.create_task(store.delete_history("r", PIECE))
        await shell.execute(until(WAITS))
    assert not await waiting
    assert await store.discarded_histories(10) == [DiscardedHistory("r", rows.NAMESPACE, "w")]
    while not await store.delete_history("r", PIECE):
        pass
    assert await shell.fetchval("SELECT count(*) FROM event") == 0
    assert await store.discarded_histories(10) == []


async def test_what_another_has_deleted_meanwhile_is_gone(store: PostgresStore, shell: Shell) -> None:
    await _discard(shell, PIECE - 1)
    async with shell.transaction():
        assert await shell.fetchval(deletions.DELETE_SOME, "r", PIECE) == PIECE - 1
        waiting = asyncio.create_task(store.delete_history("r", PIECE))
        await shell.execute(until(WAITS))
    assert await waiting
    assert await store.delete_history("r", PIECE)
    assert await store.discarded_histories(10) == []
