"""What every store owes the engine: history in pages, the indexes over the state, listings and namespaces."""

from __future__ import annotations

import uuid

import msgspec
import pytest

from perdure.server.core.records import EntityWrite, RunRecord
from perdure.server.store.interface import (
    Backlog,
    BatchRejected,
    CountGroup,
    DueAlarm,
    ListPosition,
    ReadyTask,
    StaleVersion,
    Store,
    StoreUnavailable,
)
from perdure.server.store.visibility.filter import (
    EVERYTHING,
    And,
    Attribute,
    Comparison,
    Filter,
    Not,
    Operator,
    Or,
    Value,
    matches,
)
from tests.server.store import rows
from tests.server.store.writing import Writer

MANY = 10_000_000


async def test_a_database_has_an_id_for_life(store: Store) -> None:
    cluster_id = await store.cluster_id()
    assert str(uuid.UUID(cluster_id)) == cluster_id
    assert await store.cluster_id() == cluster_id


# --- history ------------------------------------------------------------------------------------------------------


async def _write_history(store: Store, run_id: str, sizes: list[int]) -> None:
    writer = await Writer.claim(store)
    write = rows.write(run_id, rows.run(run_id, run_id))
    write.events = [rows.event(run_id, number, bytes([number]) * size) for number, size in enumerate(sizes, start=1)]
    await writer.commit(write)


async def _ids(store: Store, first: int, end: int, max_events: int, max_bytes: int) -> list[int]:
    return [event.event_id for event in await store.read_events("r", first, end, max_events, max_bytes)]


async def _ids_reverse(store: Store, last: int, max_events: int, max_bytes: int) -> list[int]:
    return [event.event_id for event in await store.read_events_reverse("r", last, max_events, max_bytes)]


async def test_events_come_in_ascending_order_with_their_data(store: Store) -> None:
    await _write_history(store, "r", [3, 0, 2])
    assert await store.read_events("r", 1, 10, 10, MANY) == [(1, b"\x01\x01\x01"), (2, b""), (3, b"\x03\x03")]


async def test_a_range_of_events_excludes_its_end(store: Store) -> None:
    await _write_history(store, "r", [1] * 10)
    await _write_history(store, "other", [1] * 10)
    assert await _ids(store, 3, 6, 100, MANY) == [3, 4, 5]
    assert await _ids(store, 8, 100, 100, MANY) == [8, 9, 10]
    assert await _ids(store, 6, 6, 100, MANY) == []
    assert await _ids(store, 11, 100, 100, MANY) == []


async def test_a_page_of_events_ends_at_its_limits(store: Store) -> None:
    await _write_history(store, "r", [10, 20, 30, 40, 50])
    assert await _ids(store, 1, 9, 2, MANY) == [1, 2]
    assert await _ids(store, 1, 9, 9, 60) == [1, 2, 3]
    assert await _ids(store, 1, 9, 9, 59) == [1, 2]
    assert await _ids(store, 3, 9, 9, 1) == [3]


async def test_events_come_in_descending_order_too(store: Store) -> None:
    await _write_history(store, "r", [10, 20, 30, 40, 50])
    assert await _ids_reverse(store, 5, 9, MANY) == [5, 4, 3, 2, 1]
    assert await _ids_reverse(store, 99, 2, MANY) == [5, 4]
    assert await _ids_reverse(store, 3, 9, 50) == [3, 2]
    assert await _ids_reverse(store, 2, 9, 1) == [2]
    assert await _ids_reverse(store, 0, 9, MANY) == []


async def test_a_long_history_comes_back_whole(store: Store) -> None:
    await _write_history(store, "r", [1] * 255)
    writer = await Writer.claim(store)
    more = EntityWrite(rows.key("r"), events=[rows.event("r", number) for number in range(256, 3_000)])
    await writer.commit(more)
    assert await _ids(store, 1, 5_000, 5_000, MANY) == list(range(1, 3_000))


# --- indexes over the state ---------------------------------------------------------------------------------------


async def test_ready_workflow_tasks_are_those_of_the_queue_oldest_first(store: Store) -> None:
    writer = await Writer.claim(store)
    runs = [
        rows.run("late", "r1", task_ready_queue="q", task_ready_at=30),
        rows.run("early", "r2", task_ready_queue="q", task_ready_at=10),
        rows.run("middle-b", "r4", task_ready_queue="q", task_ready_at=20),
        rows.run("middle-a", "r3", task_ready_queue="q", task_ready_at=20),
        rows.run("sticky", "r5", task_queue="q", task_ready_queue="sticky", task_ready_at=1),
        rows.run("idle", "r6", task_queue="q"),
    ]
    await writer.commit(*(rows.write(run.workflow_id, run) for run in runs))
    elsewhere = rows.run("w", "r7", namespace_id="elsewhere", task_ready_queue="q", task_ready_at=1)
    await writer.commit(rows.write("w", elsewhere, namespace_id="elsewhere"))
    ready = await store.ready_workflow_tasks(rows.NAMESPACE, "q", 3)
    assert ready == [
        ReadyTask(rows.NAMESPACE, "early", "r2", 0, 10),
        ReadyTask(rows.NAMESPACE, "middle-a", "r3", 0, 20),
        ReadyTask(rows.NAMESPACE, "middle-b", "r4", 0, 20),
    ]
    assert await store.workflow_task_backlog(rows.NAMESPACE, "q") == Backlog(4, 10)
    assert await store.workflow_task_backlog(rows.NAMESPACE, "unknown") == Backlog(0, None)


async def test_a_task_that_is_taken_leaves_the_index(store: Store) -> None:
    writer = await Writer.claim(store)
    await writer.commit(rows.write("w", rows.run("w", "r", task_ready_queue="q", task_ready_at=1)))
    await writer.commit(rows.write("w", rows.run("w", "r", stored_version=1, task_state="started")))
    assert await store.ready_workflow_tasks(rows.NAMESPACE, "q", 9) == []


async def test_ready_activities_are_due_and_oldest_first(store: Store) -> None:
    writer = await Writer.claim(store)
    write = rows.write("w", rows.run("w", "r"))
    write.activities = [
        rows.activity("r", 5, ready_at=20),
        rows.activity("r", 6, ready_at=10),
        rows.activity("r", 7, ready_at=21),
        rows.activity("r", 8, ready_at=None, status="started"),
        rows.activity("r", 9, ready_at=1, task_queue="other"),
        rows.activity("r", 10, ready_at=1, namespace_id="elsewhere"),
        rows.activity("r", 11, ready_at=10),
    ]
    await writer.commit(write)
    ready = await store.ready_activity_tasks(rows.NAMESPACE, "orders", 20, 9)
    assert [(task.scheduled_event_id, task.ready_at) for task in ready] == [(6, 10), (11, 10), (5, 20)]
    assert ready[0] == ReadyTask(rows.NAMESPACE, "w", "r", 6, 10)
    assert len(await store.ready_activity_tasks(rows.NAMESPACE, "orders", 20, 2)) == 2
    assert await store.activity_task_backlog(rows.NAMESPACE, "orders", 20) == Backlog(3, 10)
    assert await store.activity_task_backlog(rows.NAMESPACE, "orders", 9) == Backlog(0, None)


async def test_due_alarms_are_those_before_the_time_earliest_first(store: Store) -> None:
    writer = await Writer.claim(store)
    alarms = {"r1": 30, "r2": 10, "r4": 20, "r3": 20, "r5": None, "r6": 40}
    await writer.commit(
        *(rows.write(f"w-{run_id}", rows.run(f"w-{run_id}", run_id, alarm_at=at)) for run_id, at in alarms.items())
    )
    due = await store.due_alarms(40, 9)
    assert [(alarm.run_id, alarm.alarm_at) for alarm in due] == [("r2", 10), ("r3", 20), ("r4", 20), ("r1", 30)]
    assert due[0] == DueAlarm(rows.NAMESPACE, "w-r2", "r2", 10)
    assert len(await store.due_alarms(41, 2)) == 2
    assert await store.due_alarms(10, 9) == []


# --- namespaces ---------------------------------------------------------------------------------------------------


async def test_namespaces_are_kept_and_listed_by_name(store: Store) -> None:
    assert await store.list_namespaces() == []
    later, earlier = rows.namespace("orders", "id-1"), rows.namespace("billing", "id-2")
    await store.save_namespace(later)
    await store.save_namespace(earlier)
    assert await store.list_namespaces() == [earlier, later]


async def test_a_namespace_takes_the_place_of_its_former_state(store: Store) -> None:
    await store.save_namespace(rows.namespace("orders"))
    [former] = await store.list_namespaces()
    changed = rows.namespace("orders-renamed", description="now described")
    changed.data, changed.search_attributes = {"key": "välue"}, {}
    await store.save_namespace(changed, former)
    assert await store.list_namespaces() == [changed]


@pytest.mark.parametrize(
    "change",
    [
        {"description": "of somebody else"},
        {"data": {"key": "of somebody else"}},
        {"search_attributes": {"Other": 1}},
        {"drained_at": 7},
        {"name": "renamed"},
    ],
)
async def test_a_namespace_that_somebody_else_has_changed_stays_as_it_is(
    store: Store, change: dict[str, object]
) -> None:
    await store.save_namespace(rows.namespace("orders"))
    [former] = await store.list_namespaces()
    theirs = msgspec.structs.replace(former, **change)
    await store.save_namespace(theirs, former)
    with pytest.raises(StaleVersion):
        await store.save_namespace(msgspec.structs.replace(former, owner_email="ours"), former)
    assert await store.list_namespaces() == [theirs]


async def test_a_namespace_that_is_gone_does_not_come_back_by_a_change(store: Store) -> None:
    former = rows.namespace("orders")
    with pytest.raises(StaleVersion):
        await store.save_namespace(rows.namespace("orders", description="ours"), former)
    assert await store.list_namespaces() == []


async def test_a_new_namespace_takes_no_place_that_is_taken(store: Store) -> None:
    await store.save_namespace(rows.namespace("orders"))
    with pytest.raises(BatchRejected):
        await store.save_namespace(rows.namespace("others"))
    assert [namespace.name for namespace in await store.list_namespaces()] == ["orders"]


async def test_a_namespace_cannot_take_the_name_of_another(store: Store) -> None:
    await store.save_namespace(rows.namespace("orders", "id-1"))
    with pytest.raises(BatchRejected):
        await store.save_namespace(rows.namespace("orders", "id-2"))
    assert [namespace.namespace_id for namespace in await store.list_namespaces()] == ["id-1"]


# --- listings -----------------------------------------------------------------------------------------------------

RUNS = [
    rows.run("a", "r1", started_at=10, workflow_type="Order"),
    rows.run("b", "r2", started_at=30, status=rows.COMPLETED, closed_at=50, next_event_id=12, task_queue="q2"),
    rows.run("b2", "r3", started_at=20, execution_at=25, status=rows.FAILED, closed_at=40, workflow_type="Refund"),
    rows.run("c%_", "r4", started_at=20, status=rows.COMPLETED, closed_at=21, history_size_bytes=9_000),
    rows.run("B", "r5", started_at=40, workflow_type="Refund", transition_count=7),
    rows.run("z\U0010ffff\ud7ff", "r6", started_at=5, status=rows.PAUSED),
]


def _copies() -> list[RunRecord]:
    return [rows.run(**{name: getattr(run, name) for name in RunRecord.__struct_fields__}) for run in RUNS]


async def _write_runs(store: Store) -> None:
    writer = await Writer.claim(store)
    elsewhere = rows.run("a", "elsewhere-run", namespace_id="elsewhere", started_at=15)
    await writer.commit(
        *(rows.write(run.workflow_id, run) for run in _copies()),
        rows.write("a", elsewhere, namespace_id="elsewhere"),
    )


def _is(attribute: Attribute, operator: Operator, *values: Value) -> Comparison:
    return Comparison(attribute, operator, values)


FILTERS: list[Filter] = [
    EVERYTHING,
    And(()),
    Or(()),
    Not(EVERYTHING),
    *(_is(Attribute.WORKFLOW_ID, operator, "b") for operator in Operator if operator not in (Operator.BETWEEN,)),
    _is(Attribute.WORKFLOW_ID, Operator.STARTS_WITH, ""),
    _is(Attribute.WORKFLOW_ID, Operator.STARTS_WITH, "c%"),
    _is(Attribute.WORKFLOW_ID, Operator.STARTS_WITH, "_"),
    _is(Attribute.WORKFLOW_ID, Operator.STARTS_WITH, "z\U0010ffff"),
    _is(Attribute.WORKFLOW_ID, Operator.STARTS_WITH, "z\U0010ffff\ud7ff"),
    _is(Attribute.WORKFLOW_ID, Operator.STARTS_WITH, "\U0010ffff"),
    _is(Attribute.WORKFLOW_ID, Operator.IN, "a", "b2", "missing"),
    _is(Attribute.WORKFLOW_ID, Operator.BETWEEN, "a", "b"),
    _is(Attribute.RUN_ID, Operator.EQUAL, "r3"),
    _is(Attribute.WORKFLOW_TYPE, Operator.EQUAL, "Refund"),
    _is(Attribute.TASK_QUEUE, Operator.EQUAL, "q2"),
    _is(Attribute.EXECUTION_STATUS, Operator.EQUAL, rows.COMPLETED),
    _is(Attribute.EXECUTION_STATUS, Operator.IN, rows.COMPLETED, rows.FAILED),
    _is(Attribute.START_TIME, Operator.GREATER_OR_EQUAL, 20),
    _is(Attribute.START_TIME, Operator.BETWEEN, 10, 20),
    _is(Attribute.EXECUTION_TIME, Operator.EQUAL, 25),
    _is(Attribute.CLOSE_TIME, Operator.IS_NULL),
    Not(_is(Attribute.CLOSE_TIME, Operator.IS_NULL)),
    _is(Attribute.CLOSE_TIME, Operator.NOT_EQUAL, 40),
    Not(_is(Attribute.CLOSE_TIME, Operator.EQUAL, 40)),
    Not(_is(Attribute.CLOSE_TIME, Operator.IN, 40, 21)),
    Not(And((_is(Attribute.CLOSE_TIME, Operator.LESS, 45), _is(Attribute.START_TIME, Operator.LESS, 15)))),
    Not(Or((_is(Attribute.CLOSE_TIME, Operator.LESS, 45), _is(Attribute.START_TIME, Operator.LESS, 15)))),
    _is(Attribute.EXECUTION_DURATION, Operator.GREATER, 10),
    _is(Attribute.HISTORY_LENGTH, Operator.GREATER, 10),
    _is(Attribute.HISTORY_SIZE_BYTES, Operator.GREATER, 1_000),
    _is(Attribute.STATE_TRANSITION_COUNT, Operator.EQUAL, 7),
    And((_is(Attribute.WORKFLOW_TYPE, Operator.EQUAL, "Order"), _is(Attribute.START_TIME, Operator.GREATER, 10))),
    Or((_is(Attribute.WORKFLOW_ID, Operator.EQUAL, "a"), _is(Attribute.EXECUTION_STATUS, Operator.EQUAL, rows.FAILED))),
]


@pytest.mark.parametrize("filter", FILTERS, ids=str)
async def test_a_listing_holds_what_its_filter_matches(store: Store, filter: Filter) -> None:
    await _write_runs(store)
    expected = sorted(
        (run for run in _copies() if matches(filter, run)), key=lambda run: (run.started_at, run.run_id), reverse=True
    )
    for run in expected:
        run.stored_version = run.version
    assert await store.list_runs(rows.NAMESPACE, filter, 100, None) == expected
    assert await store.count_runs(rows.NAMESPACE, filter) == len(expected)
    groups = await store.count_runs_by_status(rows.NAMESPACE, filter)
    statuses = [run.status for run in expected]
    assert groups == [CountGroup(status, statuses.count(status)) for status in sorted(set(statuses))]


@pytest.mark.parametrize("page_size", [1, 2, 4, 100])
async def test_pages_follow_one_another_newest_first(store: Store, page_size: int) -> None:
    await _write_runs(store)
    seen: list[str] = []
    after: ListPosition | None = None
    while page := await store.list_runs(rows.NAMESPACE, EVERYTHING, page_size, after):
        assert len(page) <= page_size
        seen += [run.run_id for run in page]
        after = ListPosition(page[-1].started_at, page[-1].run_id)
    assert seen == ["r5", "r2", "r4", "r3", "r1", "r6"]


async def test_a_listing_knows_a_run_at_once_and_forgets_it_at_once(store: Store) -> None:
    writer = await Writer.claim(store)
    await writer.commit(rows.write("w", rows.run("w", "r")))
    assert await store.count_runs(rows.NAMESPACE, EVERYTHING) == 1
    await writer.commit(EntityWrite(rows.key("w"), runs_deleted=["r"]))
    assert await store.count_runs(rows.NAMESPACE, EVERYTHING) == 0
    assert await store.count_runs_by_status(rows.NAMESPACE, EVERYTHING) == []


async def test_a_closed_store_answers_nothing(store: Store) -> None:
    await store.close()
    await store.close()
    with pytest.raises(StoreUnavailable):
        await store.load_current_runs([rows.key("w")])
    with pytest.raises(StoreUnavailable):
        await store.claim("node")
