"""Header compression: whatever the library encodes is decoded, and bytes that are no header block are told so."""

from __future__ import annotations

import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.server.frontends.grpc.http2.errors import ConnectionFault, ErrorCode
from perdure.server.frontends.grpc.http2.hpack import TABLE_BYTES, HeaderDecoder, encoded

HEADERS = st.lists(st.tuples(st.binary(max_size=40), st.binary(max_size=200)), max_size=20)
COMMON = st.sampled_from([(b":method", b"POST"), (b"te", b"trailers"), (b"grpc-timeout", b"10S"), (b"x", b"y" * 3000)])
BLOCKS = st.lists(st.tuples(st.lists(COMMON, max_size=8) | HEADERS, st.booleans()), max_size=8)


def decoder(list_bytes_max: int = 1 << 20) -> HeaderDecoder:
    return HeaderDecoder(list_bytes_max)


def fault_of(block: bytes, by: HeaderDecoder | None = None) -> ErrorCode:
    with pytest.raises(ConnectionFault) as fault:
        (by or decoder()).decode(block)
    return fault.value.code


@given(BLOCKS)
def test_what_the_library_encodes_is_decoded(blocks: list[tuple[list[tuple[bytes, bytes]], bool]]) -> None:
    encoder, ours = hpack.Encoder(), decoder()
    for headers, huffman in blocks:
        assert ours.decode(encoder.encode(headers, huffman=huffman)) == headers


@given(HEADERS)
def test_what_is_encoded_is_decoded_by_the_library(headers: list[tuple[bytes, bytes]]) -> None:
    headers = [(name or b"x", value) for name, value in headers]
    assert hpack.Decoder().decode(encoded(headers), raw=True) == headers


@given(st.lists(st.binary(max_size=60), max_size=5))
def test_any_bytes_are_headers_or_a_fault(blocks: list[bytes]) -> None:
    ours, theirs = decoder(), hpack.Decoder(max_header_list_size=1 << 20)
    for block in blocks:
        try:
            found = ours.decode(block)
        except ConnectionFault:
            with pytest.raises(hpack.HPACKError):
                theirs.decode(block, raw=True)
            return
        assert found == theirs.decode(block, raw=True)


@pytest.mark.parametrize("length", [0, 1, 126, 127, 128, 254, 255, 256, 5000])
def test_texts_of_any_length_are_written(length: int) -> None:
    assert decoder().decode(encoded([(b"name", b"v" * length)])) == [(b"name", b"v" * length)]


@pytest.mark.parametrize(
    "block",
    [
        b"\x80",  # index 0
        b"\xbe",  # the first entry of an empty table
        b"\xff",  # a number without its end
        b"\xff\xff\xff\xff\xff\xff\x7f",  # a number without bounds
        b"\x00",  # a literal without a name
        b"\x00\x01a",  # without a value
        b"\x00\x05ab",  # a text that is too short
        b"\x00\x81\x00\x00",  # not Huffman's code
        b"\x82\x20",  # the table's size behind a header
        b"\x3f\xff\xff\x03",  # a table larger than it may be
    ],
)
def test_what_is_malformed_is_a_compression_error(block: bytes) -> None:
    assert fault_of(block) is ErrorCode.COMPRESSION_ERROR


def test_the_list_is_bounded_while_it_is_decoded() -> None:
    encoder, ours = hpack.Encoder(), decoder(10_000)
    ours.decode(encoder.encode([("x", "y" * 3000)]))
    bomb = encoder.encode([("x", "y" * 3000)]) * 1000
    assert len(bomb) == 1000
    assert fault_of(bomb, ours) is ErrorCode.ENHANCE_YOUR_CALM


def test_the_size_is_counted_as_http2_counts_it() -> None:
    ours = decoder()
    ours.decode(encoded([(b"ab", b"cde"), (b"f", b"")]))
    assert ours.list_bytes == (2 + 3 + 32) + (1 + 32)


def test_the_table_forgets_what_does_not_fit() -> None:
    encoder, ours = hpack.Encoder(), decoder()
    for number in range(20):
        ours.decode(encoder.encode([("name", f"{number:0400}")]))
    assert ours.decode(b"\xbe") == [(b"name", b"%0400d" % 19)]
    fits = TABLE_BYTES // (4 + 400 + 32)
    assert ours.decode(bytes((0xBE + fits - 1,))) == [(b"name", b"%0400d" % (20 - fits))]
    assert fault_of(bytes((0xBE + fits,)), ours) is ErrorCode.COMPRESSION_ERROR


def test_a_smaller_table_forgets_at_once() -> None:
    encoder, ours = hpack.Encoder(), decoder()
    ours.decode(encoder.encode([("a", "1"), ("b", "2")]))
    assert ours.decode(b"\x3f\x03\xbe") == [(b"b", b"2")]
    assert fault_of(b"\xbf", ours) is ErrorCode.COMPRESSION_ERROR


def test_changes_of_the_table_are_counted() -> None:
    encoder, ours = hpack.Encoder(), decoder()
    block = encoder.encode([("a", "1")])
    ours.decode(block)
    changes = ours.changes
    ours.decode(encoder.encode([("a", "1")]))
    assert (changes, ours.changes) == (1, 1)
    ours.decode(b"\x20")
    assert ours.changes == 2
