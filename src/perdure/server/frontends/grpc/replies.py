"""How calls end on the wire: status and details as headers (gRPC over HTTP/2, "Responses"). No I/O.

What is the same for every call is made once, at import: the headers of a reply, and the trailers of one that went well.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from typing import Final, TypeAlias
from urllib.parse import quote

from perdure.server.frontends.grpc.http2.hpack import Header, encoded
from perdure.server.frontends.grpc.http2.sending import HeaderFrame
from perdure.server.frontends.grpc.status import DETAILS_KEY, CallStatus, fitting

Answer: TypeAlias = HeaderFrame
"""Headers that are all of an answer."""

_HEAD: Final[Sequence[Header]] = ((b":status", b"200"), (b"content-type", b"application/grpc"))
_AS_THEY_ARE: Final = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")

REPLY_HEAD: Final = HeaderFrame(encoded(_HEAD), ends_stream=False)
"""The headers before a message."""
OK: Final = HeaderFrame(encoded(((b"grpc-status", b"0"),)), ends_stream=True)
"""The trailers of a call that went well."""


def failure(status: CallStatus, more: Sequence[Header] = ()) -> Answer:
    """Return the answer to a call that failed before anything was sent."""
    return HeaderFrame(encoded((*_HEAD, *_trailers(status), *more)), ends_stream=True)


def trailers(status: CallStatus) -> bytes:
    """Return the header block that ends a stream on which headers were sent."""
    return encoded(_trailers(status))


def http_refusal(status: int) -> Answer:
    """Return the answer to what is no gRPC call."""
    return HeaderFrame(encoded(((b":status", str(status).encode()),)), ends_stream=True)


def _trailers(status: CallStatus) -> list[Header]:
    headers: list[Header] = [(b"grpc-status", str(status.code.value).encode())]
    if status.message:
        headers.append((b"grpc-message", quote(fitting(status.message), safe=_AS_THEY_ARE, errors="replace").encode()))
    if status.details:
        # Without padding, as gRPC asks of those who write.
        headers.append((DETAILS_KEY.encode(), b64encode(status.details).rstrip(b"=")))
    return headers
