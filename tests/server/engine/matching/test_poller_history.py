"""Who is shown as a poller of a queue, and for how long."""

from __future__ import annotations

from perdure.server.engine.matching.poller_history import Poller, PollerHistory, PollerInfo


def history(*, limit: int = 100) -> PollerHistory:
    return PollerHistory(seconds=300, limit=limit)


def identities(infos: list[PollerInfo]) -> list[str]:
    return [info.poller.identity for info in infos]


def test_pollers_are_shown_the_latest_first() -> None:
    pollers = history()
    pollers.see(Poller("a"), now=0, wall_now=100)
    pollers.see(Poller("b"), now=1, wall_now=101)
    pollers.see(Poller("a"), now=2, wall_now=102)
    assert pollers.infos(now=2) == [PollerInfo(Poller("a"), 102), PollerInfo(Poller("b"), 101)]


def test_an_identity_is_shown_once_however_many_workers_have_it() -> None:
    pollers = history()
    pollers.see(Poller("a", worker_instance_key="1"), now=0, wall_now=100)
    pollers.see(Poller("a", worker_instance_key="2"), now=1, wall_now=101)
    assert pollers.infos(now=1) == [PollerInfo(Poller("a", worker_instance_key="2"), 101)]


def test_a_worker_that_was_shut_down_is_not_shown_but_another_of_its_process_is() -> None:
    pollers = history()
    pollers.see(Poller("a", worker_instance_key="1"), now=0, wall_now=100)
    pollers.see(Poller("a", worker_instance_key="2"), now=1, wall_now=101)
    pollers.forget_worker("2")
    assert pollers.infos(now=1) == [PollerInfo(Poller("a", worker_instance_key="1"), 100)]
    pollers.forget_worker("1")
    assert pollers.infos(now=1) == []


def test_a_poller_is_forgotten_after_a_while() -> None:
    pollers = history()
    pollers.see(Poller("a"), now=0, wall_now=100)
    pollers.see(Poller("b"), now=100, wall_now=200)
    assert identities(pollers.infos(now=301)) == ["b"]
    pollers.forget_old(now=301)
    assert identities(pollers.infos(now=0)) == ["b"]


def test_beyond_the_limit_the_one_seen_longest_ago_is_forgotten() -> None:
    pollers = history(limit=2)
    for identity in ("a", "b", "a", "c"):
        pollers.see(Poller(identity), now=0, wall_now=100)
    assert identities(pollers.infos(now=0)) == ["c", "a"]


def test_seen_since_asks_for_the_latest_poller() -> None:
    pollers = history()
    assert not pollers.seen_since(0)
    pollers.see(Poller("a"), now=5, wall_now=100)
    assert pollers.seen_since(5)
    assert not pollers.seen_since(5.1)
    pollers.forget_all()
    assert not pollers.seen_since(0)
