"""Frames in a stream."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.server.engine.cluster.frames import (
    FRAME_BYTES_MAX,
    BadFrame,
    Call,
    Cancel,
    Cast,
    Failed,
    Frame,
    FrameReader,
    Hello,
    Moved,
    Reply,
    encode_frame,
)

FRAMES: list[Frame] = [
    Hello("a:1", "session", 1, "0.1"),
    Call(1, "rpc", b"body", 2.5, "temporal-go", "1.2.3"),
    Call(2, "rpc", b"", None),
    Cancel(2),
    Reply(1, b"answer"),
    Failed(2, "NotFound", "there is none", "temporal.api.errordetails.v1.NotFoundFailure", b"x"),
    Moved(3, 1023),
    Cast("polls", b"news"),
]


@given(cuts=st.lists(st.integers(1, 60), max_size=20))
def test_frames_come_out_as_they_went_in_however_the_stream_is_cut(cuts: list[int]) -> None:
    data = b"".join(map(encode_frame, FRAMES))
    reader, read = FrameReader(), list[Frame]()
    for cut in [*cuts, len(data)]:
        read += reader.feed(data[:cut])
        data = data[cut:]
    assert read == FRAMES


@given(data=st.binary(max_size=200))
def test_garbage_is_a_bad_frame_or_the_beginning_of_one(data: bytes) -> None:
    try:
        assert all(isinstance(frame, Frame) for frame in FrameReader().feed(data))
    except BadFrame as error:
        assert str(error)


def test_a_frame_that_is_too_long_is_refused_before_it_is_collected() -> None:
    with pytest.raises(BadFrame, match="longer than any"):
        list(FrameReader().feed((FRAME_BYTES_MAX + 1).to_bytes(4, "big")))
