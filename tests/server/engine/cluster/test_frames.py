"""Frames in a stream."""

from __future__ import annotations

import msgspec
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
    Proof,
    Reply,
    encode_frame,
)

FRAMES: list[Frame] = [
    Hello("a:1", 1, "0.1", "nonce"),
    Proof(b"code"),
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


def test_a_kind_that_a_newer_release_has_added_is_passed_over() -> None:
    newer = msgspec.msgpack.encode(["later", 1, {"a": 2}])
    data = len(newer).to_bytes(4, "big") + newer + encode_frame(Cancel(2))
    assert list(FrameReader().feed(data)) == [Cancel(2)]
    reader = FrameReader()
    reader.take(data)
    assert reader.next() == Cancel(2)
    assert reader.next() is None


@pytest.mark.parametrize("malformed", [["cancel", "two"], ["reply"], [7], {}, []])
def test_a_known_kind_that_is_malformed_is_a_bad_frame(malformed: object) -> None:
    data = msgspec.msgpack.encode(malformed)
    with pytest.raises(BadFrame):
        list(FrameReader().feed(len(data).to_bytes(4, "big") + data))
