"""A lease as its holder may believe it."""

from __future__ import annotations

from perdure.server.engine.cluster.lease import Lease


class Watch:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def lease_and_watch() -> tuple[Lease, Watch]:
    watch = Watch()
    return Lease(watch, seconds=10, margin=0.1), watch


def test_a_lease_that_was_never_granted_is_not_valid() -> None:
    lease, _ = lease_and_watch()
    assert not lease.is_valid()


def test_it_counts_from_when_the_renewal_was_sent_less_a_margin() -> None:
    lease, watch = lease_and_watch()
    watch.seconds = 103
    lease.renewed(sent_at=100)
    watch.seconds = 108.9
    assert lease.is_valid()
    watch.seconds = 109
    assert not lease.is_valid()


def test_an_answer_that_comes_late_does_not_shorten_it() -> None:
    lease, watch = lease_and_watch()
    lease.renewed(sent_at=105)
    lease.renewed(sent_at=101)
    watch.seconds = 113.9
    assert lease.is_valid()


def test_others_are_judged_only_after_a_whole_lease_without_a_break() -> None:
    lease, watch = lease_and_watch()
    for second in range(100, 110, 2):
        watch.seconds = second
        lease.renewed(sent_at=second)
        assert not lease.may_judge_others()
    watch.seconds = 110
    assert lease.may_judge_others()


def test_a_break_begins_the_count_anew() -> None:
    lease, watch = lease_and_watch()
    lease.renewed(sent_at=100)
    watch.seconds = 111
    lease.renewed(sent_at=110)
    assert lease.is_valid()
    assert not lease.may_judge_others()


def test_who_was_replaced_holds_nothing() -> None:
    lease, watch = lease_and_watch()
    lease.renewed(sent_at=100)
    watch.seconds = 105
    lease.lose()
    assert not lease.is_valid()
    assert not lease.may_judge_others()
