"""The head of a gRPC call, read once for each set of headers (gRPC over HTTP/2, "Requests"). No I/O."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import msgspec

from perdure.server.engine.client_software import UNKNOWN, ClientSoftware
from perdure.server.frontends.grpc.codes import StatusCode
from perdure.server.frontends.grpc.http2.hpack import Header
from perdure.server.frontends.grpc.messages import ENCODINGS
from perdure.server.frontends.grpc.replies import Answer, failure, http_refusal
from perdure.server.frontends.grpc.status import CallStatus

CONTENT_TYPE: Final = b"application/grpc"

_CLIENT_HEADERS: Final = (b"client-name", b"client-version", b"supported-features")
_TIMEOUT: Final = re.compile(rb"(\d{1,8})([HMSmun])")
_UNIT_SECONDS: Final = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}


class CallHead(msgspec.Struct, frozen=True):
    """What the headers of a call say. One object serves all calls whose headers are the same."""

    path: str
    timeout_seconds: float | None = None
    """How long the caller waits; None for ever."""
    encoding: str = "identity"
    client: ClientSoftware = UNKNOWN
    refusal: Answer | None = None
    """How the call ends because of its headers alone; None where they are right."""


def read_head(headers: Sequence[Header], list_bytes: int, list_bytes_max: int) -> CallHead:
    """Read the headers of a call, which are HTTP/2's already.

    Args:
        headers: Names and values.
        list_bytes: Their size, as HTTP/2 counts it.
        list_bytes_max: Up to which size calls are taken.
    """
    # Where a name comes twice the last one counts. None that is read here may.
    values = dict(headers)
    path = _text(values[b":path"])
    refusal = _refusal(values, list_bytes, list_bytes_max)
    if refusal is not None:
        return CallHead(path, refusal=refusal)
    return CallHead(
        path=path,
        timeout_seconds=_timeout_seconds(values.get(b"grpc-timeout")),
        encoding=_text(values.get(b"grpc-encoding", b"identity")),
        client=ClientSoftware(*(_text(values.get(name, b"")) for name in _CLIENT_HEADERS)),
    )


def _refusal(values: dict[bytes, bytes], list_bytes: int, list_bytes_max: int) -> Answer | None:
    if values[b":method"] != b"POST":
        return http_refusal(405)
    content_type = values.get(b"content-type", b"")
    if not (content_type == CONTENT_TYPE or content_type.startswith((CONTENT_TYPE + b"+", CONTENT_TYPE + b";"))):
        return http_refusal(415)
    if list_bytes > list_bytes_max:
        message = f"{list_bytes} bytes of metadata, of at most {list_bytes_max}"
        return failure(CallStatus(StatusCode.RESOURCE_EXHAUSTED, message, b""))
    if _text(encoding := values.get(b"grpc-encoding", b"identity")) not in ENCODINGS:
        status = CallStatus(StatusCode.UNIMPLEMENTED, f"the compression {_text(encoding)} is not supported", b"")
        return failure(status, ((b"grpc-accept-encoding", ",".join(ENCODINGS).encode()),))
    timeout = values.get(b"grpc-timeout")
    if timeout is not None and _TIMEOUT.fullmatch(timeout) is None:
        return failure(CallStatus(StatusCode.INVALID_ARGUMENT, f"the grpc-timeout {_text(timeout)}", b""))
    return None


def _timeout_seconds(value: bytes | None) -> float | None:
    found = None if value is None else _TIMEOUT.fullmatch(value)
    return None if found is None else int(found[1]) * _UNIT_SECONDS[found[2]]


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")
