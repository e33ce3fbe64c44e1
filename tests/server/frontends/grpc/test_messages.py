"""Messages within a stream: framing, compression and sizes."""

from __future__ import annotations

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.server.frontends.grpc.codes import StatusCode
from perdure.server.frontends.grpc.messages import MessageReader, only_message, prefix_of, uncompressed
from perdure.server.frontends.grpc.status import CallFailed
from tests.server.frontends.grpc.peer import message

MAX = 1000


def code_of(body: bytes, encoding: str = "identity") -> StatusCode:
    with pytest.raises(CallFailed) as failed:
        only_message(body, encoding, MAX)
    return failed.value.status.code


@given(st.binary(max_size=300))
def test_a_message_has_a_prefix(data: bytes) -> None:
    assert only_message(prefix_of(data) + data, "identity", MAX) == data


@pytest.mark.parametrize("body", [b"", message(b"a") + message(b"b"), message(b"a") + b"x"])
def test_a_request_is_exactly_one_message(body: bytes) -> None:
    assert code_of(body) is StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("body", [b"\0", b"\0\0\0\0", message(b"abc")[:-1]])
def test_a_message_that_is_cut_is_no_request(body: bytes) -> None:
    assert code_of(body) is StatusCode.INVALID_ARGUMENT


def test_a_message_up_to_the_limit_is_taken() -> None:
    assert only_message(message(b"x" * MAX), "identity", MAX) == b"x" * MAX
    assert code_of(message(b"x" * (MAX + 1))) is StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize(("encoding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_compressed_messages_are_uncompressed(encoding: str, compress: object) -> None:
    assert callable(compress)
    data = b"data " * 100
    assert only_message(message(compress(data), is_compressed=True), encoding, MAX) == data
    assert only_message(message(data), encoding, MAX) == data


def test_a_compressed_message_may_not_grow_beyond_the_limit() -> None:
    assert uncompressed(gzip.compress(b"x" * MAX), "gzip", MAX) == b"x" * MAX
    bomb = message(gzip.compress(b"x" * 500_000), is_compressed=True)
    assert len(bomb) < MAX
    assert code_of(bomb, "gzip") is StatusCode.RESOURCE_EXHAUSTED


def test_sdks_know_a_message_that_is_too_large_by_the_words() -> None:
    with pytest.raises(CallFailed) as refused:
        only_message(message(b"x" * (MAX + 1)), "identity", MAX)
    assert refused.value.status.message.startswith("grpc: received message larger than max")
    with pytest.raises(CallFailed) as refused:
        only_message(message(gzip.compress(b"x" * (MAX + 1)), is_compressed=True), "gzip", MAX)
    assert refused.value.status.message.startswith("grpc: received message after decompression larger than max")


@pytest.mark.parametrize(
    ("data", "encoding"),
    [(b"not gzip", "gzip"), (gzip.compress(b"x" * 100)[:-9], "gzip"), (b"x", "identity"), (b"", "gzip")],
    ids=["not gzip", "cut off", "nothing to uncompress with", "empty"],
)
def test_what_cannot_be_uncompressed_is_told(data: bytes, encoding: str) -> None:
    assert code_of(message(data, is_compressed=True), encoding) is StatusCode.INTERNAL


@given(st.lists(st.tuples(st.booleans(), st.binary(max_size=50)), max_size=8), st.integers(1, 40))
def test_a_stream_is_cut_into_messages_however_it_arrives(messages: list[tuple[bool, bytes]], size: int) -> None:
    data = b"".join(message(each, is_compressed=is_compressed) for is_compressed, each in messages)
    reader = MessageReader(MAX)
    found = []
    for start in range(0, len(data), size):
        found += reader.feed(data[start : start + size])
    assert found == messages
    assert reader.buffered == 0


def test_a_stream_counts_what_is_not_complete() -> None:
    reader = MessageReader(MAX)
    assert reader.feed(message(b"abc") + message(b"xyz")[:6]) == [(False, b"abc")]
    assert reader.buffered == 6
    assert reader.feed(message(b"xyz")[6:]) == [(False, b"xyz")]


def test_a_stream_refuses_a_message_as_soon_as_it_says_that_it_is_too_large() -> None:
    reader = MessageReader(MAX)
    with pytest.raises(CallFailed) as failed:
        reader.feed(message(b"x" * (MAX + 1))[:5])
    assert failed.value.status.code is StatusCode.RESOURCE_EXHAUSTED
