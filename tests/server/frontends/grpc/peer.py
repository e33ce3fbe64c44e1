"""The other end of a connection, for tests: writes frames, right and wrong ones, and reads those that come back.

Its header compression is that of the library `hpack`, so that ours is never tested against itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import hpack

from perdure.server.frontends.grpc.http2 import frames
from perdure.server.frontends.grpc.http2.errors import ErrorCode

Headers = Sequence[tuple[str, str]]

PATH = "/package.Service/Method"


class Frame(NamedTuple):
    """A frame that was read."""

    kind: int
    flags: int
    stream_id: int
    payload: bytes

    @property
    def ends_stream(self) -> bool:
        return self.kind in (frames.DATA, frames.HEADERS) and bool(self.flags & frames.END_STREAM)

    @property
    def number(self) -> int:
        """The number in an RST_STREAM or WINDOW_UPDATE."""
        return int.from_bytes(self.payload, "big")


def call_headers(path: str = PATH, **more: str) -> Headers:
    """Return the headers of a call; `grpc_timeout="1S"` adds or replaces one, an empty value leaves it out."""
    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "localhost",
        "te": "trailers",
        "content-type": "application/grpc",
        **{name.replace("_", "-"): value for name, value in more.items()},
    }
    return [(name, value) for name, value in headers.items() if value]


def message(data: bytes, *, is_compressed: bool = False) -> bytes:
    """Return a gRPC message with its prefix."""
    return bytes((is_compressed,)) + len(data).to_bytes(4, "big") + data


class Peer:
    """Writes what a client would send, and reads what it gets."""

    def __init__(self) -> None:
        self.encoder = hpack.Encoder()
        self._decoder = hpack.Decoder()
        self._rest = b""

    # --- written ------------------------------------------------------------------------------------------------------

    def hello(self, *settings: tuple[int, int]) -> bytes:
        """Return the preface with its settings."""
        values = b"".join(frames.SETTING.pack(name, value) for name, value in settings)
        return frames.PREFACE + frames.frame(frames.SETTINGS, 0, 0, values)

    def headers(self, stream_id: int, headers: Headers | None = None, *, ends_stream: bool = False) -> bytes:
        """Return a HEADERS frame; that of a call unless other headers are given."""
        block = self.encoder.encode(call_headers() if headers is None else headers)
        flags = frames.END_HEADERS | (frames.END_STREAM if ends_stream else 0)
        return frames.frame(frames.HEADERS, flags, stream_id, block)

    def data(self, stream_id: int, data: bytes, *, ends_stream: bool = False) -> bytes:
        """Return a DATA frame."""
        return frames.frame(frames.DATA, frames.END_STREAM if ends_stream else 0, stream_id, data)

    def call(self, stream_id: int, body: bytes = b"", headers: Headers | None = None) -> bytes:
        """Return a whole unary call."""
        return self.headers(stream_id, headers) + self.data(stream_id, message(body), ends_stream=True)

    def reset(self, stream_id: int, code: ErrorCode = ErrorCode.CANCEL) -> bytes:
        """Return an RST_STREAM frame."""
        return frames.rst_stream(stream_id, code)

    # --- read ---------------------------------------------------------------------------------------------------------

    def read(self, data: bytes) -> list[Frame]:
        """Return the frames in what came; half a frame waits for its rest."""
        data = self._rest + data
        found: list[Frame] = []
        while len(data) >= frames.HEAD_BYTES:
            high, low, kind, flags, stream_id = frames.HEAD.unpack_from(data)
            end = frames.HEAD_BYTES + (high << 16 | low)
            if len(data) < end:
                break
            found.append(Frame(kind, flags, stream_id, data[frames.HEAD_BYTES : end]))
            data = data[end:]
        self._rest = data
        return found

    def fields(self, frame: Frame) -> dict[str, str]:
        """Return the headers of a HEADERS frame; each frame must be asked for once and in order."""
        return {str(name): str(value) for name, value in self._decoder.decode(frame.payload)}


def of_kind(found: Iterable[Frame], kind: int) -> list[Frame]:
    """Return the frames of a kind."""
    return [frame for frame in found if frame.kind == kind]


def goaway_code(found: Iterable[Frame]) -> ErrorCode:
    """Return the code of the last GOAWAY."""
    return ErrorCode(int.from_bytes(of_kind(found, frames.GOAWAY)[-1].payload[4:8], "big"))


def last_stream_id(found: Iterable[Frame]) -> int:
    """Return the last stream that the last GOAWAY names."""
    return int.from_bytes(of_kind(found, frames.GOAWAY)[-1].payload[:4], "big")
