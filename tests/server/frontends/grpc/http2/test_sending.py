"""What is sent, and what has to wait: the peer's windows and frame size, the transport, and turns between streams."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.server.frontends.grpc.http2 import frames
from perdure.server.frontends.grpc.http2.errors import ConnectionFault, ErrorCode
from perdure.server.frontends.grpc.http2.hpack import FORGET_TABLE, encoded
from perdure.server.frontends.grpc.http2.sending import WRITE_BYTES, HeaderFrame, Sender
from perdure.server.frontends.grpc.http2.streams import Stream, StreamTable
from tests.server.frontends.grpc.peer import Frame, Peer, of_kind

HEAD = HeaderFrame(encoded([(b":status", b"200")]), ends_stream=False)
TRAILERS = HeaderFrame(encoded([(b"grpc-status", b"0")]), ends_stream=True)
WINDOW = 65_535
FRAME = 16_384
WIDE = 1 << 30


class Sending:
    """A sender with streams whose requests are complete."""

    def __init__(self, *, unsent_bytes_max: int = 1 << 30) -> None:
        self.table = StreamTable()
        self.sender = Sender(self.table, unsent_bytes_max)
        self._peer = Peer()

    def stream(self, stream_id: int = 1, *, window: int = WINDOW, is_remote_done: bool = True) -> Stream:
        stream = Stream(stream_id, 0, window, is_remote_done=is_remote_done)
        self.table.open[stream_id] = stream
        return stream

    def reply(self, stream: Stream, body: bytes) -> None:
        self.sender.reply(stream, HEAD, body[:5], body[5:], TRAILERS)

    def sent(self) -> list[Frame]:
        return self._peer.read(self.sender.take())

    def sent_data(self) -> dict[int, bytes]:
        data: dict[int, bytes] = {}
        for frame in of_kind(self.sent(), frames.DATA):
            data[frame.stream_id] = data.get(frame.stream_id, b"") + frame.payload
        return data


def test_an_answer_is_headers_data_and_trailers() -> None:
    sending = Sending()
    stream = sending.stream(7)
    sending.reply(stream, b"12345body")
    assert sending.sent() == [
        Frame(frames.HEADERS, frames.END_HEADERS, 7, HEAD.block),
        Frame(frames.DATA, 0, 7, b"12345body"),
        Frame(frames.HEADERS, frames.END_HEADERS | frames.END_STREAM, 7, TRAILERS.block),
    ]
    assert stream.is_closed
    assert not sending.table.open


def test_answers_of_several_streams_are_one_write() -> None:
    sending = Sending()
    for stream_id in (1, 3, 5):
        sending.reply(sending.stream(stream_id), b"12345")
    assert [frame.stream_id for frame in sending.sent()] == [1] * 3 + [3] * 3 + [5] * 3
    assert sending.sender.take() == b""


def test_a_stream_that_is_closed_gets_nothing() -> None:
    sending = Sending()
    stream = sending.stream()
    sending.sender.forget(stream)
    sending.reply(stream, b"12345")
    sending.sender.head(stream, TRAILERS)
    sending.sender.data(stream, b"data")
    sending.sender.end(stream, TRAILERS.block)
    sending.sender.reset(stream, ErrorCode.CANCEL)
    assert not sending.sender.has_output


def test_an_answer_before_the_request_has_ended_tells_the_peer_to_stop() -> None:
    sending = Sending()
    sending.sender.head(sending.stream(is_remote_done=False), TRAILERS)
    _, reset = sending.sent()
    assert (reset.kind, reset.number) == (frames.RST_STREAM, ErrorCode.NO_ERROR)
    assert sending.table.was_closed_early(1)


# --- windows ----------------------------------------------------------------------------------------------------------


def test_large_data_is_cut_into_frames_of_the_peers_size() -> None:
    sending = Sending()
    sending.reply(sending.stream(), b"x" * (2 * FRAME + 1))
    assert [len(frame.payload) for frame in of_kind(sending.sent(), frames.DATA)] == [FRAME, FRAME, 1]
    sending.sender.set_frame_bytes(2 * FRAME)
    sending.sender.widen(WIDE)
    sending.reply(sending.stream(3), b"x" * (2 * FRAME + 1))
    assert [len(frame.payload) for frame in of_kind(sending.sent(), frames.DATA)] == [2 * FRAME, 1]


def test_what_is_above_the_streams_window_waits_with_the_trailers() -> None:
    sending = Sending()
    stream = sending.stream(window=10)
    sending.reply(stream, b"x" * 25)
    head, data = sending.sent()
    assert (head.kind, data.payload) == (frames.HEADERS, b"x" * 10)
    assert sending.sender.unsent_bytes == 15
    assert sending.sender.widen_stream(stream, 14)
    assert [frame.payload for frame in sending.sent()] == [b"x" * 14]
    assert sending.sender.take_drained() == []
    assert sending.sender.widen_stream(stream, 10)
    data, trailers = sending.sent()
    assert (data.payload, trailers.ends_stream) == (b"x", True)
    assert sending.sender.take_drained() == [stream]
    assert sending.sender.unsent_bytes == 0
    assert stream.is_closed


def test_what_is_above_the_connections_window_waits() -> None:
    sending = Sending()
    sending.sender.set_frame_bytes(1 << 20)
    sending.reply(sending.stream(1), b"x" * (WINDOW - 1))
    sending.reply(sending.stream(3), b"yyyyyy")
    assert sending.sent_data() == {1: b"x" * (WINDOW - 1), 3: b"y"}
    sending.sender.widen(5)
    assert sending.sent_data() == {3: b"yyyyy"}


def test_streams_that_wait_take_turns() -> None:
    sending = Sending()
    sending.sender.widen(-WINDOW)
    for stream_id in (1, 3):
        sending.reply(sending.stream(stream_id, window=WIDE), b"x" * (3 * FRAME))
    sending.sender.widen(4 * FRAME)
    assert [frame.stream_id for frame in of_kind(sending.sent(), frames.DATA)] == [1, 3, 1, 3]


def test_a_stream_without_a_window_does_not_hold_up_others() -> None:
    sending = Sending()
    sending.reply(sending.stream(1, window=0), b"x" * 10)
    sending.reply(sending.stream(3), b"y" * 10)
    assert sending.sent_data() == {3: b"y" * 10}


def test_a_new_initial_window_changes_open_streams_and_may_go_below_zero() -> None:
    sending = Sending()
    stream = sending.stream(window=WINDOW)
    sending.reply(stream, b"x" * (WINDOW + 10))
    sending.sender.widen(WIDE)
    assert len(sending.sent_data()[1]) == WINDOW
    sending.sender.set_initial_window(WINDOW - 100)
    assert stream.send_window == -100
    assert sending.sender.widen_stream(stream, 100)
    assert not sending.sender.has_output
    sending.sender.set_initial_window(WINDOW - 95)
    assert sending.sent_data() == {1: b"x" * 5}


def test_no_window_may_be_larger_than_there_can_be() -> None:
    sending = Sending()
    stream = sending.stream()
    assert not sending.sender.widen_stream(stream, frames.WINDOW_MAX)
    with pytest.raises(ConnectionFault) as fault:
        sending.sender.widen(frames.WINDOW_MAX)
    assert fault.value.code is ErrorCode.FLOW_CONTROL_ERROR
    with pytest.raises(ConnectionFault) as fault:
        sending.sender.set_initial_window(frames.WINDOW_MAX)
    assert fault.value.code is ErrorCode.FLOW_CONTROL_ERROR


@given(st.data())
def test_everything_arrives_in_order_and_within_the_windows(data: st.DataObject) -> None:
    sending = Sending()
    bodies = {2 * number + 1: bytes([number]) * size for number, size in enumerate(data.draw(sizes()))}
    room = dict.fromkeys(bodies, WINDOW)
    connection_room = WINDOW
    got = dict.fromkeys(bodies, b"")
    streams = {stream_id: sending.stream(stream_id) for stream_id in bodies}
    for stream_id, body in bodies.items():
        sending.reply(streams[stream_id], body)
    while True:
        for stream_id, part in sending.sent_data().items():
            got[stream_id] += part
            room[stream_id] -= len(part)
            connection_room -= len(part)
        assert min(connection_room, *room.values()) >= 0
        behind = [stream_id for stream_id, body in bodies.items() if got[stream_id] != body]
        if not behind:
            break
        increment = data.draw(st.sampled_from((7_000, 20_000, 100_000)))
        stream_id = data.draw(st.sampled_from(behind))
        sending.sender.widen(increment)
        assert sending.sender.widen_stream(streams[stream_id], increment)
        room[stream_id] += increment
        connection_room += increment
    assert not sending.table.open
    assert sending.sender.unsent_bytes == 0


def sizes() -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(5, 150_000), min_size=1, max_size=3)


# --- the transport ----------------------------------------------------------------------------------------------------


def test_data_waits_while_the_transport_is_full_and_headers_do_not() -> None:
    sending = Sending()
    sending.sender.is_paused = True
    sending.reply(sending.stream(), b"12345")
    assert [frame.kind for frame in sending.sent()] == [frames.HEADERS]
    sending.sender.is_paused = False
    sending.sender.pump()
    assert [frame.kind for frame in sending.sent()] == [frames.DATA, frames.HEADERS]


def test_one_write_is_bounded() -> None:
    sending = Sending()
    sending.sender.widen(WIDE)
    for stream_id in (1, 3):
        sending.reply(sending.stream(stream_id, window=WIDE), b"x" * (2 * WRITE_BYTES))
    written = len(sending.sender.take())
    assert WRITE_BYTES < written < WRITE_BYTES + 2 * FRAME
    sending.sender.pump()
    assert sending.sender.has_output


def test_what_waits_is_bounded() -> None:
    sending = Sending(unsent_bytes_max=1000)
    sending.reply(sending.stream(1, window=0), b"x" * 1000)
    with pytest.raises(ConnectionFault) as fault:
        sending.reply(sending.stream(3, window=0), b"12345")
    assert fault.value.code is ErrorCode.ENHANCE_YOUR_CALM


def test_a_stream_that_is_reset_waits_no_more() -> None:
    sending = Sending()
    stream = sending.stream(window=0)
    sending.reply(stream, b"x" * 1000)
    sending.sent()
    sending.sender.reset(stream, ErrorCode.CANCEL)
    assert sending.sender.unsent_bytes == 0
    (reset,) = sending.sent()
    assert (reset.kind, reset.number) == (frames.RST_STREAM, ErrorCode.CANCEL)


# --- header compression -----------------------------------------------------------------------------------------------


def test_a_smaller_table_is_acknowledged_once_before_the_next_headers() -> None:
    sending = Sending()
    sending.sender.set_table_bytes(0)
    sending.reply(sending.stream(1), b"12345")
    first = of_kind(sending.sent(), frames.HEADERS)
    sending.sender.set_table_bytes(100)
    sending.reply(sending.stream(3), b"12345")
    second = of_kind(sending.sent(), frames.HEADERS)
    assert [frame.payload for frame in first] == [FORGET_TABLE + HEAD.block, TRAILERS.block]
    assert [frame.payload for frame in second] == [HEAD.block, TRAILERS.block]


def test_a_larger_table_is_not_used() -> None:
    sending = Sending()
    sending.sender.set_table_bytes(65_536)
    sending.reply(sending.stream(), b"12345")
    assert sending.sent()[0].payload == HEAD.block
