"""What every database that nodes share owes them: members, leases, and shards with one owner each.

A lease of no seconds has ended at once, so that no test waits.
"""

from __future__ import annotations

import asyncio

import pytest

from perdure.server.core.shards import SHARDS
from perdure.server.store.interface import BatchRejected, Fenced, ShardMove, ShardOwner, StaleVersion
from tests.server.store import rows
from tests.server.store.conftest import ClusterPlace

ALL = set(range(SHARDS))
ENDED = 0.0


# --- joining ------------------------------------------------------------------------------------------------------


async def test_the_first_node_gets_all_shards(cluster: ClusterPlace) -> None:
    node = await cluster.node("a:1", session="life 1")
    view = await node.store.read_view()
    assert view.shards == [ShardOwner(shard, "a:1", 1) for shard in range(SHARDS)]
    [member] = view.members
    assert member == ("a:1", "life 1", "1.0", member.started_at, member.lease_until, False, True)
    assert 0 < member.lease_until - member.started_at <= 60 * rows.SECOND


async def test_a_later_node_gets_no_shard_that_has_an_owner(cluster: ClusterPlace) -> None:
    first, second = await cluster.node("b:1"), await cluster.node("a:1")
    assert (await first.shards(), await second.shards()) == (ALL, set())
    assert [member.node for member in (await first.store.read_view()).members] == ["a:1", "b:1"]


async def test_nodes_that_join_at_once_leave_no_shard_out_and_share_none(cluster: ClusterPlace) -> None:
    nodes = await asyncio.gather(*(cluster.node(f"{name}:1") for name in "abc"))
    view = await nodes[0].store.read_view()
    assert [owner.shard for owner in view.shards] == sorted(ALL)
    assert {owner.epoch for owner in view.shards} == {1}
    assert len(view.members) == 3


async def test_who_joins_under_the_same_name_fences_the_one_before(cluster: ClusterPlace) -> None:
    former = await cluster.node("a:1", session="life 1")
    await former.commit(rows.write("w", rows.run("w", "r")))
    before = await former.store.read_view()
    later = await cluster.node("a:1", session="life 2")
    with pytest.raises(Fenced):
        await former.store.renew(60)
    with pytest.raises(Fenced):
        await former.commit(rows.write("w", rows.run("w", "r", stored_version=1)))
    view = await later.store.read_view()
    assert view.version > before.version
    assert view.shards == before.shards
    assert [member.session for member in view.members] == ["life 2"]
    await later.commit(rows.write("w", rows.run("w", "r", stored_version=1)))


async def test_joining_gives_the_fence_as_claiming_does(cluster: ClusterPlace) -> None:
    first = await cluster.node("a:1")
    await first.commit()
    second = await cluster.node("a:1", session="life 2")
    joined = await second.store.join("a:1", "life 3", "1.1", 60)
    resolved = await second.store.resolve()
    assert resolved.incarnation > joined.incarnation
    assert (joined.batch, resolved.batch) == (1, 1)


async def test_a_node_that_was_leaving_and_joins_again_stays(cluster: ClusterPlace) -> None:
    node = await cluster.node("a:1")
    await node.store.set_leaving()
    await node.join("life 2", 60)
    [member] = (await node.store.read_view()).members
    assert not member.is_leaving


# --- leases -------------------------------------------------------------------------------------------------------


async def test_renewing_prolongs_the_lease_and_tells_the_version(cluster: ClusterPlace) -> None:
    node = await cluster.node("a:1", lease_seconds=30)
    before = await node.store.read_view()
    assert await node.store.renew(60) == before.version
    after = await node.store.read_view()
    assert after.version == before.version
    [was], [member] = before.members, after.members
    assert 30 * rows.SECOND <= member.lease_until - was.lease_until < 60 * rows.SECOND
    assert member.started_at == was.started_at


async def test_a_member_whose_lease_has_ended_may_still_renew_it(cluster: ClusterPlace) -> None:
    node = await cluster.node("a:1", lease_seconds=ENDED)
    [member] = (await node.store.read_view()).members
    assert not member.is_alive
    await node.store.renew(60)
    [member] = (await node.store.read_view()).members
    assert member.is_alive


async def test_who_renews_sees_that_something_changed(cluster: ClusterPlace) -> None:
    first = await cluster.node("a:1")
    version = await first.store.renew(60)
    second = await cluster.node("b:1")
    joined = await first.store.renew(60)
    await second.store.set_leaving()
    leaving = await first.store.renew(60)
    await second.store.leave()
    left = await first.store.renew(60)
    assert version < joined < leaving < left == await first.store.renew(60)


async def test_who_renews_sees_that_a_namespace_has_changed(cluster: ClusterPlace) -> None:
    first, second = await cluster.node("a:1"), await cluster.node("b:1")
    versions = [await first.store.renew(60)]
    record, other = rows.namespace("orders"), rows.namespace("orders", description="of many")
    await second.store.save_namespace(record)
    versions.append(await first.store.renew(60))
    await second.store.save_namespace(other, record)
    versions.append(await first.store.renew(60))
    await second.store.delete_namespace(record.namespace_id)
    versions.append(await first.store.renew(60))
    assert versions == sorted(set(versions)), "each is greater than the one before"


async def test_what_was_not_done_to_a_namespace_changes_no_version(cluster: ClusterPlace) -> None:
    node = await cluster.node("a:1")
    record = rows.namespace("orders")
    await node.store.save_namespace(record)
    await node.commit(rows.write("w", rows.run("w", "r")))
    version = await node.store.renew(60)
    with pytest.raises(StaleVersion):
        await node.store.save_namespace(record, rows.namespace("orders", description="never so"))
    assert not await node.store.delete_namespace(record.namespace_id)
    assert await node.store.delete_namespace("nobody's")
    assert await node.store.renew(60) == version


# --- taking over --------------------------------------------------------------------------------------------------


async def test_a_node_is_not_taken_over_while_its_lease_runs(cluster: ClusterPlace) -> None:
    alive, other = await cluster.node("a:1"), await cluster.node("b:1")
    before = await other.store.read_view()
    assert not await other.take_over("a:1", "a:1")
    assert await other.store.read_view() == before
    await alive.commit(rows.write("w", rows.run("w", "r")))
    assert await alive.store.renew(60) == before.version


async def test_a_dead_node_is_fenced_and_its_shards_go_to_others(cluster: ClusterPlace) -> None:
    dead = await cluster.node("a:1", lease_seconds=ENDED)
    await dead.commit(rows.write("w", rows.run("w", "r")))
    second, third = await cluster.node("b:1"), await cluster.node("c:1")
    before = await second.store.read_view()
    gifts = {"b:1": range(1000), "c:1": range(1000, SHARDS)}
    assert await second.store.take_over("a:1", "a:1", gifts)
    after = await third.store.read_view()
    assert after.version > before.version
    assert [member.node for member in after.members] == ["b:1", "c:1"]
    assert after.shards == [ShardOwner(shard, "b:1" if shard < 1000 else "c:1", 2) for shard in range(SHARDS)]
    with pytest.raises(Fenced):
        await dead.commit(rows.write("w", rows.run("w", "r", stored_version=1)))
    with pytest.raises(Fenced):
        await dead.store.resolve()
    with pytest.raises(Fenced):
        await dead.store.renew(60)
    await second.commit(rows.write("w", rows.run("w", "r", stored_version=1)))


async def test_another_life_of_a_dead_node_is_left_alone(cluster: ClusterPlace) -> None:
    await cluster.node("a:1", lease_seconds=ENDED, session="life 1")
    other = await cluster.node("b:1")
    again = await cluster.node("a:1", lease_seconds=ENDED, session="life 2")
    before = await other.store.read_view()
    assert not await other.take_over("a:1", "life 1")
    assert not await other.take_over("a:1", None)
    assert await other.store.read_view() == before
    await again.commit()


async def test_somebody_who_never_was_is_not_taken_over(cluster: ClusterPlace) -> None:
    node = await cluster.node("a:1")
    before = await node.store.read_view()
    assert not await node.take_over("b:1", "b:1", 1)
    assert not await node.take_over("b:1", None, 1)
    assert await node.store.read_view() == before


async def test_only_one_of_two_takes_over(cluster: ClusterPlace) -> None:
    await cluster.node("a:1", lease_seconds=ENDED)
    second, third = await cluster.node("b:1"), await cluster.node("c:1")
    won = await asyncio.gather(second.take_over("a:1", "a:1"), third.take_over("a:1", "a:1"))
    assert sorted(won) == [False, True]
    assert (await second.shards(), await third.shards()) == ((ALL, set()) if won[0] else (set(), ALL))
    assert {owner.epoch for owner in (await second.store.read_view()).shards} == {2}


async def test_only_the_dead_nodes_shards_go_and_only_to_members(cluster: ClusterPlace) -> None:
    dead = await cluster.node("a:1")
    second = await cluster.node("b:1")
    await dead.commit(moves=[ShardMove(7, "b:1")])
    third = await cluster.node("c:1")
    await dead.store.renew(ENDED)
    assert await third.store.take_over("a:1", "a:1", {"c:1": [6, 7, 8], "d:1": [9]})
    assert (await second.shards(), await third.shards()) == ({7}, {6, 8})
    owners = (await third.store.read_view()).shards
    assert [tuple(owners[shard]) for shard in (6, 7, 9)] == [(6, "c:1", 2), (7, "b:1", 2), (9, "a:1", 1)]


async def test_shards_whose_owner_is_no_member_are_taken(cluster: ClusterPlace) -> None:
    gone = await cluster.node("a:1")
    second, third = await cluster.node("b:1"), await cluster.node("c:1")
    assert not await second.take_over("a:1", None)
    await gone.store.leave()
    before = await second.store.read_view()
    won = await asyncio.gather(second.take_over("a:1", None), third.take_over("a:1", None))
    assert sorted(won) == [False, True]
    after = await second.store.read_view()
    assert after.version == before.version + 1
    assert {owner.epoch for owner in after.shards} == {2}
    with pytest.raises(Fenced):
        await gone.commit()


async def test_who_is_no_member_takes_nothing_over(cluster: ClusterPlace) -> None:
    dead = await cluster.node("a:1", lease_seconds=ENDED)
    gone, other = await cluster.node("b:1"), await cluster.node("c:1")
    await gone.store.leave()
    before = await other.store.read_view()
    with pytest.raises(Fenced):
        await gone.store.take_over("a:1", "a:1", {"c:1": [1]})
    assert await other.store.read_view() == before
    await dead.commit()


async def test_of_two_that_declare_each_other_dead_one_stays(cluster: ClusterPlace) -> None:
    nodes = [await cluster.node(name, lease_seconds=ENDED) for name in ("a:1", "b:1")]
    first, second = nodes
    outcomes = await asyncio.gather(
        first.take_over("b:1", "b:1"), second.take_over("a:1", "a:1"), return_exceptions=True
    )
    [winner] = [node for node, outcome in zip(nodes, outcomes, strict=True) if outcome is True]
    assert [type(outcome) for outcome in outcomes if outcome is not True] == [Fenced]
    assert [member.node for member in (await winner.store.read_view()).members] == [winner.name]
    await winner.commit()


async def test_a_node_that_joins_again_after_its_death_owns_nothing(cluster: ClusterPlace) -> None:
    await cluster.node("a:1", lease_seconds=ENDED)
    other = await cluster.node("b:1")
    await other.take_over("a:1", "a:1")
    again = await cluster.node("a:1", session="life 2")
    assert await again.shards() == set()
    await again.commit()


# --- giving away --------------------------------------------------------------------------------------------------


async def test_a_batch_gives_shards_away_with_what_it_writes(cluster: ClusterPlace) -> None:
    first, second = await cluster.node("a:1"), await cluster.node("b:1")
    before = await first.store.read_view()
    await first.commit(rows.write("w", rows.run("w", "r")), moves=[ShardMove(3, "b:1"), ShardMove(5, "b:1")])
    after = await second.store.read_view()
    assert after.version > before.version
    assert await second.shards() == {3, 5}
    assert after.shards[3] == ShardOwner(3, "b:1", 2)
    assert await second.store.load_run(rows.key("w"), "r") is not None


async def test_a_batch_that_is_refused_gives_nothing_away(cluster: ClusterPlace) -> None:
    first, second = await cluster.node("a:1"), await cluster.node("b:1")
    before = await first.store.read_view()
    with pytest.raises(BatchRejected):
        await first.commit(rows.write("w", rows.run("w", "r", stored_version=7)), moves=[ShardMove(3, "b:1")])
    assert await second.store.read_view() == before


async def test_a_fenced_node_gives_nothing_away(cluster: ClusterPlace) -> None:
    former, other = await cluster.node("a:1", session="life 1"), await cluster.node("b:1")
    await cluster.node("a:1", session="life 2")
    before = await other.store.read_view()
    with pytest.raises(Fenced):
        await former.commit(moves=[ShardMove(3, "b:1")])
    assert await other.store.read_view() == before


async def test_a_node_gives_away_only_what_it_owns_and_only_to_others(cluster: ClusterPlace) -> None:
    first, second = await cluster.node("a:1"), await cluster.node("b:1")
    before = await first.store.read_view()
    await second.commit(moves=[ShardMove(3, "b:1"), ShardMove(4, "a:1")])
    await first.commit(moves=[ShardMove(5, "a:1")])
    assert await first.store.read_view() == before


async def test_no_shard_is_given_to_who_is_leaving_or_is_no_member(cluster: ClusterPlace) -> None:
    first, second, third = [await cluster.node(f"{name}:1") for name in "abc"]
    await second.store.set_leaving()
    await third.store.leave()
    before = await first.store.read_view()
    moves = [ShardMove(1, "b:1"), ShardMove(2, "c:1"), ShardMove(3, "d:1")]
    await first.commit(rows.write("w", rows.run("w", "r")), moves=moves)
    assert await first.store.read_view() == before
    assert await first.store.load_run(rows.key("w"), "r") is not None


async def test_a_shard_comes_back_with_a_later_epoch(cluster: ClusterPlace) -> None:
    first, second = await cluster.node("a:1"), await cluster.node("b:1")
    await first.commit(moves=[ShardMove(3, "b:1")])
    await second.commit(moves=[ShardMove(3, "a:1")])
    assert (await first.store.read_view()).shards[3] == ShardOwner(3, "a:1", 3)


# --- leaving ------------------------------------------------------------------------------------------------------


async def test_a_leaving_node_is_a_member_that_says_so(cluster: ClusterPlace) -> None:
    first, second = await cluster.node("a:1"), await cluster.node("b:1")
    await first.store.set_leaving()
    version = await second.store.renew(60)
    await first.store.set_leaving()
    view = await second.store.read_view()
    assert [member.is_leaving for member in view.members] == [True, False]
    assert view.version == version
    await first.commit(moves=[ShardMove(3, "b:1")])
    assert await second.shards() == {3}


async def test_a_node_that_left_is_no_member(cluster: ClusterPlace) -> None:
    first, second = await cluster.node("a:1"), await cluster.node("b:1")
    await second.store.leave()
    view = await first.store.read_view()
    assert [member.node for member in view.members] == ["a:1"]
    await second.store.leave()
    await second.store.set_leaving()
    assert await first.store.read_view() == view
    with pytest.raises(Fenced):
        await second.store.renew(60)


async def test_a_former_life_removes_nothing_of_the_later_one(cluster: ClusterPlace) -> None:
    former = await cluster.node("a:1", session="life 1")
    later = await cluster.node("a:1", session="life 2")
    before = await later.store.read_view()
    await former.store.set_leaving()
    await former.store.leave()
    assert await later.store.read_view() == before
