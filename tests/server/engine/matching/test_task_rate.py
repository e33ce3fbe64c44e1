"""Rates are averages over the last half minute."""

from __future__ import annotations

import pytest

from perdure.server.engine.matching.task_rate import TaskRate


def test_a_steady_stream_has_its_rate() -> None:
    rate = TaskRate(now=0.0)
    for tenth in range(1_000):
        rate.count(tenth / 10)
    assert rate.per_second(100.0) == pytest.approx(10, rel=0.05)


def test_a_young_queue_is_averaged_over_its_life() -> None:
    rate = TaskRate(now=50.0)
    for _ in range(20):
        rate.count(50.0)
    assert rate.per_second(52.0) == 10


def test_a_burst_within_the_first_second_is_not_blown_up() -> None:
    rate = TaskRate(now=0.0)
    rate.count(0.0)
    assert rate.per_second(0.0) == 1
    assert rate.per_second(0.001) == 1


def test_what_was_long_ago_does_not_count() -> None:
    rate = TaskRate(now=0.0)
    for _ in range(100):
        rate.count(1.0)
    assert rate.per_second(29.0) > 3
    assert rate.per_second(60.0) == 0
    rate.count(1_000.0)
    assert rate.per_second(1_001.0) == pytest.approx(1 / 31, rel=0.2)
