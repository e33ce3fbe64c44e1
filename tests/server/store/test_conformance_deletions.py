"""What every store owes to who deletes: closed runs in the order of their end, histories in pieces, namespaces."""

from __future__ import annotations

from perdure.server.core.records import DiscardedHistory, EntityWrite, MailWrite, OutboxRecord, RequestRecord
from perdure.server.store.interface import ClosedRun, RunName, RunPosition, Store
from perdure.server.store.visibility.filter import EVERYTHING
from tests.server.store import rows
from tests.server.store.writing import Writer

MANY = 10_000_000
OTHER = "namespace-2"


def closed(workflow_id: str, closed_at: int, *, run_id: str = "", namespace_id: str = rows.NAMESPACE) -> EntityWrite:
    run = rows.run(
        workflow_id,
        run_id or f"r-{workflow_id}",
        namespace_id=namespace_id,
        status=rows.COMPLETED,
        closed_at=rows.START + closed_at,
        # The order of the starts is the opposite one.
        started_at=rows.START - closed_at,
    )
    return rows.write(workflow_id, run, namespace_id=namespace_id)


async def with_history(writer: Writer, events: int, requests: int) -> None:
    write = rows.write("w", rows.run("w", "r"))
    write.events = [rows.event("r", number + 1) for number in range(events)]
    write.requests = [RequestRecord("r", f"request {number}") for number in range(requests)]
    await writer.commit(write, rows.write("other", rows.run("other", "q")))


async def discard(writer: Writer) -> None:
    run = rows.run("w", "r", stored_version=1)
    await writer.commit(EntityWrite(rows.key("w"), runs=[run], runs_deleted=["r"], histories_discarded=["r"]))


# --- which runs -------------------------------------------------------------------------------------------------------


async def test_closed_runs_come_in_the_order_of_their_end(store: Store) -> None:
    writer = await Writer.claim(store)
    await writer.commit(
        closed("b", 2),
        closed("a", 3),
        closed("same-1", 4),
        closed("same-2", 4),
        closed("first", 1),
        closed("elsewhere", 0, namespace_id=OTHER),
        rows.write("open", rows.run("open", "r-open")),
    )
    found = await store.closed_runs(rows.NAMESPACE, 10, None)
    assert [run.workflow_id for run in found] == ["first", "b", "a", "same-1", "same-2"]
    assert found[0] == ClosedRun("first", "r-first", rows.START + 1)
    assert await store.closed_runs(rows.NAMESPACE, 2, None) == found[:2]
    after = RunPosition(rows.START + 4, "r-same-1")
    assert await store.closed_runs(rows.NAMESPACE, 10, after) == found[4:]
    assert await store.closed_runs("unknown", 10, None) == []


async def test_a_run_is_among_the_closed_ones_from_its_end_to_its_deletion(store: Store) -> None:
    writer = await Writer.claim(store)
    await writer.commit(rows.write("w", rows.run("w", "r")))
    assert await store.closed_runs(rows.NAMESPACE, 10, None) == []
    ended = rows.run("w", "r", stored_version=1, status=rows.COMPLETED, closed_at=rows.START + 9)
    await writer.commit(rows.write("w", ended))
    assert await store.closed_runs(rows.NAMESPACE, 10, None) == [ClosedRun("w", "r", rows.START + 9)]
    await writer.commit(EntityWrite(rows.key("w"), runs_deleted=["r"]))
    assert await store.closed_runs(rows.NAMESPACE, 10, None) == []


async def test_all_runs_of_a_namespace_are_paged_through(store: Store) -> None:
    writer = await Writer.claim(store)
    runs = [rows.write(f"w{n}", rows.run(f"w{n}", f"r{n}", started_at=rows.START + n // 2)) for n in range(5)]
    await writer.commit(*runs, closed("closed", -9), closed("elsewhere", 0, namespace_id=OTHER))
    found: list[RunName] = []
    after: RunPosition | None = None
    while page := await store.page_runs(rows.NAMESPACE, 2, after):
        found += page
        after = RunPosition(page[-1].started_at, page[-1].run_id)
    assert [run.workflow_id for run in found] == ["w0", "w1", "w2", "w3", "w4", "closed"]
    assert found[3] == RunName("w3", "r3", rows.START + 1)


# --- histories in pieces ----------------------------------------------------------------------------------------------


async def test_a_discarded_history_outlives_its_run_and_is_listed(store: Store) -> None:
    writer = await Writer.claim(store)
    await with_history(writer, events=5, requests=1)
    assert await store.discarded_histories(10) == []
    await discard(writer)
    assert await store.load_run(rows.key("w"), "r") is None
    assert await store.count_runs(rows.NAMESPACE, EVERYTHING) == 1
    assert await store.discarded_histories(10) == [DiscardedHistory("r", rows.NAMESPACE, "w")]
    assert await store.discarded_histories(0) == []
    assert len(await store.read_events("r", 1, 100, 10, MANY)) == 5


async def test_a_discarded_history_goes_piece_by_piece(store: Store) -> None:
    writer = await Writer.claim(store)
    await with_history(writer, events=7, requests=11)
    await discard(writer)
    assert not await store.delete_history("r", 3)
    assert len(await store.read_events("r", 1, 100, 10, MANY)) == 4
    assert not await store.delete_history("r", 3)
    assert len(await store.read_events("r", 1, 100, 10, MANY)) == 1
    pieces = 2
    while not await store.delete_history("r", 3):
        pieces += 1
        assert await store.discarded_histories(10), "it is forgotten and something is left"
    assert pieces >= 3, "the request ids are too many for as few pieces"
    assert await store.discarded_histories(10) == []
    assert await store.read_events("r", 1, 100, 10, MANY) == []
    await writer.commit(rows.write("w", rows.run("w", "r")))
    again = await store.load_run(rows.key("w"), "r")
    assert again is not None
    assert again.request_ids == []


async def test_only_what_is_discarded_is_deleted(store: Store) -> None:
    writer = await Writer.claim(store)
    await with_history(writer, events=5, requests=1)
    assert await store.delete_history("r", 100)
    assert len(await store.read_events("r", 1, 100, 10, MANY)) == 5
    assert await store.delete_history("unknown", 100)


# --- namespaces -------------------------------------------------------------------------------------------------------


async def test_a_namespace_remembers_that_it_is_to_go(store: Store) -> None:
    record = rows.namespace("orders")
    record.delete_delay_seconds, record.drained_at = 3_600, rows.START
    await store.save_namespace(record)
    assert await store.list_namespaces() == [record]


async def test_an_empty_namespace_is_deleted(store: Store) -> None:
    await store.save_namespace(rows.namespace("orders"))
    await store.save_namespace(rows.namespace("others", OTHER))
    writer = await Writer.claim(store)
    await writer.commit(closed("w", 1, namespace_id=OTHER))
    assert await store.is_namespace_empty(rows.NAMESPACE)
    assert await store.delete_namespace(rows.NAMESPACE)
    assert [record.name for record in await store.list_namespaces()] == ["others"]
    assert await store.delete_namespace(rows.NAMESPACE), "it is gone already"


async def test_a_namespace_with_anything_left_in_it_stays(store: Store) -> None:
    await store.save_namespace(rows.namespace("orders"))
    writer = await Writer.claim(store)

    async def assert_kept() -> None:
        assert not await store.is_namespace_empty(rows.NAMESPACE)
        assert not await store.delete_namespace(rows.NAMESPACE)
        assert len(await store.list_namespaces()) == 1

    write = rows.write("w", rows.run("w", "r"))
    write.events = [rows.event("r", 1)]
    await writer.commit(write)
    await assert_kept()
    await discard(writer)
    await assert_kept()
    while not await store.delete_history("r", 10):
        pass
    for sender, receiver in ((rows.NAMESPACE, OTHER), (OTHER, rows.NAMESPACE)):
        sent = OutboxRecord("s", 1, sender, "v", receiver, "w", "signal", 0, rows.START, b"")
        await writer.commit(EntityWrite(rows.key("v", sender), mail=MailWrite(outbox=[sent])))
        await assert_kept()
        await writer.commit(EntityWrite(rows.key("v", sender), mail=MailWrite(outbox_removed=[("s", 1)])))
    assert await store.delete_namespace(rows.NAMESPACE)
    assert await store.list_namespaces() == []
