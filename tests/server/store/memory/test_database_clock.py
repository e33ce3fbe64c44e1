"""The clock of the database in memory: a test's own, and the only one that leases are judged by."""

from __future__ import annotations

from perdure.server.store.memory import MemoryDatabase, MemoryStore

SECOND = 1_000_000_000


async def test_a_lease_ends_by_the_clock_that_was_given() -> None:
    time = 1_000 * SECOND
    database = MemoryDatabase(now=lambda: time)
    first, second = MemoryStore(database), MemoryStore(database)
    for name, store in (("a:1", first), ("b:1", second)):
        await store.open()
        await store.join(name, name, "1.0", 5.0)
    time += 4 * SECOND
    await second.renew(5.0)
    assert [member.lease_until for member in (await first.read_view()).members] == [1_005 * SECOND, 1_009 * SECOND]
    assert not await second.take_over("a:1", "a:1", {"b:1": [1]})
    time += SECOND
    assert [member.is_alive for member in (await first.read_view()).members] == [False, True]
    assert await second.take_over("a:1", "a:1", {"b:1": [1]})
