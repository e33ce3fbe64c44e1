"""The receiving half of an HTTP/2 connection, server side (RFC 9113): bytes in, events out, answers to the sender.

It reads frames, keeps the state of the connection and of its streams, answers what the protocol answers by itself
(SETTINGS, PING, windows), and ends streams and the connection where the peer breaks a rule or a limit. It knows nothing
of gRPC and does no I/O; time is handed in. Whatever the bytes, it raises nothing but `ConnectionFault`.

Windows are given back on arrival: of the connection here, of a stream by whoever reads it, through `took`. Priorities
are ignored, as RFC 9113 has it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Generic

from perdure.server.frontends.grpc.http2 import frames
from perdure.server.frontends.grpc.http2.errors import ConnectionFault, ErrorCode, StreamFault
from perdure.server.frontends.grpc.http2.events import DataArrived, Event, PingAnswered, RequestStarted, StreamEnded
from perdure.server.frontends.grpc.http2.frames import PREFACE, STREAM_ID_MASK, Setting
from perdure.server.frontends.grpc.http2.head_reader import HeadReader, HeadT, check_trailers
from perdure.server.frontends.grpc.http2.hpack import Header, HeaderDecoder
from perdure.server.frontends.grpc.http2.limits import IDLE_FRAMES_PER_USEFUL_ONE, Bucket, Http2Limits
from perdure.server.frontends.grpc.http2.sending import Sender
from perdure.server.frontends.grpc.http2.streams import Stream, StreamTable

_INITIAL_CONNECTION_WINDOW: Final = 65_535
_FRAME_BYTES_MIN: Final = 16_384
_FRAME_BYTES_MAX: Final = 16_777_215
_TOKENS_OF_SETTINGS: Final = 10
"""A SETTINGS frame may touch every stream, so it counts as so many idle frames."""


class Connection(Generic[HeadT]):
    """One connection.

    Args:
        limits: What the peer may do.
        interpret: Makes of a request's headers, and of their size, what the layer above wants to know of them.
    """

    def __init__(self, limits: Http2Limits, interpret: Callable[[Sequence[Header], int], HeadT]) -> None:
        self._limits = limits
        self._streams = StreamTable()
        self.sender: Final = Sender(self._streams, limits.unsent_bytes)
        self._heads = HeadReader(HeaderDecoder(limits.header_block_bytes), interpret)
        self._rest = b""
        self._now = 0.0
        self._last_stream_id = 0
        self._last_served_id = frames.WINDOW_MAX
        self._receive_window = _INITIAL_CONNECTION_WINDOW
        self._block: list[bytes] = []
        self._block_of: tuple[int, int] | None = None
        self._resets = Bucket(limits.resets_at_once, limits.resets_per_second)
        self._idle_frames = Bucket(limits.idle_frames_at_once, limits.idle_frames_per_second)
        self._data_frames_seen = 0
        self.is_ready = False
        """Whether the peer has said that it speaks HTTP/2, and how."""
        self._has_preface = False
        self._greet()

    @property
    def streams(self) -> Sequence[Stream]:
        """The open streams."""
        return tuple(self._streams.open.values())

    @property
    def has_streams(self) -> bool:
        """Whether a stream is open."""
        return bool(self._streams.open)

    # --- what the layer above does ------------------------------------------------------------------------------------

    def receive(self, data: bytes, now: float) -> list[Event[HeadT]]:
        """Take bytes as they come, and return what they mean.

        Args:
            data: The bytes.
            now: Seconds on a clock that only goes forward.

        Raises:
            ConnectionFault: The connection is over; what the peer is told of it is with the sender.
        """
        self._now = now
        if self._rest:
            data = self._rest + data
            self._rest = b""
        events: list[Event[HeadT]] = []
        try:
            self._read_frames(data, events)
        except ConnectionFault as fault:
            self.sender.control(frames.goaway(self._last_stream_id, fault.code, fault.message))
            raise
        return events

    def took(self, stream: Stream, count: int) -> None:
        """Let the peer send so much more on a stream, because that much of it was read."""
        stream.credit += count
        if stream.credit * 2 >= self._limits.stream_window_bytes and not (stream.is_remote_done or stream.is_closed):
            stream.receive_window += stream.credit
            self.sender.control(frames.window_update(stream.id, stream.credit))
            stream.credit = 0

    def reset(self, stream: Stream, code: ErrorCode) -> None:
        """End a stream at once."""
        self.sender.reset(stream, code)

    def announce_end(self) -> None:
        """Tell the peer to begin nothing more here; what is on its way is still served."""
        self.sender.control(frames.goaway(frames.WINDOW_MAX, ErrorCode.NO_ERROR))

    def end(self) -> None:
        """Serve nothing but the streams that have begun, and say which was the last."""
        self._last_served_id = self._last_stream_id
        self.sender.control(frames.goaway(self._last_stream_id, ErrorCode.NO_ERROR))

    # --- frames -------------------------------------------------------------------------------------------------------

    def _greet(self) -> None:
        limits = self._limits
        self.sender.control(
            frames.settings(
                (
                    (Setting.MAX_CONCURRENT_STREAMS, limits.concurrent_streams),
                    (Setting.INITIAL_WINDOW_SIZE, limits.stream_window_bytes),
                    (Setting.MAX_FRAME_SIZE, limits.frame_bytes),
                    (Setting.MAX_HEADER_LIST_SIZE, limits.header_list_bytes),
                )
            )
        )
        self._give_window()

    def _read_frames(self, data: bytes, events: list[Event[HeadT]]) -> None:
        position = 0
        if not self._has_preface:
            if not data.startswith(PREFACE):
                if not PREFACE.startswith(data):
                    raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "this is not HTTP/2")
                self._rest = data
                return
            self._has_preface = True
            position = len(PREFACE)
        unpack, size, frame_bytes_max = frames.HEAD.unpack_from, len(data), self._limits.frame_bytes
        while size - position >= frames.HEAD_BYTES:
            high, low, kind, flags, stream_id = unpack(data, position)
            length = high << 16 | low
            if length > frame_bytes_max:
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, f"a frame of {length} bytes")
            start = position + frames.HEAD_BYTES
            position = start + length
            if position > size:
                position = start - frames.HEAD_BYTES
                break
            self._read_frame(kind, flags, stream_id & STREAM_ID_MASK, data[start:position], events)
        self._rest = data[position:]

    def _read_frame(self, kind: int, flags: int, stream_id: int, payload: bytes, events: list[Event[HeadT]]) -> None:
        if self._block_of is not None and kind != frames.CONTINUATION:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a header block is interrupted")
        if not self.is_ready and (kind != frames.SETTINGS or flags & frames.ACK):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "the first frame is not SETTINGS")
        try:
            if kind == frames.DATA:
                self._on_data(flags, stream_id, payload, events)
            elif kind == frames.HEADERS:
                self._on_headers(flags, stream_id, payload, events)
            else:
                self._on_rare_frame(kind, flags, stream_id, payload, events)
        except StreamFault as fault:
            self._end_stream(stream_id, fault.code, events)

    def _on_rare_frame(self, kind: int, flags: int, stream_id: int, payload: bytes, events: list[Event[HeadT]]) -> None:
        match kind:
            case frames.WINDOW_UPDATE:
                self._on_window_update(stream_id, payload)
            case frames.PING:
                self._on_ping(flags, stream_id, payload, events)
            case frames.RST_STREAM:
                self._on_rst_stream(stream_id, payload, events)
            case frames.CONTINUATION:
                self._on_continuation(flags, stream_id, payload, events)
            case frames.SETTINGS:
                self._on_settings(flags, stream_id, payload)
            case frames.PRIORITY:
                self._on_priority(stream_id, payload)
            case frames.GOAWAY:
                self._on_goaway(stream_id, payload)
            case frames.PUSH_PROMISE:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a client cannot push")
            case _:
                self._count_idle_frame()

    def _end_stream(self, stream_id: int, code: ErrorCode, events: list[Event[HeadT]]) -> None:
        """End a stream because of what the peer did in it: counted, as resets are, for it costs us the same."""
        self._count_reset()
        stream = self._streams.open.get(stream_id)
        if stream is None:
            self.sender.control(frames.rst_stream(stream_id, code))
            self._streams.remember(stream_id)
        else:
            self.sender.reset(stream, code)
            events.append(StreamEnded(stream))

    # --- requests -----------------------------------------------------------------------------------------------------

    def _on_headers(self, flags: int, stream_id: int, payload: bytes, events: list[Event[HeadT]]) -> None:
        if not stream_id & 1:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"HEADERS on stream {stream_id}")
        block = frames.unpadded(flags, payload)
        if flags & frames.HAS_PRIORITY:
            if len(block) < frames.PRIORITY_BYTES:
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "HEADERS too short for their priority")
            block = block[frames.PRIORITY_BYTES :]
        if flags & frames.END_HEADERS:
            self._on_block(flags, stream_id, block, events)
        else:
            self._block_of = (stream_id, flags)
            self._block = [block]

    def _on_continuation(self, flags: int, stream_id: int, payload: bytes, events: list[Event[HeadT]]) -> None:
        if self._block_of is None or self._block_of[0] != stream_id:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a CONTINUATION of nothing")
        self._block.append(payload)
        if len(self._block) > 1 + self._limits.continuation_frames:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "a header block in too many frames")
        if sum(map(len, self._block)) > self._limits.header_block_bytes:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "a header block is too large")
        if flags & frames.END_HEADERS:
            block, self._block = b"".join(self._block), []
            first_flags, self._block_of = self._block_of[1], None
            self._on_block(first_flags, stream_id, block, events)

    def _on_block(self, flags: int, stream_id: int, block: bytes, events: list[Event[HeadT]]) -> None:
        if stream_id <= self._last_stream_id:
            self._on_trailers(flags, stream_id, block, events)
            return
        self._last_stream_id = stream_id
        if stream_id > self._last_served_id:
            self._heads.skipped(block)
            self._streams.remember(stream_id)
            return
        head = self._heads.request(block)
        if len(self._streams.open) >= self._limits.concurrent_streams:
            raise StreamFault(ErrorCode.REFUSED_STREAM, "too many streams")
        self._idle_frames.give(IDLE_FRAMES_PER_USEFUL_ONE)
        is_end = bool(flags & frames.END_STREAM)
        window = self._limits.stream_window_bytes
        stream = Stream(stream_id, window, self.sender.initial_window, is_remote_done=is_end)
        self._streams.open[stream_id] = stream
        events.append(RequestStarted(stream, head, is_end))

    def _on_trailers(self, flags: int, stream_id: int, block: bytes, events: list[Event[HeadT]]) -> None:
        stream = self._streams.open.get(stream_id)
        if stream is None:
            self._heads.skipped(block)
            if not self._streams.was_closed_early(stream_id):
                raise ConnectionFault(ErrorCode.STREAM_CLOSED, f"HEADERS on stream {stream_id}, which is closed")
            self._count_idle_frame()
            return
        headers = self._heads.skipped(block)
        if stream.is_remote_done:
            raise StreamFault(ErrorCode.STREAM_CLOSED, "HEADERS behind the end")
        check_trailers(headers)
        if not flags & frames.END_STREAM:
            raise StreamFault(ErrorCode.PROTOCOL_ERROR, "trailers that are not the end")
        stream.is_remote_done = True
        events.append(DataArrived(stream, b"", True))

    def _on_data(self, flags: int, stream_id: int, payload: bytes, events: list[Event[HeadT]]) -> None:
        stream = self._streams.open.get(stream_id)
        size = len(payload)
        if size:
            self._receive_window -= size
            if self._receive_window < 0:
                raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "more than the connection's window")
            if self._receive_window < self._limits.connection_window_bytes // 2:
                self._give_window()
            self._idle_frames.give(IDLE_FRAMES_PER_USEFUL_ONE)
        elif not flags & frames.END_STREAM:
            self._count_idle_frame()
        if flags & frames.PADDED:
            payload = frames.unpadded(flags, payload)
        if stream is None:
            self._on_late_data(stream_id)
            return
        if stream.is_remote_done:
            raise StreamFault(ErrorCode.STREAM_CLOSED, "DATA behind the end")
        stream.receive_window -= size
        if stream.receive_window < 0:
            raise StreamFault(ErrorCode.FLOW_CONTROL_ERROR, "more than the stream's window")
        if flags & frames.PADDED:
            self.took(stream, size - len(payload))
        if flags & frames.END_STREAM:
            stream.is_remote_done = True
            events.append(DataArrived(stream, payload, True))
        elif payload:
            events.append(DataArrived(stream, payload, False))

    def _on_late_data(self, stream_id: int) -> None:
        if not stream_id & 1 or stream_id > self._last_stream_id:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"DATA on stream {stream_id}, which was never opened")
        self._count_idle_frame()
        if not self._streams.was_closed_early(stream_id):
            raise StreamFault(ErrorCode.STREAM_CLOSED, "DATA behind the end")

    def _on_rst_stream(self, stream_id: int, payload: bytes, events: list[Event[HeadT]]) -> None:
        frames.number_in(payload)
        self._refuse_idle(stream_id, "RST_STREAM")
        stream = self._streams.open.get(stream_id)
        if stream is None:
            self._count_idle_frame()
            return
        self._count_reset()
        self.sender.forget(stream)
        events.append(StreamEnded(stream))

    # --- the connection -----------------------------------------------------------------------------------------------

    def _on_settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"SETTINGS on stream {stream_id}")
        if flags & frames.ACK:
            if payload:
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "an acknowledgement with settings")
            self._count_idle_frame()
            return
        if len(payload) % frames.SETTING.size:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "half a setting")
        if len(payload) > self._limits.settings_entries * frames.SETTING.size:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "too many settings")
        self._count_idle_frame(_TOKENS_OF_SETTINGS)
        self.is_ready = True
        # The last one of a name counts; what its predecessors would have changed they would have changed for no time.
        for name, value in dict(frames.SETTING.iter_unpack(payload)).items():
            self._set(name, value)
        self.sender.control(frames.SETTINGS_ACK)

    def _set(self, name: int, value: int) -> None:
        match name:
            case Setting.HEADER_TABLE_SIZE:
                self.sender.set_table_bytes(value)
            case Setting.ENABLE_PUSH:
                if value > 1:
                    raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"ENABLE_PUSH is {value}")
            case Setting.INITIAL_WINDOW_SIZE:
                if value > frames.WINDOW_MAX:
                    raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, f"INITIAL_WINDOW_SIZE is {value}")
                self.sender.set_initial_window(value)
            case Setting.MAX_FRAME_SIZE:
                if not _FRAME_BYTES_MIN <= value <= _FRAME_BYTES_MAX:
                    raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"MAX_FRAME_SIZE is {value}")
                self.sender.set_frame_bytes(value)
            case _:
                pass

    def _on_ping(self, flags: int, stream_id: int, payload: bytes, events: list[Event[HeadT]]) -> None:
        if stream_id:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"PING on stream {stream_id}")
        if len(payload) != frames.PING_BYTES:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, f"a PING of {len(payload)} bytes")
        self._count_idle_frame()
        if flags & frames.ACK:
            events.append(PingAnswered(payload))
        else:
            self.sender.control(frames.ping(payload, is_answer=True))

    def _on_window_update(self, stream_id: int, payload: bytes) -> None:
        increment = frames.number_in(payload) & STREAM_ID_MASK
        self._count_idle_frame()
        if stream_id == 0:
            if not increment:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a window is widened by nothing")
            self.sender.widen(increment)
            return
        self._refuse_idle(stream_id, "WINDOW_UPDATE")
        stream = self._streams.open.get(stream_id)
        if stream is None:
            return
        if not increment:
            raise StreamFault(ErrorCode.PROTOCOL_ERROR, "a window is widened by nothing")
        if not self.sender.widen_stream(stream, increment):
            raise StreamFault(ErrorCode.FLOW_CONTROL_ERROR, "a window larger than there can be")

    def _on_priority(self, stream_id: int, payload: bytes) -> None:
        if not stream_id:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a PRIORITY of no stream")
        self._count_idle_frame()
        if len(payload) != frames.PRIORITY_BYTES:
            raise StreamFault(ErrorCode.FRAME_SIZE_ERROR, f"a PRIORITY of {len(payload)} bytes")

    def _on_goaway(self, stream_id: int, payload: bytes) -> None:
        # The peer will begin no more; what it has begun goes on, and it closes the connection itself.
        if stream_id:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"GOAWAY on stream {stream_id}")
        if len(payload) < frames.PING_BYTES:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "a GOAWAY that is too short")
        self._count_idle_frame()

    # --- counting -----------------------------------------------------------------------------------------------------

    def _refuse_idle(self, stream_id: int, what: str) -> None:
        if not stream_id & 1 or stream_id > self._last_stream_id:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"{what} on stream {stream_id}, which was never opened")

    def _give_window(self) -> None:
        increment = self._limits.connection_window_bytes - self._receive_window
        if increment > 0:
            self._receive_window += increment
            self.sender.control(frames.window_update(0, increment))

    def _count_idle_frame(self, tokens: int = 1) -> None:
        if (sent := self.sender.data_frames) > self._data_frames_seen:
            self._idle_frames.give((sent - self._data_frames_seen) * IDLE_FRAMES_PER_USEFUL_ONE)
            self._data_frames_seen = sent
        if not self._idle_frames.take(self._now, tokens):
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "too many frames that ask for nothing")

    def _count_reset(self) -> None:
        if not self._resets.take(self._now):
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "too many streams are reset")
