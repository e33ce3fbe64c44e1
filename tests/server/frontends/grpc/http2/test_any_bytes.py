"""Any bytes at all: events or a `ConnectionFault`, nothing else is raised, and how they are cut means nothing."""

from __future__ import annotations

import itertools

import hpack
from hypothesis import given
from hypothesis import strategies as st

from perdure.server.frontends.grpc.http2 import frames
from perdure.server.frontends.grpc.http2.errors import ConnectionFault
from perdure.server.frontends.grpc.http2.limits import Http2Limits
from tests.server.frontends.grpc.http2.receiving import Receiving, told
from tests.server.frontends.grpc.peer import Peer, call_headers

LIMITS = Http2Limits(
    concurrent_streams=3,
    frame_bytes=16_384,
    stream_window_bytes=500,
    connection_window_bytes=70_000,
    resets_at_once=5,
    idle_frames_at_once=40,
    continuation_frames=2,
)
BLOCK = hpack.Encoder().encode(call_headers())

payloads = st.one_of(
    st.binary(max_size=40),
    st.just(BLOCK),
    st.integers(0, 0xFFFF_FFFF).map(lambda number: number.to_bytes(4, "big")),
    st.lists(st.tuples(st.integers(0, 8), st.integers(0, 0xFFFF_FFFF)), max_size=3).map(
        lambda pairs: b"".join(frames.SETTING.pack(*pair) for pair in pairs)
    ),
)
any_frame = st.builds(
    frames.frame,
    st.integers(0, 11),
    st.sampled_from((0, 1, 4, 5, 8, 0x20, 0x25)) | st.integers(0, 255),
    st.integers(0, 9) | st.integers(0, 0xFFFF_FFFF),
    payloads,
)
right_frame = st.one_of(
    st.builds(
        frames.frame, st.just(frames.HEADERS), st.sampled_from((4, 5)), st.sampled_from(range(1, 30, 2)), st.just(BLOCK)
    ),
    st.builds(
        frames.frame,
        st.just(frames.DATA),
        st.sampled_from((0, 1)),
        st.sampled_from(range(1, 30, 2)),
        st.binary(max_size=99),
    ),
)
traffic = st.lists(any_frame | right_frame, max_size=25).map(b"".join)


def outcome(pieces: list[bytes]) -> tuple[list[tuple[object, ...]], str, bytes]:
    """Return what a connection makes of bytes in pieces: its events, its fault, what it sends."""
    receiving = Receiving(LIMITS, hello=False)
    events: list[tuple[object, ...]] = []
    fault = ""
    try:
        for piece in pieces:
            events += told(receiving.give(piece))
    except ConnectionFault as error:
        fault = str(error)
    return events, fault, receiving.connection.sender.take()


@given(st.binary(max_size=300))
def test_any_bytes_from_the_start(data: bytes) -> None:
    outcome([data])


@given(traffic)
def test_any_frames(data: bytes) -> None:
    _, fault, sent = outcome([Peer().hello(), data])
    found = Peer().read(sent)
    assert (fault != "") == (bool(found) and found[-1].kind == frames.GOAWAY)


@given(traffic, st.lists(st.integers(0, 400), max_size=6))
def test_how_bytes_are_cut_means_nothing(data: bytes, cuts: list[int]) -> None:
    data = Peer().hello() + data
    bounds = sorted({0, len(data), *(min(cut, len(data)) for cut in cuts)})
    pieces = [data[start:end] for start, end in itertools.pairwise(bounds)]
    whole_events, whole_fault, whole_sent = outcome([data])
    events, fault, sent = outcome(pieces)
    assert (fault, sent) == (whole_fault, whole_sent)
    # Where the connection ends, events of the piece that ended it are not told.
    assert whole_fault or events == whole_events
