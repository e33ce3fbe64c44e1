"""Task queues across nodes, as one node keeps them: what it says to others, and what it makes of what they say."""

from __future__ import annotations

import msgspec

from perdure.server.engine.cluster.queues import (
    BUSY,
    KNOCK,
    POLLS,
    Announcement,
    Knock,
    NeighbourQueues,
    Queue,
    Visited,
)
from perdure.server.engine.matching import QueueKey, QueueKind

KEY = QueueKey("namespace", "orders", QueueKind.WORKFLOW)
QUEUE = Queue(*KEY)


class FakeLink:
    """A link that keeps what is said over it."""

    def __init__(self, peer: str) -> None:
        self.peer = peer
        self.said: list[tuple[str, bytes]] = []

    def cast(self, topic: str, body: bytes) -> None:
        self.said.append((topic, body))

    @property
    def topics(self) -> list[str]:
        return [topic for topic, _ in self.said]


class FakeMatcher:
    """The matcher: so many polls wait, so many offers are held."""

    def __init__(self) -> None:
        self.waiting = 0
        self.offers = 0
        self.is_polled = True
        self.sent: list[str] = []
        self.looked: list[QueueKey] = []

    def has_recent_local_poller(self, key: QueueKey) -> bool:
        return self.is_polled

    def look_for_tasks(self, key: QueueKey, *, is_sticky: bool) -> None:
        self.looked.append(key)

    def send_over(self, key: QueueKey, node: str) -> bool:
        if not self.waiting:
            return False
        self.waiting -= 1
        self.sent.append(node)
        return True

    def offer_count(self, key: QueueKey) -> int:
        return self.offers


class Here:
    """This node's queues, with links to b and c."""

    def __init__(self) -> None:
        self.links = {name: FakeLink(name) for name in ("b", "c")}
        self.matcher = FakeMatcher()
        self.queues = NeighbourQueues(lambda: list(self.links.values()))  # type: ignore[arg-type]  # fakes
        self.queues.attach(self.matcher)

    def hear_polls(self, peer: str, *, is_polled: bool = True) -> None:
        self.queues.heard(peer, POLLS, msgspec.msgpack.encode(Announcement(QUEUE, is_polled)))

    def hear_knock(self, peer: str, count: int, serial: int) -> None:
        self.queues.heard(peer, KNOCK, msgspec.msgpack.encode(Knock(QUEUE, count, serial)))

    def hear_busy(self, peer: str) -> None:
        self.queues.heard(peer, BUSY, msgspec.msgpack.encode(QUEUE))


def test_a_polled_queue_is_announced_once_and_when_it_ends() -> None:
    here = Here()
    here.queues.polled(KEY, is_sticky=False)
    here.queues.polled(KEY, is_sticky=False)
    assert here.links["b"].topics == [POLLS]
    here.matcher.is_polled = False
    here.queues.sweep()
    said = [msgspec.msgpack.decode(body, type=Announcement).is_polled for _, body in here.links["c"].said]
    assert said == [True, False]


def test_a_link_that_comes_up_is_told_of_all_polled_queues() -> None:
    here = Here()
    here.queues.polled(KEY, is_sticky=False)
    late = FakeLink("d")
    here.queues.linked(late)  # type: ignore[arg-type]  # a fake
    assert late.topics == [POLLS]


def test_an_announcement_makes_a_node_look_for_tasks() -> None:
    here = Here()
    here.hear_polls("b")
    assert here.matcher.looked == [KEY]
    assert here.queues.polls(KEY)
    here.hear_polls("b", is_polled=False)
    assert not here.queues.polls(KEY)


def test_what_is_left_over_knocks_at_one_node_once() -> None:
    here = Here()
    here.hear_polls("b")
    here.hear_polls("c")
    here.queues.left_over(KEY, 1)
    here.queues.left_over(KEY, 2)
    assert sorted(here.links["b"].topics + here.links["c"].topics) == [KNOCK]


def test_a_busy_node_makes_it_knock_at_the_next() -> None:
    here = Here()
    here.matcher.offers = 1
    here.hear_polls("b")
    here.hear_polls("c")
    here.queues.left_over(KEY, 1)
    here.hear_busy("b")
    assert (here.links["b"].topics, here.links["c"].topics) == ([KNOCK], [KNOCK])


def test_a_knock_sends_as_many_polls_over_as_there_are_tasks() -> None:
    here = Here()
    here.queues.polled(KEY, is_sticky=False)
    here.matcher.waiting = 5
    here.hear_knock("b", count=3, serial=1)
    assert here.matcher.sent == ["b"] * 3


def test_a_knock_for_a_queue_that_is_not_polled_any_more_is_answered_with_busy() -> None:
    here = Here()
    here.hear_knock("b", count=1, serial=1)
    assert here.links["b"].topics == [BUSY]
    assert here.queues.source(KEY, has_local=False) is None


def test_a_knock_without_a_waiting_poll_is_answered_with_busy_and_kept_for_the_next_poll() -> None:
    here = Here()
    here.queues.polled(KEY, is_sticky=False)
    here.hear_knock("b", count=1, serial=1)
    assert here.links["b"].topics == [POLLS, BUSY]
    assert here.queues.source(KEY, has_local=False) == "b"
    assert here.queues.source(KEY, has_local=False) is None, "there is one task only"


def test_polls_take_turns_between_this_node_and_the_others() -> None:
    here = Here()
    here.queues.polled(KEY, is_sticky=False)
    here.hear_knock("b", count=10, serial=1)
    here.hear_knock("c", count=10, serial=1)
    turns = {here.queues.source(KEY, has_local=True) for _ in range(3)}
    assert turns == {"b", "c", None}


def test_a_knock_that_comes_before_an_older_answer_is_dealt_with_is_not_forgotten() -> None:
    here = Here()
    here.queues.polled(KEY, is_sticky=False)
    here.matcher.waiting = 1
    here.hear_knock("b", count=1, serial=1)
    here.hear_knock("b", count=1, serial=3)
    here.matcher.waiting = 1
    here.queues.returns(KEY, "b", Visited(b"task", left=0, serial=2))
    assert here.matcher.sent == ["b", "b"]


def test_an_answer_without_tasks_left_ends_the_visits() -> None:
    here = Here()
    here.queues.polled(KEY, is_sticky=False)
    here.matcher.waiting = 2
    here.hear_knock("b", count=1, serial=1)
    here.queues.returns(KEY, "b", Visited(b"task", left=0, serial=2))
    assert here.matcher.sent == ["b"]
    assert here.queues.source(KEY, has_local=False) is None


def test_who_did_not_answer_is_not_visited_again_before_it_knocks() -> None:
    here = Here()
    here.queues.polled(KEY, is_sticky=False)
    here.matcher.waiting = 2
    here.hear_knock("b", count=2, serial=1)
    here.queues.gives_up(KEY, "b")
    here.queues.returns(KEY, "b", None)
    assert here.queues.source(KEY, has_local=False) is None
    here.hear_knock("b", count=1, serial=2)
    assert here.queues.source(KEY, has_local=False) is None, "one visit is still under way"
    here.queues.returns(KEY, "b", None)
    assert here.queues.source(KEY, has_local=False) == "b"


def test_offers_that_nobody_came_for_are_knocked_for_again() -> None:
    here = Here()
    here.matcher.offers = 2
    here.hear_polls("b")
    here.queues.left_over(KEY, 2)
    here.queues.sweep()
    assert here.links["b"].topics == [KNOCK, KNOCK]


def test_a_node_that_is_gone_is_forgotten_and_the_next_one_knocked_at() -> None:
    here = Here()
    here.matcher.offers = 1
    here.hear_polls("b")
    here.hear_polls("c")
    here.queues.left_over(KEY, 1)
    here.queues.unlinked("b")
    assert here.links["c"].topics == [KNOCK]
