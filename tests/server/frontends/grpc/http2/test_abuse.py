"""Peers that keep to the letter of HTTP/2 and ask for nothing: each limit of a connection ends one of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from perdure.server.frontends.grpc.http2 import frames
from perdure.server.frontends.grpc.http2.errors import ConnectionFault, ErrorCode
from perdure.server.frontends.grpc.http2.frames import Setting
from perdure.server.frontends.grpc.http2.limits import Http2Limits
from tests.server.frontends.grpc.http2.receiving import Receiving, told
from tests.server.frontends.grpc.peer import call_headers, goaway_code, of_kind

CALM = ErrorCode.ENHANCE_YOUR_CALM


def times_until_the_end(receiving: Receiving, what: Callable[[int], bytes], *, at_most: int = 1000) -> int:
    """Repeat something until the connection ends, and return how often it was taken."""
    for time in range(at_most):
        try:
            receiving.give(what(time))
        except ConnectionFault as fault:
            assert fault.code is CALM
            assert goaway_code(receiving.frames()) is CALM
            return time
    return at_most


def test_concurrent_streams_above_the_limit_are_refused() -> None:
    receiving = Receiving(Http2Limits(concurrent_streams=2))
    receiving.open(1)
    receiving.open(3)
    assert receiving.give(receiving.peer.headers(5)) == []
    (reset,) = receiving.frames()
    assert (reset.stream_id, reset.number) == (5, ErrorCode.REFUSED_STREAM)
    receiving.give(receiving.peer.reset(1))
    receiving.open(7)


def test_rapid_reset() -> None:
    receiving = Receiving(Http2Limits(resets_at_once=20, resets_per_second=1))

    def begin_and_reset(time: int) -> bytes:
        return receiving.peer.headers(2 * time + 1) + receiving.peer.reset(2 * time + 1)

    assert times_until_the_end(receiving, begin_and_reset) == 20


def test_resets_that_the_peer_provokes_count_as_its_own() -> None:
    receiving = Receiving(Http2Limits(resets_at_once=20, resets_per_second=1))

    def begin_and_break(time: int) -> bytes:
        return receiving.peer.headers(2 * time + 1) + frames.window_update(2 * time + 1, 0)

    assert times_until_the_end(receiving, begin_and_break) == 20


def test_streams_that_are_refused_count_too() -> None:
    receiving = Receiving(Http2Limits(resets_at_once=20, resets_per_second=1, concurrent_streams=1))
    receiving.open(1)
    assert times_until_the_end(receiving, lambda time: receiving.peer.headers(2 * time + 3)) == 20


def test_as_many_calls_as_can_be_parked_can_be_given_up_at_once() -> None:
    limits = Http2Limits()
    assert limits.resets_at_once >= limits.concurrent_streams


def test_resets_at_a_usual_rate_never_end() -> None:
    receiving = Receiving(Http2Limits(resets_at_once=20, resets_per_second=1))

    def begin_and_reset(time: int) -> bytes:
        receiving.now += 1.0
        return receiving.peer.headers(2 * time + 1) + receiving.peer.reset(2 * time + 1)

    assert times_until_the_end(receiving, begin_and_reset) == 1000


IDLE = {
    "ping": frames.ping(b"12345678", is_answer=False),
    "ping answer": frames.ping(b"12345678", is_answer=True),
    "settings ack": frames.SETTINGS_ACK,
    "window": frames.window_update(0, 1),
    "priority": frames.frame(frames.PRIORITY, 0, 1, b"\x00\x00\x00\x00\x00"),
    "goaway": frames.goaway(0, ErrorCode.NO_ERROR),
    "unknown": frames.frame(0xEE, 0, 0),
    "empty data": frames.frame(frames.DATA, 0, 1),
    "late reset": frames.rst_stream(3, ErrorCode.CANCEL),
}


@pytest.mark.parametrize("frame", IDLE.values(), ids=IDLE.keys())
def test_a_flood_of_frames_that_ask_for_nothing(frame: bytes) -> None:
    receiving = Receiving(Http2Limits(idle_frames_at_once=60, idle_frames_per_second=1))
    receiving.open(1)
    receiving.open(3)
    receiving.give(receiving.peer.reset(3))
    assert 40 <= times_until_the_end(receiving, lambda _: frame) <= 60


def test_a_flood_of_settings_ends_sooner_because_each_may_touch_every_stream() -> None:
    receiving = Receiving(Http2Limits(idle_frames_at_once=60, idle_frames_per_second=1))
    settings = frames.frame(frames.SETTINGS, 0, 0, frames.SETTING.pack(Setting.INITIAL_WINDOW_SIZE, 1))
    assert times_until_the_end(receiving, lambda _: settings) <= 6


def test_pings_beside_calls_never_end() -> None:
    receiving = Receiving(Http2Limits(idle_frames_at_once=60, idle_frames_per_second=0))
    pings = IDLE["ping"] * 9

    def call_and_ping(time: int) -> bytes:
        return receiving.peer.headers(2 * time + 1, ends_stream=True) + pings

    assert times_until_the_end(receiving, call_and_ping) == 1000


def test_windows_that_are_widened_for_what_we_send_never_end() -> None:
    receiving = Receiving(Http2Limits(idle_frames_at_once=60, idle_frames_per_second=0))
    stream = receiving.open(1)

    def take_and_widen(time: int) -> bytes:
        receiving.connection.sender.data(stream, b"x" * 100)
        return frames.window_update(0, 100) + frames.window_update(1, 100)

    assert times_until_the_end(receiving, take_and_widen) == 1000


def test_a_flood_of_continuations() -> None:
    receiving = Receiving(Http2Limits(continuation_frames=5))
    receiving.give(frames.frame(frames.HEADERS, 0, 1))
    assert times_until_the_end(receiving, lambda _: frames.frame(frames.CONTINUATION, 0, 1)) == 5


def test_a_header_block_that_is_too_large() -> None:
    receiving = Receiving(Http2Limits(header_block_bytes=10_000))
    receiving.give(frames.frame(frames.HEADERS, 0, 1, b"x" * 6_000))
    assert receiving.fault_of(frames.frame(frames.CONTINUATION, 0, 1, b"x" * 6_000)) is CALM
    whole = Receiving(Http2Limits(header_block_bytes=10_000))
    assert whole.fault_of(whole.peer.headers(1, [("a", "~" * 12_000)])) is CALM


def test_a_header_list_that_grows_out_of_a_small_block() -> None:
    receiving = Receiving(Http2Limits(header_block_bytes=10_000))
    big = [*call_headers(), ("x", "y" * 3_000)]
    receiving.give(receiving.peer.headers(1, big))
    bomb = receiving.peer.headers(3, [*call_headers(), *[("x", "y" * 3_000)] * 10])
    assert len(bomb) < 200
    assert receiving.fault_of(bomb) is CALM


def test_settings_of_too_many_entries() -> None:
    receiving = Receiving(Http2Limits(settings_entries=8))
    entry = frames.SETTING.pack(0x99, 1)
    receiving.give(frames.frame(frames.SETTINGS, 0, 0, entry * 8))
    assert receiving.fault_of(frames.frame(frames.SETTINGS, 0, 0, entry * 9)) is CALM


def test_a_peer_that_takes_nothing() -> None:
    receiving = Receiving(Http2Limits(unsent_bytes=100_000), hello=False)
    receiving.give(receiving.peer.hello((Setting.INITIAL_WINDOW_SIZE, 0)))
    receiving.connection.sender.data(receiving.open(1), b"x" * 100_000)
    with pytest.raises(ConnectionFault):
        receiving.connection.sender.data(receiving.open(3), b"x")


def test_streams_that_we_closed_early_are_not_remembered_for_ever() -> None:
    receiving = Receiving()
    for stream_id in range(1, 2401, 2):
        receiving.connection.reset(receiving.open(stream_id), ErrorCode.CANCEL)
    receiving.frames()
    receiving.give(receiving.peer.data(2399, b"x"))
    assert receiving.frames() == []
    assert told(receiving.give(receiving.peer.data(1, b"x"))) == []
    (reset,) = of_kind(receiving.frames(), frames.RST_STREAM)
    assert reset.number == ErrorCode.STREAM_CLOSED
