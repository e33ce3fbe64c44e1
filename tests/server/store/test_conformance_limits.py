"""What a node of a cluster is shown: the rows of its own shards, until it is told of others."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from perdure.server.core.records import MailWrite, OutboxRecord
from perdure.server.core.shards import SHARDS, shard_of
from perdure.server.store.interface import Backlog, ClusterStore
from tests.server.store import rows
from tests.server.store.conftest import ClusterPlace

IDS = [f"w{number}" for number in range(6)]
NOBODYS = frozenset(range(SHARDS)) - {shard_of(rows.key(workflow_id)) for workflow_id in IDS}
MANY = 10_000_000


def _shards(*workflow_ids: str) -> frozenset[int]:
    return frozenset(shard_of(rows.key(workflow_id)) for workflow_id in workflow_ids)


@pytest.fixture
async def store(cluster: ClusterPlace) -> AsyncIterator[ClusterStore]:
    """A store with workflows of as many shards: each has a task, an activity, an alarm and a message to the next."""
    assert len(_shards(*IDS)) == len(IDS)
    node = await cluster.node("a:1")
    for age, workflow_id in enumerate(IDS):
        at = rows.START + age
        run = rows.run(workflow_id, f"r-{workflow_id}", task_ready_queue="orders", task_ready_at=at, alarm_at=at)
        write = rows.write(workflow_id, run)
        write.activities = [rows.activity(run.run_id, 5, workflow_id=workflow_id, ready_at=at)]
        receiver = IDS[(age + 1) % len(IDS)]
        message = OutboxRecord(
            run.run_id, 1, rows.NAMESPACE, workflow_id, rows.NAMESPACE, receiver, "signal", 0, at, b"body"
        )
        write.mail = MailWrite(outbox=[message])
        await node.commit(write)
    yield node.store


async def _shown(store: ClusterStore, limit: int = 100) -> list[list[str]]:
    """Return the workflow ids of each reading."""
    workflow_tasks = await store.ready_workflow_tasks(rows.NAMESPACE, "orders", limit)
    activity_tasks = await store.ready_activity_tasks(rows.NAMESPACE, "orders", rows.START + 100, limit)
    alarms = await store.due_alarms(rows.START + 100, limit)
    outbox = await store.read_outbox(limit, MANY)
    return [[row.workflow_id for row in read] for read in (workflow_tasks, activity_tasks, alarms, outbox.records)]


async def _backlogs(store: ClusterStore) -> list[Backlog]:
    return [
        await store.workflow_task_backlog(rows.NAMESPACE, "orders"),
        await store.activity_task_backlog(rows.NAMESPACE, "orders", rows.START + 100),
    ]


async def test_before_it_is_told_it_shows_all(store: ClusterStore) -> None:
    assert await _shown(store) == [IDS] * 4
    assert await _backlogs(store) == [Backlog(6, rows.START)] * 2


async def test_it_shows_rows_of_its_shards_only(store: ClusterStore) -> None:
    store.limit_to(_shards("w2", "w4") | NOBODYS)
    assert await _shown(store) == [["w2", "w4"]] * 4
    assert await _backlogs(store) == [Backlog(2, rows.START + 2)] * 2


async def test_it_shows_nothing_without_shards(store: ClusterStore) -> None:
    store.limit_to(frozenset())
    assert await _shown(store) == [[]] * 4
    assert await _backlogs(store) == [Backlog(0, None)] * 2


async def test_the_last_it_was_told_counts(store: ClusterStore) -> None:
    store.limit_to(_shards("w2"))
    store.limit_to(_shards("w5", "w1"))
    assert await _shown(store) == [["w1", "w5"]] * 4


async def test_rows_of_others_take_no_room(store: ClusterStore) -> None:
    store.limit_to(_shards("w3", "w4", "w5"))
    assert await _shown(store, limit=2) == [["w3", "w4"]] * 4
    head = await store.read_outbox(2, MANY)
    assert not head.is_last
    assert (await store.read_outbox(3, MANY)).is_last


async def test_a_shard_stays_what_it_was_when_the_run_goes_on(store: ClusterStore, cluster: ClusterPlace) -> None:
    node = await cluster.node("b:1")
    run = rows.run(
        "w2", "r-w2", stored_version=1, task_ready_queue="orders", task_ready_at=rows.START + 50, alarm_at=rows.START
    )
    write = rows.write("w2", run)
    write.activities = [rows.activity("r-w2", 5, workflow_id="w2", ready_at=rows.START + 50, attempt=2)]
    await node.commit(write)
    store.limit_to(_shards("w2"))
    assert await _shown(store) == [["w2"]] * 4


async def test_histories_and_listings_are_not_limited(store: ClusterStore) -> None:
    store.limit_to(frozenset())
    assert await store.load_run(rows.key("w1"), "r-w1") is not None
    assert (await store.read_pair(rows.key("w2"), "r-w1", 1)).is_pending


async def test_what_is_to_be_deleted_is_shown_to_whom_it_belongs(store: ClusterStore, cluster: ClusterPlace) -> None:
    node = await cluster.node("b:1")
    for age, workflow_id in enumerate(IDS[:5]):
        run = rows.run(
            workflow_id, f"r-{workflow_id}", stored_version=1, status=rows.COMPLETED, closed_at=rows.START + age
        )
        write = rows.write(workflow_id, run)
        if age < 2:
            write.runs_deleted = write.histories_discarded = [run.run_id]
        await node.commit(write)
    store.limit_to(_shards("w1", "w3", "w4", "w5"))
    assert [run.workflow_id for run in await store.closed_runs(rows.NAMESPACE, 9, None)] == ["w3", "w4"]
    assert [run.workflow_id for run in await store.page_runs(rows.NAMESPACE, 9, None)] == ["w3", "w4", "w5"]
    assert [history.workflow_id for history in await store.discarded_histories(9)] == ["w1"]
    store.limit_to(frozenset())
    assert not await store.is_namespace_empty(rows.NAMESPACE), "what is others' counts too"
