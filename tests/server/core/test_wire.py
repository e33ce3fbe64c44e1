"""Numbers as protobuf writes them."""

from __future__ import annotations

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from perdure.server.core.wire import long_varint, varint


@pytest.mark.parametrize(
    "value", [0, 1, 127, 128, 16_383, 16_384, 2**28 - 1, 2**28, 2**30 - 1, 2**35 - 1, 2**35, 2**63 - 1]
)
def test_both_ways_of_writing_a_number_agree_with_protobufs(value: int) -> None:
    written = Timestamp(seconds=value).SerializeToString()[1:] or b"\0"
    assert varint(value) == long_varint(value) == written
