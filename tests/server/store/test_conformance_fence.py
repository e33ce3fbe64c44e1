"""What every store owes the engine: one writer, whose place another process can take; and nothing lost."""

from __future__ import annotations

import pytest

from perdure.server.store.interface import Batch, Fenced, Store
from perdure.server.store.visibility.filter import EVERYTHING
from tests.server.store import rows
from tests.server.store.conftest import Place
from tests.server.store.writing import Writer


async def test_claims_count_up_and_batches_go_on(store: Store) -> None:
    first = await store.claim("node")
    assert first.batch == 0
    await store.commit(Batch(1, []))
    await store.commit(Batch(2, []))
    second = await store.claim("node")
    assert second.incarnation > first.incarnation
    assert second.batch == 2
    assert (await store.claim("other")).batch == 0


@pytest.mark.parametrize("number", [0, 1, 3])
async def test_a_batch_out_of_turn_is_fenced(store: Store, number: int) -> None:
    await store.claim("node")
    await store.commit(Batch(1, []))
    with pytest.raises(Fenced):
        await store.commit(Batch(number, [rows.write("w", rows.run("w", "r"))]))
    assert await store.load_run(rows.key("w"), "r") is None


async def test_resolve_tells_the_last_durable_batch(store: Store) -> None:
    claimed = await store.claim("node")
    await store.commit(Batch(1, []))
    first = await store.resolve()
    assert first.incarnation > claimed.incarnation
    assert first.batch == 1
    await store.commit(Batch(2, []))
    second = await store.resolve()
    assert second.incarnation > first.incarnation
    assert second.batch == 2


async def test_a_process_whose_place_was_taken_can_write_nothing(place: Place) -> None:
    old, new = await place.open(), await place.open()
    old_writer = await Writer.claim(old)
    await old_writer.commit(rows.write("w", rows.run("w", "r")))
    new_writer = await Writer.claim(new)
    assert new_writer.batch == 1
    with pytest.raises(Fenced):
        await old_writer.commit(rows.write("v", rows.run("v", "q")))
    with pytest.raises(Fenced):
        await old.resolve()
    await new_writer.commit(rows.write("v", rows.run("v", "other")))
    assert await old.load_run(rows.key("v"), "q") is None
    assert await old.load_run(rows.key("v"), "other") is not None


async def test_a_process_fences_even_where_it_has_written_nothing(place: Place) -> None:
    old, new = await place.open(), await place.open()
    old_writer = await Writer.claim(old)
    await Writer.claim(new)
    with pytest.raises(Fenced):
        await old_writer.commit()


async def test_nodes_of_other_names_do_not_fence(place: Place) -> None:
    one, two = await place.open(), await place.open()
    first, second = await Writer.claim(one, "one"), await Writer.claim(two, "two")
    await first.commit(rows.write("w", rows.run("w", "r")))
    await second.commit(rows.write("v", rows.run("v", "q")))
    assert await one.count_runs(rows.NAMESPACE, EVERYTHING) == 2


async def test_everything_is_there_after_a_restart(place: Place) -> None:
    first = await place.open()
    cluster_id = await first.cluster_id()
    await first.save_namespace(rows.namespace("orders"))
    writer = await Writer.claim(first)
    write = rows.write("w", rows.run("w", "r", alarm_at=7, task_ready_queue="q", task_ready_at=1))
    write.events = [rows.event("r", 1), rows.event("r", 5)]
    write.activities, write.timers = [rows.activity("r", 5)], [rows.timer("r", "t")]
    await writer.commit(write)
    before = await first.load_current_runs([rows.key("w")])
    await first.close()
    second = await place.open()
    assert await second.cluster_id() == cluster_id
    assert await second.list_namespaces() == [rows.namespace("orders")]
    assert await second.load_current_runs([rows.key("w")]) == before
    assert [alarm.run_id for alarm in await second.due_alarms(8, 1)] == ["r"]
    assert (await second.claim("node")).batch == 1
