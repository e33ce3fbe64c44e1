"""Rule 5: where the database refuses a batch, only the workflow whose rows it refuses is refused."""

from __future__ import annotations

import asyncio

import pytest

from perdure.server.core.errors import InvalidArgument, Unavailable
from perdure.server.core.replies import StartReply
from tests.server.engine.node import Node, key_of, running, started, unavailable
from tests.virtual_time import in_virtual_time


async def collect_starts(node: Node, *workflow_ids: str) -> dict[str, asyncio.Task[StartReply]]:
    """Start workflows that all come into one batch; the gate before commits is shut then."""
    node.faults.before_commit.shut()
    await started(node.start_workflow("occupies the committer"))
    return {workflow_id: await started(node.start_workflow(workflow_id)) for workflow_id in workflow_ids}


@pytest.mark.parametrize("culprit", ["a", "b", "c", "d", "e"])
def test_only_the_culprit_is_refused(culprit: str) -> None:
    @in_virtual_time
    async def test() -> None:
        async with running() as node:
            node.reject(culprit)
            starts = await collect_starts(node, "a", "b", "c", "d", "e")
            node.faults.before_commit.open()
            for workflow_id, start in starts.items():
                if workflow_id == culprit:
                    with pytest.raises(InvalidArgument, match="the database refuses this: a bad row"):
                        await start
                else:
                    reply = await start
                    assert len(node.stored_events(reply.run_id)) == 2
            assert len(node.database.tables.runs) == 5

    test()


@in_virtual_time
async def test_two_culprits_are_both_found() -> None:
    async with running() as node:
        node.reject("a")
        node.reject("d")
        starts = await collect_starts(node, "a", "b", "c", "d")
        node.faults.before_commit.open()
        results = await asyncio.gather(*starts.values(), return_exceptions=True)
        refused = [isinstance(result, InvalidArgument) for result in results]
        assert refused == [True, False, False, True]


@in_virtual_time
async def test_what_the_culprit_has_collected_since_fails_too_and_nothing_else() -> None:
    async with running() as node:
        node.reject("bad")
        node.faults.before_commit.shut()
        bad = await started(node.start_workflow("bad"))
        later = await started(node.signal("bad"))
        good = await started(node.start_workflow("good"))
        node.faults.before_commit.open()
        with pytest.raises(InvalidArgument):
            await bad
        with pytest.raises(Unavailable):
            await later
        await good


@in_virtual_time
async def test_the_culprit_is_read_anew_and_may_try_again() -> None:
    async with running() as node:
        await node.start_workflow()
        node.reject("w")
        with pytest.raises(InvalidArgument):
            await node.signal()
        node.faults.rejected.clear()
        assert (await node.locate()).next_event_id == 3
        await node.signal()


@in_virtual_time
async def test_a_database_that_goes_away_in_the_middle_fails_all() -> None:
    async with running() as node:
        node.reject("a")
        starts = await collect_starts(node, "a", "b")
        # The first batch passes, then the one with both is refused, then the database is away.
        node.faults.before_commit.errors += [None, None, unavailable()]
        node.faults.before_commit.open()
        results = await asyncio.gather(*starts.values(), return_exceptions=True)
        assert all(isinstance(result, Unavailable) for result in results)
        node.faults.rejected.clear()
        for workflow_id in ("a", "b"):
            await node.start_workflow(workflow_id)


@in_virtual_time
async def test_what_was_written_while_looking_for_the_culprit_counts_though_the_rest_fails() -> None:
    """Half of the batch was written before the database went away: its caller and its readers are told."""
    async with running() as node:
        await node.start_workflow("half")
        await node.start_workflow("bad")
        page = await node.history("half", wait_seconds=60)
        reader = await started(node.history("half", wait_seconds=60, token=page.next_page_token))
        node.faults.before_commit.shut()
        occupies = await started(node.start_workflow("occupies the committer"))
        signals = [await started(node.signal("half")), await started(node.signal("bad"))]
        node.reject("bad")
        node.faults.before_commit.errors += [None, None, None, unavailable()]
        node.faults.before_commit.open()
        await occupies
        await signals[0]
        with pytest.raises(Unavailable):
            await signals[1]
        await asyncio.sleep(0.1)
        assert reader.done()
        assert len((await reader).history.events) == 1


@in_virtual_time
async def test_a_bug_met_while_looking_for_the_culprit_fails_all_and_the_next_batch_is_written() -> None:
    async with running() as node:
        node.reject("a")
        starts = await collect_starts(node, "a", "b")
        node.faults.rejected[key_of("b")] = TypeError("the driver stumbles")
        node.faults.before_commit.open()
        results = await asyncio.gather(*starts.values(), return_exceptions=True)
        assert [type(result) for result in results] == [Unavailable, Unavailable]
        node.faults.rejected.clear()
        await node.start_workflow("c")
