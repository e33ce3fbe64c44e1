"""Shards: the function is stored with every row, so what it gives for an id may never change."""

from __future__ import annotations

import pytest

from perdure.server.core.records import WorkflowKey
from perdure.server.core.shards import SHARDS, shard_of

NAMESPACE = "32049b68-7872-4094-8e63-d0dd59896a83"


@pytest.mark.parametrize(
    ("key", "shard"),
    [
        (WorkflowKey("", ""), 909),
        (WorkflowKey(NAMESPACE, "order-17"), 1016),
        (WorkflowKey(NAMESPACE, "order-18"), 617),
        (WorkflowKey(NAMESPACE, "Bestellung für Jürgen"), 582),
        (WorkflowKey(NAMESPACE, "\ud800"), 89),
    ],
)
def test_an_id_has_the_shard_it_always_had(key: WorkflowKey, shard: int) -> None:
    assert shard_of(key) == shard


def test_ids_spread_over_all_shards() -> None:
    found = {shard_of(WorkflowKey(NAMESPACE, f"order-{number}")) for number in range(20_000)}
    assert found == set(range(SHARDS))


def test_the_namespace_counts_and_does_not_run_into_the_id() -> None:
    assert shard_of(WorkflowKey("a", "bc")) != shard_of(WorkflowKey("ab", "c"))
    assert shard_of(WorkflowKey("a", "w")) != shard_of(WorkflowKey("b", "w"))
