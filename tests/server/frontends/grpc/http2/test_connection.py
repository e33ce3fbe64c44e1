"""The receiving half of a connection: what is understood, and which fault each broken rule of RFC 9113 is."""

from __future__ import annotations

import pytest

from perdure.server.frontends.grpc.http2 import frames
from perdure.server.frontends.grpc.http2.errors import ErrorCode
from perdure.server.frontends.grpc.http2.frames import Setting
from perdure.server.frontends.grpc.http2.limits import Http2Limits
from tests.server.frontends.grpc.http2.receiving import Receiving, told
from tests.server.frontends.grpc.peer import PATH, Frame, Peer, call_headers, last_stream_id, of_kind

# --- the beginning ----------------------------------------------------------------------------------------------------


def test_a_connection_begins_with_our_settings_and_window() -> None:
    limits = Http2Limits(concurrent_streams=7, stream_window_bytes=70_000, frame_bytes=20_000, header_list_bytes=9_000)
    settings, window = Receiving(limits, hello=False).frames()
    assert dict(frames.SETTING.iter_unpack(settings.payload)) == {
        Setting.MAX_CONCURRENT_STREAMS: 7,
        Setting.INITIAL_WINDOW_SIZE: 70_000,
        Setting.MAX_FRAME_SIZE: 20_000,
        Setting.MAX_HEADER_LIST_SIZE: 9_000,
    }
    assert (window.kind, window.number) == (frames.WINDOW_UPDATE, limits.connection_window_bytes - 65_535)


def test_settings_are_acknowledged() -> None:
    receiving = Receiving(hello=False)
    receiving.frames()
    was_ready = receiving.connection.is_ready
    receiving.give(Peer().hello((Setting.MAX_FRAME_SIZE, 20_000), (0x99, 1)))
    assert (was_ready, receiving.connection.is_ready) == (False, True)
    assert receiving.frames() == [Frame(frames.SETTINGS, frames.ACK, 0, b"")]


@pytest.mark.parametrize("start", [b"GET / HTTP/1.1\r\n", b"\x16\x03\x01", b"PRI * HTTP/2.0\r\n\r\nXX"])
def test_what_is_not_http2_is_noticed_at_once(start: bytes) -> None:
    assert Receiving(hello=False).fault_of(start) is ErrorCode.PROTOCOL_ERROR


@pytest.mark.parametrize("first", [frames.ping(b"12345678", is_answer=False), frames.SETTINGS_ACK])
def test_the_first_frame_must_be_settings(first: bytes) -> None:
    assert Receiving(hello=False).fault_of(frames.PREFACE + first) is ErrorCode.PROTOCOL_ERROR


# --- requests ---------------------------------------------------------------------------------------------------------


def test_a_request_is_a_head_data_and_an_end() -> None:
    receiving = Receiving()
    peer = receiving.peer
    found = receiving.give(
        peer.headers(1) + peer.data(1, b"a") + peer.data(1, b"b") + peer.data(1, b"", ends_stream=True)
    )
    assert told(found) == [
        ("started", 1, PATH, False),
        ("data", 1, b"a", False),
        ("data", 1, b"b", False),
        ("data", 1, b"", True),
    ]


def test_a_request_may_be_a_head_alone() -> None:
    receiving = Receiving()
    assert told(receiving.give(receiving.peer.headers(1, ends_stream=True))) == [("started", 1, PATH, True)]


def test_a_header_block_may_come_in_parts_with_padding_and_priority() -> None:
    receiving = Receiving()
    block = receiving.peer.encoder.encode(call_headers())
    padded = b"\x03" + b"\x00\x00\x00\x00\x10" + block[:10] + b"\x00" * 3
    parts = (
        frames.frame(frames.HEADERS, frames.PADDED | frames.HAS_PRIORITY | frames.END_STREAM, 1, padded),
        frames.frame(frames.CONTINUATION, 0, 1, block[10:20]),
        frames.frame(frames.CONTINUATION, frames.END_HEADERS, 1, block[20:]),
    )
    assert told(receiving.give(b"".join(parts))) == [("started", 1, PATH, True)]


def test_trailers_end_a_request() -> None:
    receiving = Receiving()
    receiving.open()
    assert told(receiving.give(receiving.peer.headers(1, [("name", "value")], ends_stream=True))) == [
        ("data", 1, b"", True)
    ]


def test_padding_is_taken_off_and_given_back() -> None:
    receiving = Receiving(Http2Limits(stream_window_bytes=1000))
    stream = receiving.open()
    padded = frames.frame(frames.DATA, frames.PADDED, 1, b"\xff" + b"data" + b"\x00" * 255)
    assert told(receiving.give(padded)) == [("data", 1, b"data", False)]
    receiving.give(padded)
    assert [update.number for update in of_kind(receiving.frames(), frames.WINDOW_UPDATE)] == [512]
    assert stream.receive_window == 1000 - 8


def test_a_reset_ends_a_stream() -> None:
    receiving = Receiving()
    stream = receiving.open()
    assert told(receiving.give(receiving.peer.reset(1))) == [("ended", 1)]
    assert stream.is_closed
    assert not receiving.connection.has_streams


def test_what_is_unknown_is_ignored() -> None:
    receiving = Receiving()
    unknown = frames.frame(0xEE, 0xFF, 5, b"what")
    priority = frames.frame(frames.PRIORITY, 0, 9, b"\x00\x00\x00\x09\x10")
    goaway = frames.goaway(0, ErrorCode.NO_ERROR)
    assert told(receiving.give(unknown + priority + goaway + receiving.peer.call(1)))[0][0] == "started"
    assert receiving.frames() == []


def test_pings_are_answered_and_answers_told() -> None:
    receiving = Receiving()
    assert told(receiving.give(frames.ping(b"12345678", is_answer=True))) == [("answered", b"12345678")]
    assert receiving.give(frames.ping(b"abcdefgh", is_answer=False)) == []
    assert receiving.frames() == [Frame(frames.PING, frames.ACK, 0, b"abcdefgh")]


# --- windows ----------------------------------------------------------------------------------------------------------


def test_the_connections_window_is_given_back_on_arrival() -> None:
    receiving = Receiving(Http2Limits(connection_window_bytes=100_000))
    receiving.open()
    for _ in range(5):
        receiving.give(receiving.peer.data(1, b"x" * 10_000))
    assert receiving.frames() == []
    receiving.give(receiving.peer.data(1, b"x"))
    (update,) = receiving.frames()
    assert (update.stream_id, update.number) == (0, 50_001)


def test_a_streams_window_is_given_back_when_it_was_read() -> None:
    receiving = Receiving(Http2Limits(stream_window_bytes=1000))
    stream = receiving.open()
    receiving.give(receiving.peer.data(1, b"x" * 900))
    receiving.connection.took(stream, 499)
    assert receiving.frames() == []
    receiving.connection.took(stream, 1)
    (update,) = receiving.frames()
    assert (update.stream_id, update.number) == (1, 500)


def test_more_than_a_window_is_a_fault() -> None:
    receiving = Receiving(Http2Limits(stream_window_bytes=1000))
    receiving.open()
    assert told(receiving.give(receiving.peer.data(1, b"x" * 1001))) == [("ended", 1)]
    (reset,) = receiving.frames()
    assert reset.number == ErrorCode.FLOW_CONTROL_ERROR
    small = Receiving(Http2Limits(connection_window_bytes=65_535, stream_window_bytes=1 << 20, frame_bytes=1 << 20))
    small.open()
    assert small.fault_of(small.peer.data(1, b"x" * 65_536)) is ErrorCode.FLOW_CONTROL_ERROR


def test_the_peers_window_lets_us_send() -> None:
    receiving = Receiving(hello=False)
    receiving.give(receiving.peer.hello((Setting.INITIAL_WINDOW_SIZE, 3)))
    stream = receiving.open()
    receiving.frames()
    receiving.connection.sender.data(stream, b"x" * 10)
    receiving.give(frames.window_update(1, 2))
    receiving.give(frames.frame(frames.SETTINGS, 0, 0, frames.SETTING.pack(Setting.INITIAL_WINDOW_SIZE, 7)))
    assert [len(frame.payload) for frame in of_kind(receiving.frames(), frames.DATA)] == [3, 2, 4]


# --- faults of a stream -----------------------------------------------------------------------------------------------


def stream_fault(receiving: Receiving, data: bytes) -> ErrorCode:
    receiving.give(data)
    (reset,) = of_kind(receiving.frames(), frames.RST_STREAM)
    return ErrorCode(reset.number)


def test_a_malformed_request_is_reset_and_the_connection_goes_on() -> None:
    receiving = Receiving()
    malformed = receiving.peer.headers(1, [(":method", "POST"), ("remembered", "value")])
    assert stream_fault(receiving, malformed) is ErrorCode.PROTOCOL_ERROR
    headers = [*call_headers(), ("remembered", "value")]
    assert told(receiving.give(receiving.peer.headers(3, headers))) == [("started", 3, PATH, False)]


def test_what_comes_behind_the_end_is_a_stream_error() -> None:
    receiving = Receiving()
    receiving.give(receiving.peer.headers(1, ends_stream=True))
    assert stream_fault(receiving, receiving.peer.data(1, b"x")) is ErrorCode.STREAM_CLOSED
    receiving.give(receiving.peer.headers(3, ends_stream=True))
    assert stream_fault(receiving, receiving.peer.headers(3)) is ErrorCode.STREAM_CLOSED


def test_trailers_must_end_the_stream_and_be_no_head() -> None:
    receiving = Receiving()
    receiving.open(1)
    assert stream_fault(receiving, receiving.peer.headers(1, [("name", "value")])) is ErrorCode.PROTOCOL_ERROR
    receiving.open(3)
    assert stream_fault(receiving, receiving.peer.headers(3, ends_stream=True)) is ErrorCode.PROTOCOL_ERROR


def test_a_window_is_not_widened_by_nothing_or_too_far() -> None:
    receiving = Receiving()
    receiving.open(1)
    assert stream_fault(receiving, frames.window_update(1, 0)) is ErrorCode.PROTOCOL_ERROR
    receiving.open(3)
    too_far = frames.window_update(3, frames.WINDOW_MAX)
    assert stream_fault(receiving, too_far) is ErrorCode.FLOW_CONTROL_ERROR


def test_a_priority_has_five_bytes() -> None:
    assert stream_fault(Receiving(), frames.frame(frames.PRIORITY, 0, 1, b"1234")) is ErrorCode.FRAME_SIZE_ERROR


def test_data_of_a_stream_that_was_reset_by_the_peer_is_a_stream_error() -> None:
    receiving = Receiving()
    receiving.open()
    receiving.give(receiving.peer.reset(1))
    assert stream_fault(receiving, receiving.peer.data(1, b"x")) is ErrorCode.STREAM_CLOSED


def test_what_was_on_its_way_when_we_closed_a_stream_is_no_fault() -> None:
    receiving = Receiving()
    stream = receiving.open()
    receiving.connection.reset(stream, ErrorCode.CANCEL)
    receiving.frames()
    late = receiving.peer.data(1, b"x") + receiving.peer.headers(1, [("a", "b")], ends_stream=True)
    assert receiving.give(late + frames.window_update(1, 1) + receiving.peer.reset(1)) == []
    assert receiving.frames() == []
    assert told(receiving.give(receiving.peer.headers(3, [*call_headers(), ("a", "b")])))[0][0] == "started"


# --- faults of the connection -----------------------------------------------------------------------------------------

P, F, S = ErrorCode.PROTOCOL_ERROR, ErrorCode.FRAME_SIZE_ERROR, ErrorCode.STREAM_CLOSED
SETTING = frames.SETTING.pack


@pytest.mark.parametrize(
    ("code", "data"),
    [
        (F, frames.frame(0xEE, 0, 0, b"x" * (64 * 1024 + 1))),
        (P, frames.frame(frames.HEADERS, frames.END_HEADERS, 0)),
        (P, frames.frame(frames.HEADERS, frames.END_HEADERS, 2)),
        (F, frames.frame(frames.HEADERS, frames.END_HEADERS | frames.HAS_PRIORITY, 1, b"1234")),
        (F, frames.frame(frames.HEADERS, frames.END_HEADERS | frames.PADDED, 1)),
        (P, frames.frame(frames.HEADERS, frames.END_HEADERS | frames.PADDED, 1, b"\x01")),
        (ErrorCode.COMPRESSION_ERROR, frames.frame(frames.HEADERS, frames.END_HEADERS, 1, b"\xff")),
        (P, frames.frame(frames.HEADERS, 0, 1) + frames.ping(b"12345678", is_answer=False)),
        (P, frames.frame(frames.HEADERS, 0, 1) + frames.frame(frames.CONTINUATION, 0, 3)),
        (P, frames.frame(frames.CONTINUATION, frames.END_HEADERS, 1)),
        (P, frames.frame(frames.DATA, 0, 0, b"x")),
        (P, frames.frame(frames.DATA, 0, 1, b"x")),
        (P, frames.frame(frames.DATA, frames.PADDED, 1, b"\x05abcd")),
        (P, frames.frame(frames.PRIORITY, 0, 0, b"12345")),
        (P, frames.rst_stream(0, ErrorCode.CANCEL)),
        (P, frames.rst_stream(1, ErrorCode.CANCEL)),
        (F, frames.frame(frames.RST_STREAM, 0, 1, b"123")),
        (P, frames.frame(frames.SETTINGS, 0, 1)),
        (F, frames.frame(frames.SETTINGS, 0, 0, b"12345")),
        (F, frames.frame(frames.SETTINGS, frames.ACK, 0, b"123456")),
        (P, frames.frame(frames.SETTINGS, 0, 0, SETTING(Setting.ENABLE_PUSH, 2))),
        (P, frames.frame(frames.SETTINGS, 0, 0, SETTING(Setting.MAX_FRAME_SIZE, 16_383))),
        (P, frames.frame(frames.SETTINGS, 0, 0, SETTING(Setting.MAX_FRAME_SIZE, 1 << 24))),
        (
            ErrorCode.FLOW_CONTROL_ERROR,
            frames.frame(frames.SETTINGS, 0, 0, SETTING(Setting.INITIAL_WINDOW_SIZE, 1 << 31)),
        ),
        (P, frames.frame(frames.PUSH_PROMISE, frames.END_HEADERS, 1, b"1234")),
        (P, frames.frame(frames.PING, 0, 1, b"12345678")),
        (F, frames.frame(frames.PING, 0, 0, b"1234567")),
        (P, frames.frame(frames.GOAWAY, 0, 1, b"12345678")),
        (F, frames.frame(frames.GOAWAY, 0, 0, b"1234567")),
        (P, frames.window_update(0, 0)),
        (P, frames.window_update(1, 1)),
        (F, frames.frame(frames.WINDOW_UPDATE, 0, 0, b"123")),
        (ErrorCode.FLOW_CONTROL_ERROR, frames.window_update(0, frames.WINDOW_MAX)),
    ],
    ids=lambda value: value.name if isinstance(value, ErrorCode) else value[:30].hex(),
)
def test_a_broken_rule_ends_the_connection_with_its_code(code: ErrorCode, data: bytes) -> None:
    assert Receiving().fault_of(data) is code


def test_a_stream_cannot_begin_again() -> None:
    receiving = Receiving()
    receiving.open(3)
    receiving.give(receiving.peer.reset(3))
    assert receiving.fault_of(receiving.peer.headers(3)) is ErrorCode.STREAM_CLOSED
    other = Receiving()
    other.open(3)
    assert other.fault_of(other.peer.headers(1)) is ErrorCode.STREAM_CLOSED


# --- the end ----------------------------------------------------------------------------------------------------------


def test_an_end_in_two_steps_serves_what_was_on_its_way() -> None:
    receiving = Receiving()
    receiving.open(1)
    receiving.connection.announce_end()
    assert last_stream_id(receiving.frames()) == frames.WINDOW_MAX
    receiving.open(3)
    receiving.connection.end()
    assert last_stream_id(receiving.frames()) == 3
    assert receiving.give(receiving.peer.call(5)) == []
    assert told(receiving.give(receiving.peer.data(1, b"x"))) == [("data", 1, b"x", False)]
    assert receiving.frames() == []


def test_a_fault_names_the_last_stream() -> None:
    receiving = Receiving()
    receiving.open(7)
    receiving.frames()
    with pytest.raises(Exception, match="PING"):
        receiving.give(frames.frame(frames.PING, 0, 1, b"12345678"))
    assert last_stream_id(receiving.frames()) == 7
