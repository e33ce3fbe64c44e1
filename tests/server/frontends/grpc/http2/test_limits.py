"""The bucket: a burst, then so many per second, and no more than there were."""

from __future__ import annotations

from perdure.server.frontends.grpc.http2.limits import Bucket


def taken(bucket: Bucket, now: float) -> int:
    count = 0
    while bucket.take(now):
        count += 1
    return count


def test_a_burst_is_let_through_and_no_more() -> None:
    assert taken(Bucket(5, per_second=1), now=100.0) == 5


def test_time_gives_back() -> None:
    bucket = Bucket(5, per_second=2)
    taken(bucket, now=100.0)
    assert taken(bucket, now=102.0) == 4


def test_no_time_gives_back_more_than_there_was() -> None:
    bucket = Bucket(5, per_second=2)
    taken(bucket, now=100.0)
    assert taken(bucket, now=1_000_000.0) == 5


def test_useful_work_gives_back() -> None:
    bucket = Bucket(5, per_second=0)
    for _ in range(1000):
        assert bucket.take(0.0, 3)
        bucket.give(3)
