"""The head of a call: what is read of its headers, and what they are refused for."""

from __future__ import annotations

import hpack
import pytest

from perdure.server.engine.client_software import ClientSoftware
from perdure.server.frontends.grpc.requests import CallHead, read_head
from tests.server.frontends.grpc.peer import PATH, Headers, call_headers


def head_of(headers: Headers, *, size: int = 100) -> CallHead:
    return read_head([(name.encode(), value.encode()) for name, value in headers], size, 1000)


def refusal_of(headers: Headers, *, size: int = 100) -> dict[str, str]:
    refusal = head_of(headers, size=size).refusal
    assert refusal is not None
    assert refusal.ends_stream
    return {str(name): str(value) for name, value in hpack.Decoder().decode(refusal.block)}


def test_what_a_call_says_is_read() -> None:
    headers = call_headers(
        grpc_timeout="5S", grpc_encoding="gzip", client_name="temporal-python", client_version="1.2.3"
    )
    assert head_of(headers) == CallHead(
        path=PATH, timeout_seconds=5.0, encoding="gzip", client=ClientSoftware("temporal-python", "1.2.3")
    )
    assert head_of(call_headers()) == CallHead(path=PATH)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("1H", 3600), ("2M", 120), ("3S", 3), ("4m", 0.004), ("5u", 5e-6), ("6n", 6e-9), ("0S", 0), ("99999999n", 0.1)],
)
def test_timeouts_of_every_unit(value: str, seconds: float) -> None:
    assert head_of(call_headers(grpc_timeout=value)).timeout_seconds == pytest.approx(seconds)


@pytest.mark.parametrize("value", ["1", "S", "1s", "-1S", "1.5S", "123456789S", " 1S"])
def test_a_timeout_that_is_none_is_an_invalid_argument(value: str) -> None:
    assert refusal_of(call_headers(grpc_timeout=value))["grpc-status"] == "3"


@pytest.mark.parametrize("value", ["application/grpc", "application/grpc+proto", "application/grpc;charset=x"])
def test_content_types_of_grpc(value: str) -> None:
    assert head_of(call_headers(content_type=value)).refusal is None


@pytest.mark.parametrize("value", ["", "text/html", "application/json", "application/grpc-web"])
def test_another_content_type_is_415(value: str) -> None:
    assert refusal_of(call_headers(content_type=value)) == {":status": "415"}


def test_another_method_is_405() -> None:
    assert refusal_of([(":method", "GET"), *call_headers()[1:]]) == {":status": "405"}


def test_an_unknown_compression_is_unimplemented_and_told_what_there_is() -> None:
    refusal = refusal_of(call_headers(grpc_encoding="snappy"))
    assert (refusal[":status"], refusal["grpc-status"]) == ("200", "12")
    assert refusal["grpc-accept-encoding"] == "identity,gzip,deflate"


def test_too_many_headers_are_too_much() -> None:
    assert head_of(call_headers(), size=1000).refusal is None
    assert refusal_of(call_headers(), size=1001)["grpc-status"] == "8"


def test_bytes_that_are_no_text_are_read_all_the_same() -> None:
    headers = [(name.encode(), value.encode()) for name, value in call_headers()]
    assert read_head([*headers, (b"client-name", b"\xff")], 100, 1000).client.name == "\ufffd"
