"""What is sent: frames put together for one write, and data that waits because the peer has no room for it.

Frames of all streams are collected until they are taken to be written, so that a connection costs one write for all the
calls that were answered meanwhile. Headers and control frames are collected at once. Data obeys the peer's windows and
its frame size, and stops while the transport is full or enough is collected; what has to wait takes turns, stream by
stream. Knows no I/O.
"""

from __future__ import annotations

import struct
from collections import deque
from typing import Final

from perdure.server.frontends.grpc.http2 import frames
from perdure.server.frontends.grpc.http2.errors import ConnectionFault, ErrorCode
from perdure.server.frontends.grpc.http2.hpack import FORGET_TABLE, TABLE_BYTES
from perdure.server.frontends.grpc.http2.streams import Stream, StreamTable

WRITE_BYTES: Final = 512 * 1024
"""When so much is collected, data waits for the next write."""

_INITIAL_WINDOW: Final = 65_535
_INITIAL_FRAME_BYTES: Final = 16_384
_DATA_HEAD: Final = frames.HEAD


class HeaderFrame:
    """A HEADERS frame that differs from call to call only in its stream: made once, written with one call.

    Args:
        block: The header block.
        ends_stream: Whether nothing comes after it.
    """

    __slots__ = ("_start", "_struct", "block", "ends_stream")

    def __init__(self, block: bytes, *, ends_stream: bool) -> None:
        self.block = block
        self.ends_stream = ends_stream
        flags = frames.END_HEADERS | (frames.END_STREAM if ends_stream else 0)
        self._start = frames.frame(frames.HEADERS, flags, 0, block)[:5]
        self._struct = struct.Struct(f">5sL{len(block)}s")

    def of(self, stream_id: int) -> bytes:
        """Return the frame for a stream."""
        return self._struct.pack(self._start, stream_id, self.block)


class Sender:
    """The sending half of a connection.

    Args:
        streams: The connection's streams.
        unsent_bytes_max: How much may wait.
    """

    __slots__ = (
        "_drained",
        "_forgets_table",
        "_forgot_table",
        "_frame_bytes",
        "_out",
        "_out_bytes",
        "_queue",
        "_streams",
        "_unsent_bytes_max",
        "_window",
        "data_frames",
        "initial_window",
        "is_paused",
        "unsent_bytes",
    )

    def __init__(self, streams: StreamTable, unsent_bytes_max: int) -> None:
        self._streams = streams
        self._unsent_bytes_max = unsent_bytes_max
        self._out: list[bytes | memoryview] = []
        self._out_bytes = 0
        self._queue: deque[Stream] = deque()
        self._drained: list[Stream] = []
        self._window = _INITIAL_WINDOW
        self._frame_bytes = _INITIAL_FRAME_BYTES
        self._forgets_table = False
        self._forgot_table = False
        self.initial_window = _INITIAL_WINDOW
        self.is_paused = False
        """Whether the transport has more than it can send: data waits meanwhile."""
        self.unsent_bytes = 0
        """What waits for the peer."""
        self.data_frames = 0
        """How many frames of data have been sent, ever."""

    # --- written by whoever answers -----------------------------------------------------------------------------------

    def control(self, frame: bytes) -> None:
        """Send a frame that no window holds back."""
        self._out.append(frame)

    def reply(self, stream: Stream, head: HeaderFrame, prefix: bytes, body: bytes, trailers: HeaderFrame) -> None:
        """Send a whole answer: headers, data in two parts, trailers. Does nothing for a closed stream.

        Raises:
            ConnectionFault: More waits than may.
        """
        if stream.is_closed:
            return
        length = len(prefix) + len(body)
        if (
            length > self._window
            or length > stream.send_window
            or length > self._frame_bytes
            or self.is_paused
            or self._out_bytes > WRITE_BYTES
            or self._forgets_table
            or stream.waiting
        ):
            self.head(stream, head)
            self.data(stream, prefix + body)
            self.end(stream, trailers.block)
            return
        stream_id = stream.id
        self._window -= length
        stream.send_window -= length
        self.data_frames += 1
        self._out_bytes += length
        self._out += (
            head.of(stream_id),
            _DATA_HEAD.pack(length >> 16, length & 0xFFFF, frames.DATA, 0, stream_id),
            prefix,
            body,
            trailers.of(stream_id),
        )
        self._finish(stream)

    def head(self, stream: Stream, head: HeaderFrame) -> None:
        """Send the headers that begin an answer, or are all of it."""
        if stream.is_closed:
            return
        if self._forgets_table:
            self._headers(stream.id, head.block, ends_stream=head.ends_stream)
        else:
            self._out.append(head.of(stream.id))
        if head.ends_stream:
            self._finish(stream)

    def data(self, stream: Stream, data: bytes) -> None:
        """Send data, or have it wait.

        Raises:
            ConnectionFault: More waits than may.
        """
        if stream.is_closed:
            return
        if stream.waiting is None:
            stream.waiting = deque()
        stream.waiting.append(memoryview(data))
        self.unsent_bytes += len(data)
        self._enqueue(stream)
        self.pump()
        if self.unsent_bytes > self._unsent_bytes_max:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, f"{self.unsent_bytes} bytes wait to be taken")

    def end(self, stream: Stream, trailers: bytes) -> None:
        """End our side with a header block, behind what waits."""
        if stream.is_closed:
            return
        if stream.waiting:
            stream.trailers = trailers
            return
        self._headers(stream.id, trailers, ends_stream=True)
        self._finish(stream)

    def reset(self, stream: Stream, code: ErrorCode) -> None:
        """End a stream at once; what waits is dropped."""
        if stream.is_closed:
            return
        self._out.append(frames.rst_stream(stream.id, code))
        self.forget(stream)
        self._streams.remember(stream.id)

    def forget(self, stream: Stream) -> None:
        """Drop what waits for a stream, and close it."""
        if stream.waiting:
            self.unsent_bytes -= sum(map(len, stream.waiting))
        self._streams.close(stream)

    # --- told by the peer ---------------------------------------------------------------------------------------------

    def set_frame_bytes(self, size: int) -> None:
        """Send no larger frames than this."""
        self._frame_bytes = size

    def set_table_bytes(self, size: int) -> None:
        """Know how large a table the peer keeps for our headers. We use none; a smaller one must be acknowledged."""
        if size < TABLE_BYTES and not self._forgot_table:
            self._forgets_table = True

    def set_initial_window(self, size: int) -> None:
        """Change what every stream may send, those that are open by the difference."""
        difference = size - self.initial_window
        self.initial_window = size
        for stream in self._streams.open.values():
            stream.send_window += difference
            if stream.send_window > frames.WINDOW_MAX:
                raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "a window larger than there can be")
            self._enqueue(stream)
        self.pump()

    def widen(self, increment: int) -> None:
        """Let all streams together send more."""
        self._window += increment
        if self._window > frames.WINDOW_MAX:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "the connection's window is larger than there can be")
        self.pump()

    def widen_stream(self, stream: Stream, increment: int) -> bool:
        """Let one stream send more; return whether there can be such a window."""
        stream.send_window += increment
        if stream.send_window > frames.WINDOW_MAX:
            return False
        if stream.waiting:
            self._enqueue(stream)
            self.pump()
        return True

    # --- taken by whoever writes --------------------------------------------------------------------------------------

    @property
    def has_output(self) -> bool:
        """Whether there is something to write."""
        return bool(self._out)

    def take(self) -> bytes:
        """Return what is to be written now, and make room for more."""
        out = self._out
        if not out:
            return b""
        self._out = []
        self._out_bytes = 0
        return b"".join(out)

    def take_drained(self) -> list[Stream]:
        """Return the streams of which, since the last time, the last of what waited was sent."""
        drained, self._drained = self._drained, []
        return drained

    def pump(self) -> None:
        """Send of what waits as much as may be sent now, in turns of one frame."""
        queue = self._queue
        while queue and self._window > 0 and not self.is_paused and self._out_bytes <= WRITE_BYTES:
            stream = queue.popleft()
            stream.is_queued = False
            if stream.waiting and stream.send_window > 0:
                self._send_frame(stream, stream.waiting)
                self._enqueue(stream)

    def _enqueue(self, stream: Stream) -> None:
        if stream.waiting and stream.send_window > 0 and not stream.is_queued:
            stream.is_queued = True
            self._queue.append(stream)

    def _send_frame(self, stream: Stream, waiting: deque[memoryview]) -> None:
        chunk = waiting.popleft()
        length = min(len(chunk), self._window, stream.send_window, self._frame_bytes)
        if length < len(chunk):
            waiting.appendleft(chunk[length:])
            chunk = chunk[:length]
        self._out += (_DATA_HEAD.pack(length >> 16, length & 0xFFFF, frames.DATA, 0, stream.id), chunk)
        self._out_bytes += length
        self._window -= length
        stream.send_window -= length
        self.unsent_bytes -= length
        self.data_frames += 1
        if not waiting:
            self._drained.append(stream)
            if stream.trailers is not None:
                self._headers(stream.id, stream.trailers, ends_stream=True)
                self._finish(stream)

    def _headers(self, stream_id: int, block: bytes, *, ends_stream: bool) -> None:
        if self._forgets_table:
            block = FORGET_TABLE + block
            self._forgets_table, self._forgot_table = False, True
        end = frames.END_STREAM if ends_stream else 0
        self._out.append(frames.frame(frames.HEADERS, end | frames.END_HEADERS, stream_id, block))

    def _finish(self, stream: Stream) -> None:
        """Close a stream that we have ended; if the peer still sends, it is told that nobody listens."""
        if stream.is_remote_done:
            self._streams.close(stream)
        else:
            self._out.append(frames.rst_stream(stream.id, ErrorCode.NO_ERROR))
            self._streams.close_early(stream)
