"""Rule 3: a node whose place was taken writes nothing more, tells nobody a result, and stops serving."""

from __future__ import annotations

import pytest

from perdure.server.core.errors import Unavailable
from tests.server.engine.node import Node, new_database, started
from tests.virtual_time import in_virtual_time, settle


@in_virtual_time
async def test_a_node_that_was_replaced_writes_nothing_more() -> None:
    database = new_database()
    old, new = Node(database), Node(database)
    await old.start()
    reply = await old.start_workflow()
    await new.start()
    with pytest.raises(Unavailable, match="replaced"):
        await old.signal()
    assert len(old.stored_events(reply.run_id)) == 2
    await new.signal()


@in_virtual_time
async def test_a_batch_on_its_way_is_stopped_by_the_fence() -> None:
    database = new_database()
    old, new = Node(database), Node(database)
    await old.start()
    old.faults.before_commit.shut()
    start = await started(old.start_workflow())
    await new.start()
    old.faults.before_commit.open()
    with pytest.raises(Unavailable):
        await start
    assert database.tables.runs == {}


@in_virtual_time
async def test_a_fenced_node_stops_serving_and_says_so() -> None:
    database = new_database()
    old, new = Node(database), Node(database)
    await old.start()
    await old.start_workflow()
    await new.start()
    with pytest.raises(Unavailable):
        await old.signal()
    assert old.engine.fenced_event.is_set()
    for call in (old.locate(), old.start_workflow("other"), old.history()):
        with pytest.raises(Unavailable, match="replaced"):
            await call


@in_virtual_time
async def test_a_fenced_node_tries_to_write_only_once() -> None:
    database = new_database()
    old, new = Node(database), Node(database)
    await old.start()
    await old.start_workflow()
    await old.poll()
    await new.start()
    tried = len(old.faults.batches)
    with pytest.raises(Unavailable):
        await old.signal()
    await settle()
    assert len(old.faults.batches) == tried + 1
