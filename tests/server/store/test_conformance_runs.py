"""What every store owes the engine: entities written, read back, and refused."""

from __future__ import annotations

import asyncio

import pytest

from perdure.server.core.records import EntityWrite, RequestRecord, StoredActivity
from perdure.server.store.interface import BatchRejected, StaleVersion, Store, StoredEvent
from tests.server.store import rows
from tests.server.store.writing import Writer

MANY = 10_000_000


async def test_an_empty_store_knows_no_run(store: Store) -> None:
    assert await store.load_current_runs([rows.key("w"), rows.key("v")]) == [None, None]
    assert await store.load_current_runs([]) == []
    assert await store.load_run(rows.key("w"), "r") is None
    assert await store.read_events("r", 1, 100, 10, MANY) == []
    assert await store.read_events_reverse("r", 100, 10, MANY) == []


async def test_a_run_comes_back_as_it_was_written(store: Store) -> None:
    run = rows.run(
        "w",
        "r",
        status=rows.COMPLETED,
        execution_at=rows.START + 5,
        closed_at=rows.START + 9,
        next_event_id=12,
        history_size_bytes=5_000,
        transition_count=7,
        alarm_at=rows.START + 60,
        task_state="scheduled",
        task_attempt=3,
        task_scheduled_at=rows.START + 1,
        task_started_at=rows.START + 2,
        task_ready_queue="sticky",
        task_ready_at=rows.START + 3,
        memo=b"\x00memo\xff",
        search_attributes=b"\x01\x02",
        state=bytes(range(256)),
    )
    writer = await Writer.claim(store)
    await writer.commit(rows.write("w", run))
    run.stored_version = run.version
    loaded = await store.load_run(rows.key("w"), "r")
    assert loaded is not None
    assert loaded.run == run
    assert await store.load_current_runs([rows.key("w")]) == [loaded]


@pytest.mark.parametrize("workflow_id", ["ordér 1 — 日本 😀", 'it\'s "quoted" \\ `%_`', "line\nbreak\ttab", "x" * 1000])
async def test_any_text_is_kept(store: Store, workflow_id: str) -> None:
    writer = await Writer.claim(store)
    await writer.commit(rows.write(workflow_id, rows.run(workflow_id, "r")))
    [loaded] = await store.load_current_runs([rows.key(workflow_id)])
    assert loaded is not None
    assert loaded.run.workflow_id == workflow_id


async def test_everything_pending_comes_back_in_key_order(store: Store) -> None:
    write = rows.write("w", rows.run("w", "r"))
    write.events = [rows.event("r", event_id, b"event-%d" % event_id) for event_id in (1, 2, 7, 12)]
    write.activities = [
        rows.activity("r", 12, status="started", ready_at=None, started_at=rows.START + 1, last_failure="broken"),
        rows.activity("r", 7, cancel_requested=True, state=b"\xff\x00"),
    ]
    write.timers = [rows.timer("r", "t2"), rows.timer("r", "t10"), rows.timer("r", "t1")]
    write.buffered = [rows.buffered("r", 2, b"second"), rows.buffered("r", 1, b"\x00first")]
    write.requests = [RequestRecord("r", "request-b"), RequestRecord("r", "request-a")]
    writer = await Writer.claim(store)
    await writer.commit(write)
    [loaded] = await store.load_current_runs([rows.key("w")])
    assert loaded is not None
    assert loaded.started_event == b"event-1"
    assert loaded.activities == [
        StoredActivity(write.activities[1], b"event-7"),
        StoredActivity(write.activities[0], b"event-12"),
    ]
    assert loaded.timers == [rows.timer("r", "t1"), rows.timer("r", "t10"), rows.timer("r", "t2")]
    assert loaded.buffered == [rows.buffered("r", 1, b"\x00first"), rows.buffered("r", 2, b"second")]
    assert loaded.request_ids == ["request-a", "request-b"]


async def test_many_runs_load_in_the_order_of_their_keys(store: Store) -> None:
    writer = await Writer.claim(store)
    names = [f"w{number:04d}" for number in range(700)]
    await writer.commit(*(rows.write(name, rows.run(name, f"run-of-{name}")) for name in names))
    wanted = [rows.key("missing"), *(rows.key(name) for name in reversed(names)), rows.key(names[0], "elsewhere")]
    loaded = await store.load_current_runs(wanted)
    found = [stored.run.run_id if stored else None for stored in loaded]
    assert found == [None, *(f"run-of-{name}" for name in reversed(names)), None]


async def test_a_run_is_found_only_under_its_own_key(store: Store) -> None:
    writer = await Writer.claim(store)
    await writer.commit(rows.write("w", rows.run("w", "r")))
    assert await store.load_run(rows.key("v"), "r") is None
    assert await store.load_run(rows.key("w", "elsewhere"), "r") is None
    assert await store.load_run(rows.key("w"), "q") is None


async def test_an_update_replaces_the_row(store: Store) -> None:
    writer = await Writer.claim(store)
    await writer.commit(rows.write("w", rows.run("w", "r", alarm_at=5, task_ready_queue="q", task_ready_at=1)))
    changed = rows.run(
        "w", "r", stored_version=1, version=4, next_event_id=9, transition_count=4, memo=b"m", state=b"other"
    )
    await writer.commit(rows.write("w", changed))
    changed.stored_version = 4
    loaded = await store.load_run(rows.key("w"), "r")
    assert loaded is not None
    assert loaded.run == changed


async def test_a_run_that_only_came_further_keeps_its_outline(store: Store) -> None:
    writer = await Writer.claim(store)
    first = rows.run("w", "r", status=rows.PAUSED, memo=b"m", search_attributes=b"s", alarm_at=5, task_ready_queue="q")
    await writer.commit(rows.write("w", first), rows.write("v", rows.run("v", "q")))
    advanced = rows.run(
        "w",
        "r",
        stored_version=1,
        status=rows.PAUSED,
        memo=b"m",
        search_attributes=b"s",
        next_event_id=9,
        history_size_bytes=900,
        transition_count=4,
        alarm_at=7,
        task_state="started",
        task_attempt=2,
        task_scheduled_at=3,
        task_started_at=4,
        state=b"further",
    )
    write = rows.write("w", advanced)
    write.runs_advanced = ["r"]
    await writer.commit(write, rows.write("v", rows.run("v", "q", stored_version=1, status=rows.COMPLETED)))
    loaded = await store.load_run(rows.key("w"), "r")
    assert loaded is not None
    advanced.stored_version = 2
    assert loaded.run == advanced
    write.runs = [rows.run("w", "r", stored_version=1, status=rows.PAUSED, memo=b"m", search_attributes=b"s")]
    with pytest.raises(StaleVersion):
        await writer.commit(write)


@pytest.mark.parametrize("status", [rows.PAUSED, rows.COMPLETED])
async def test_a_status_changes_there_and_back(store: Store, status: int) -> None:
    writer = await Writer.claim(store)
    await writer.commit(rows.write("w", rows.run("w", "r")), rows.write("v", rows.run("v", "q")))
    for version, next_status in ((1, status), (2, rows.RUNNING)):
        await writer.commit(
            rows.write("w", rows.run("w", "r", stored_version=version, status=next_status)),
            rows.write("v", rows.run("v", "q", stored_version=version)),
        )
        loaded = await store.load_run(rows.key("w"), "r")
        assert loaded is not None
        assert (loaded.run.status, loaded.run.version) == (next_status, version + 1)


async def test_pending_rows_are_replaced_and_removed_by_key(store: Store) -> None:
    writer = await Writer.claim(store)
    first = rows.write("w", rows.run("w", "r"))
    first.activities = [rows.activity("r", number) for number in (5, 6, 7)]
    first.timers = [rows.timer("r", "t1"), rows.timer("r", "t2")]
    first.buffered = [rows.buffered("r", 1), rows.buffered("r", 2)]
    await writer.commit(first)
    second = rows.write("w", rows.run("w", "r", stored_version=1))
    second.activities = [rows.activity("r", 6, attempt=2, status="backing_off", ready_at=rows.START + 9)]
    second.activities_removed = [("r", 5), ("r", 99)]
    second.timers = [rows.timer("r", "t1", fires_at=rows.START + 1)]
    second.timers_removed = [("r", "t2")]
    second.buffered_cleared = ["r"]
    second.buffered = [rows.buffered("r", 1, b"new")]
    await writer.commit(second)
    loaded = await store.load_run(rows.key("w"), "r")
    assert loaded is not None
    assert [stored.record for stored in loaded.activities] == [second.activities[0], first.activities[2]]
    assert loaded.timers == [rows.timer("r", "t1", fires_at=rows.START + 1)]
    assert loaded.buffered == [rows.buffered("r", 1, b"new")]


async def test_what_a_batch_both_writes_and_removes_is_gone(store: Store) -> None:
    writer = await Writer.claim(store)
    write = rows.write("w", rows.run("w", "r"))
    write.activities, write.activities_removed = [rows.activity("r", 5)], [("r", 5)]
    write.timers, write.timers_removed = [rows.timer("r", "t")], [("r", "t")]
    await writer.commit(write)
    loaded = await store.load_run(rows.key("w"), "r")
    assert loaded is not None
    assert (loaded.activities, loaded.timers) == ([], [])


async def test_a_repeated_request_id_is_kept_once(store: Store) -> None:
    writer = await Writer.claim(store)
    for version in (0, 1):
        write = rows.write("w", rows.run("w", "r", stored_version=version))
        write.requests = [RequestRecord("r", "same")]
        await writer.commit(write)
    loaded = await store.load_run(rows.key("w"), "r")
    assert loaded is not None
    assert loaded.request_ids == ["same"]


def _with_everything(workflow_id: str, run_id: str, version: int = 0) -> EntityWrite:
    write = rows.write(workflow_id, rows.run(workflow_id, run_id, stored_version=version))
    write.events = [rows.event(run_id, 1 + 10 * version)]
    write.activities = [rows.activity(run_id, 5)]
    write.timers = [rows.timer(run_id, "t")]
    write.buffered = [rows.buffered(run_id, 1 + version)]
    write.requests = [RequestRecord(run_id, f"request-{version}")]
    return write


async def test_a_closed_run_keeps_its_row_its_history_and_its_request_ids(store: Store) -> None:
    writer = await Writer.claim(store)
    await writer.commit(_with_everything("w", "r"), _with_everything("other", "q"))
    closing = _with_everything("w", "r", version=1)
    closing.runs_closed = ["r"]
    await writer.commit(closing)
    closed, other = await store.load_current_runs([rows.key("w"), rows.key("other")])
    assert closed is not None
    assert other is not None
    assert (closed.activities, closed.timers, closed.buffered) == ([], [], [])
    assert closed.request_ids == ["request-0", "request-1"]
    assert [event.event_id for event in await store.read_events("r", 1, 100, 10, MANY)] == [1, 11]
    assert (len(other.activities), len(other.timers), len(other.buffered)) == (1, 1, 1)
    assert other.request_ids == ["request-0"]


async def test_a_run_may_start_and_close_in_one_batch(store: Store) -> None:
    writer = await Writer.claim(store)
    write = _with_everything("w", "r")
    write.runs_closed = ["r"]
    await writer.commit(write)
    loaded = await store.load_run(rows.key("w"), "r")
    assert loaded is not None
    assert (loaded.activities, loaded.timers, loaded.buffered) == ([], [], [])
    assert loaded.request_ids == ["request-0"]
    assert loaded.started_event == b"event"


async def test_of_a_deleted_run_nothing_stays(store: Store) -> None:
    writer = await Writer.claim(store)
    await writer.commit(_with_everything("w", "r"), _with_everything("other", "q"))
    deletion = EntityWrite(rows.key("w"), runs_deleted=["r"])
    await writer.commit(deletion)
    gone, other = await store.load_current_runs([rows.key("w"), rows.key("other")])
    assert gone is None
    assert other is not None
    assert await store.load_run(rows.key("w"), "r") is None
    assert await store.read_events("r", 1, 100, 10, MANY) == []
    await writer.commit(rows.write("w", rows.run("w", "r")))
    again = await store.load_run(rows.key("w"), "r")
    assert again is not None
    assert (again.activities, again.timers, again.buffered, again.request_ids) == ([], [], [], [])


async def test_a_run_may_change_and_be_deleted_in_one_batch(store: Store) -> None:
    writer = await Writer.claim(store)
    await writer.commit(_with_everything("w", "r"))
    deletion = _with_everything("w", "r", version=1)
    deletion.runs_deleted = ["r"]
    await writer.commit(deletion)
    assert await store.load_run(rows.key("w"), "r") is None
    assert await store.read_events("r", 1, 100, 10, MANY) == []


async def test_a_successor_takes_its_place_in_one_write(store: Store) -> None:
    writer = await Writer.claim(store)
    await writer.commit(rows.write("w", rows.run("w", "r1")))
    closed = rows.run("w", "r1", stored_version=1, is_current=False, status=rows.COMPLETED, closed_at=rows.START)
    await writer.commit(rows.write("w", rows.run("w", "r2", started_at=rows.START + 1), closed))
    [current] = await store.load_current_runs([rows.key("w")])
    assert current is not None
    assert current.run.run_id == "r2"
    before = await store.load_run(rows.key("w"), "r1")
    assert before is not None
    assert not before.run.is_current


async def test_an_older_run_is_current_again_when_the_current_one_is_deleted(store: Store) -> None:
    writer = await Writer.claim(store)
    await writer.commit(rows.write("w", rows.run("w", "r1")))
    first = rows.run("w", "r1", stored_version=1, is_current=False, status=rows.COMPLETED)
    await writer.commit(rows.write("w", first, rows.run("w", "r2")))
    write = rows.write("w", rows.run("w", "r1", stored_version=2, status=rows.COMPLETED))
    write.runs_deleted = ["r2"]
    await writer.commit(write)
    [current] = await store.load_current_runs([rows.key("w")])
    assert current is not None
    assert current.run.run_id == "r1"


async def test_one_entity_may_appear_twice_in_a_batch(store: Store) -> None:
    writer = await Writer.claim(store)
    closed = rows.run("w", "r1", stored_version=1, is_current=False, status=rows.COMPLETED)
    await writer.commit(
        rows.write("w", rows.run("w", "r1")), rows.write("w", closed, rows.run("w", "r2")), rows.write("v")
    )
    [current] = await store.load_current_runs([rows.key("w")])
    assert current is not None
    assert current.run.run_id == "r2"


async def test_what_the_caller_changes_after_the_call_is_not_written(store: Store) -> None:
    writer = await Writer.claim(store)
    run = rows.run("w", "r", state=b"given")
    write = rows.write("w", run)
    commit = asyncio.create_task(writer.commit(write))
    await asyncio.sleep(0)
    run.state = b"changed"
    write.events.append(rows.event("r", 1))
    await commit
    loaded = await store.load_run(rows.key("w"), "r")
    assert loaded is not None
    assert (loaded.run.state, loaded.started_event) == (b"given", b"")


# --- refusals -----------------------------------------------------------------------------------------------------


async def _is_refused(store: Store, *writes: EntityWrite) -> None:
    """Check that a batch is refused as a whole: an innocent entity in it is not written, and the next batch is."""
    writer = await Writer.claim(store)
    innocent = rows.write("innocent", rows.run("innocent", "innocent-run"))
    with pytest.raises(BatchRejected):
        await writer.commit(innocent, *writes)
    assert await store.load_run(rows.key("innocent"), "innocent-run") is None
    await writer.commit(innocent)
    assert await store.load_run(rows.key("innocent"), "innocent-run") is not None


@pytest.mark.parametrize("expected", [1, 3])
async def test_a_run_in_another_version_is_refused(store: Store, expected: int) -> None:
    writer = await Writer.claim(store)
    await writer.commit(rows.write("w", rows.run("w", "r", version=2)))
    await _is_refused(store, rows.write("w", rows.run("w", "r", stored_version=expected)))


async def test_a_run_that_is_not_there_cannot_be_updated(store: Store) -> None:
    await _is_refused(store, rows.write("w", rows.run("w", "r", stored_version=1)))


async def test_a_run_cannot_be_new_twice(store: Store) -> None:
    writer = await Writer.claim(store)
    await writer.commit(rows.write("w", rows.run("w", "r")))
    await _is_refused(store, rows.write("w", rows.run("w", "r", is_current=False)))


async def test_a_workflow_id_has_one_current_run(store: Store) -> None:
    writer = await Writer.claim(store)
    await writer.commit(rows.write("w", rows.run("w", "r1")))
    await _is_refused(store, rows.write("w", rows.run("w", "r2")))


async def test_two_current_runs_in_one_write_are_refused(store: Store) -> None:
    await _is_refused(store, rows.write("w", rows.run("w", "r1"), rows.run("w", "r2")))


async def test_two_current_runs_in_two_writes_of_a_batch_are_refused(store: Store) -> None:
    await _is_refused(store, rows.write("w", rows.run("w", "r1")), rows.write("w", rows.run("w", "r2")))


async def test_an_event_cannot_be_written_twice(store: Store) -> None:
    writer = await Writer.claim(store)
    write = rows.write("w", rows.run("w", "r"))
    write.events = [rows.event("r", 1)]
    await writer.commit(write)
    again = rows.write("w", rows.run("w", "r", stored_version=1))
    again.events = [rows.event("r", 1, b"other")]
    await _is_refused(store, again)
    assert await store.read_events("r", 1, 9, 9, MANY) == [StoredEvent(1, b"event")]


async def test_a_buffered_event_cannot_be_written_twice(store: Store) -> None:
    writer = await Writer.claim(store)
    write = rows.write("w", rows.run("w", "r"))
    write.buffered = [rows.buffered("r", 1)]
    await writer.commit(write)
    again = rows.write("w", rows.run("w", "r", stored_version=1))
    again.buffered = [rows.buffered("r", 1)]
    await _is_refused(store, again)


async def test_a_lone_surrogate_is_refused(store: Store) -> None:
    await _is_refused(store, rows.write("w\ud800", rows.run("w\ud800", "r")))
