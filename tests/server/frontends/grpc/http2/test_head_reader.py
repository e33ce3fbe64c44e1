"""Heads of requests: what HTTP/2 asks of them, and that one is read anew only where it may mean something else."""

from __future__ import annotations

from collections.abc import Sequence

import hpack
import pytest

from perdure.server.frontends.grpc.http2.errors import ErrorCode, StreamFault
from perdure.server.frontends.grpc.http2.head_reader import (
    FIELDS_REMEMBERED,
    HEADS_REMEMBERED,
    REMEMBERED_BYTES_MAX,
    HeadReader,
    check_request,
    check_trailers,
)
from perdure.server.frontends.grpc.http2.hpack import Header, HeaderDecoder, encoded

REQUEST: Sequence[Header] = ((b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/"), (b"te", b"trailers"))


class Reading:
    """A reader, and how often it had to read."""

    def __init__(self) -> None:
        self.times = 0
        self.reader = HeadReader(HeaderDecoder(1 << 16), self._interpret)

    def _interpret(self, headers: Sequence[Header], list_bytes: int) -> dict[bytes, bytes]:
        self.times += 1
        return dict(headers)


def test_the_same_block_is_read_once() -> None:
    reading = Reading()
    block = encoded(REQUEST)
    assert reading.reader.request(block) is reading.reader.request(block)
    assert reading.times == 1


def test_a_block_that_changes_the_table_is_read_each_time() -> None:
    reading, encoder = Reading(), hpack.Encoder()
    block = encoder.encode([*REQUEST, (b"a", b"1")])
    reading.reader.request(block)
    reading.reader.request(block)
    assert reading.times == 2


def test_the_same_block_means_something_else_after_the_table_has_changed() -> None:
    reading, encoder = Reading(), hpack.Encoder()
    fixed = encoded(REQUEST)
    reading.reader.request(encoder.encode([*REQUEST, (b"name", b"first")]))
    newest = fixed + b"\xbe"
    assert reading.reader.request(newest)[b"name"] == b"first"
    reading.reader.request(encoder.encode([*REQUEST, (b"name", b"second")]))
    assert reading.reader.request(newest)[b"name"] == b"second"
    reading.reader.skipped(encoder.encode([(b"name", b"third")]))
    assert reading.reader.request(newest)[b"name"] == b"third"


def test_only_so_many_blocks_are_remembered() -> None:
    reading = Reading()
    for number in range(HEADS_REMEMBERED + 1):
        reading.reader.request(encoded([*REQUEST, (b"number", b"%d" % number)]))
    reading.reader.request(encoded([*REQUEST, (b"number", b"0")]))
    assert reading.times == HEADS_REMEMBERED + 2


def test_large_blocks_are_not_remembered() -> None:
    reading = Reading()
    block = encoded([*REQUEST, (b"a", b"x" * REMEMBERED_BYTES_MAX)])
    reading.reader.request(block)
    reading.reader.request(block)
    assert reading.times == 2


def test_a_right_request_passes() -> None:
    check_request(
        [*REQUEST[:3], (b":authority", b"host"), (b"grpc-timeout", b"1S"), (b"x_y.z-0", b"\xc3\xbc \t")], set()
    )


@pytest.mark.parametrize(
    "headers",
    [
        REQUEST[1:],
        [REQUEST[0], REQUEST[2]],
        REQUEST[:2],
        [*REQUEST[:2], (b":path", b"")],
        [*REQUEST, (b":authority", b"late")],
        [*REQUEST[:3], REQUEST[0]],
        [*REQUEST[:3], (b":status", b"200")],
        [*REQUEST, (b"Upper", b"x")],
        [*REQUEST, (b"", b"x")],
        [*REQUEST, (b"a b", b"x")],
        [*REQUEST, (b"a:b", b"x")],
        [*REQUEST, (b"name", b"a\r\nb")],
        [*REQUEST, (b"name", b"a\x00b")],
        [*REQUEST, (b"connection", b"close")],
        [*REQUEST, (b"transfer-encoding", b"chunked")],
        [*REQUEST, (b"te", b"gzip")],
    ],
    ids=str,
)
def test_what_is_no_request_is_a_stream_error(headers: Sequence[Header]) -> None:
    with pytest.raises(StreamFault) as fault:
        check_request(headers, set())
    assert fault.value.code is ErrorCode.PROTOCOL_ERROR


def test_fields_that_are_right_are_checked_once_and_only_so_many_are_remembered() -> None:
    checked: set[Header] = set()
    check_request(REQUEST, checked)
    assert checked == set(REQUEST)
    for number in range(2 * FIELDS_REMEMBERED):
        check_request([*REQUEST, (b"number", b"%d" % number), (b"large", b"x" * 2000)], checked)
        assert len(checked) <= FIELDS_REMEMBERED
    assert max(len(value) for _, value in checked) < 2000


def test_the_order_of_pseudo_headers_is_checked_each_time() -> None:
    checked = {*REQUEST, (b":authority", b"late")}
    with pytest.raises(StreamFault):
        check_request([*REQUEST, (b":authority", b"late")], checked)


@pytest.mark.parametrize("headers", [[(b":path", b"/")], [(b"Upper", b"x")]], ids=str)
def test_what_cannot_end_a_request_is_a_stream_error(headers: Sequence[Header]) -> None:
    check_trailers([(b"name", b"value")])
    with pytest.raises(StreamFault):
        check_trailers(headers)
