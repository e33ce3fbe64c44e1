"""How a status is written: percent-encoded message, details in base64 without padding."""

from __future__ import annotations

from base64 import b64decode
from urllib.parse import unquote

import hpack
import pytest

from perdure.server.frontends.grpc.codes import StatusCode
from perdure.server.frontends.grpc.replies import OK, REPLY_HEAD, failure, http_refusal, trailers
from perdure.server.frontends.grpc.status import CallStatus


def fields(block: bytes) -> dict[str, str]:
    return {str(name): str(value) for name, value in hpack.Decoder().decode(block)}


def test_what_every_reply_has() -> None:
    assert fields(REPLY_HEAD.block) == {":status": "200", "content-type": "application/grpc"}
    assert fields(OK.block) == {"grpc-status": "0"}
    assert (REPLY_HEAD.ends_stream, OK.ends_stream) == (False, True)


@pytest.mark.parametrize("text", ["plain text!", "100 % of ü", "line\nline", "\x00\x7f~", "lone \ud800 surrogate"])
def test_a_message_is_percent_encoded(text: str) -> None:
    written = fields(failure(CallStatus(StatusCode.NOT_FOUND, text, b"")).block)
    assert (written[":status"], written["grpc-status"]) == ("200", "5")
    assert all(" " <= character <= "~" for character in written["grpc-message"])
    assert unquote(written["grpc-message"]) == text.replace("\ud800", "?")


def test_plain_text_stays_readable() -> None:
    assert fields(trailers(CallStatus(StatusCode.OK, "it's (all) right", b"")))["grpc-message"] == "it's (all) right"


@pytest.mark.parametrize("details", [b"1", b"12", b"123", b"\xff\xfe"])
def test_details_are_base64(details: bytes) -> None:
    written = fields(trailers(CallStatus(StatusCode.NOT_FOUND, "", details)))["grpc-status-details-bin"]
    assert "=" not in written
    assert b64decode(written + "=" * (-len(written) % 4)) == details


def test_what_is_empty_is_left_out() -> None:
    assert fields(trailers(CallStatus(StatusCode.UNAVAILABLE, "", b""))) == {"grpc-status": "14"}


def test_what_is_no_call_gets_a_status_of_http_alone() -> None:
    assert fields(http_refusal(415).block) == {":status": "415"}
