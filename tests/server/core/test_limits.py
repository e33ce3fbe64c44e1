"""The limits: Temporal's numbers, and no number that contradicts another."""

from __future__ import annotations

import msgspec
import pytest

from perdure.server.core.limits import Limits

KIB = 1024
MIB = 1024 * KIB
SECOND = 1_000_000_000


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("id_length", 1000),
        ("message_size", 4 * MIB),
        ("blob_size_warn", 512 * KIB),
        ("blob_size_error", 2 * MIB),
        ("memo_size_error", 2 * MIB),
        ("search_attributes_count", 100),
        ("search_attribute_value_size", 2048),
        ("search_attributes_size", 40 * KIB),
        ("history_count_suggest_continue_as_new", 4096),
        ("history_count_warn", 10_240),
        ("history_count_error", 51_200),
        ("history_size_suggest_continue_as_new", 4 * MIB),
        ("history_size_warn", 10 * MIB),
        ("history_size_error", 50 * MIB),
        ("pending_activities", 2000),
        ("signals_per_execution", 10_000),
        ("buffered_events_count", 100),
        ("buffered_events_size", 2 * MIB),
        ("workflow_task_timeout_default", 10 * SECOND),
        ("workflow_task_timeout_max", 120 * SECOND),
        ("workflow_task_heartbeat_timeout", 1800 * SECOND),
        ("run_interval_min", SECOND),
    ],
)
def test_the_defaults_are_temporals(name: str, value: int) -> None:
    assert getattr(Limits(), name) == value


def test_every_limit_is_a_positive_number() -> None:
    assert all(isinstance(value, int) and value > 0 for value in msgspec.structs.asdict(Limits()).values())


def test_nothing_warns_after_it_has_failed() -> None:
    limits = msgspec.structs.asdict(Limits())
    pairs = [(name, name.removesuffix("_warn") + "_error") for name in limits if name.endswith("_warn")]
    assert pairs
    assert all(limits[warn] < limits[error] for warn, error in pairs)


def test_limits_do_not_change_under_a_run() -> None:
    with pytest.raises(AttributeError):
        Limits().id_length = 5  # type: ignore[misc]  # that is the point
