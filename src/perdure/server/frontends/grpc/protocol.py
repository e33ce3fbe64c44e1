"""One connection on the event loop: bytes from the transport into the HTTP/2 machine, and its output back in one write.

What is to be sent is collected until the loop comes round again, whoever had something to send: calls answered in the
same iteration share a write. Besides that it keeps the connection's timers. It must hold no rule of HTTP/2 or gRPC.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from typing import Final, cast

from perdure.server.frontends.grpc.byte_streams import GrpcByteStream
from perdure.server.frontends.grpc.call import GrpcCall
from perdure.server.frontends.grpc.codes import StatusCode
from perdure.server.frontends.grpc.exchange import Exchange
from perdure.server.frontends.grpc.http2 import frames
from perdure.server.frontends.grpc.http2.connection import Connection
from perdure.server.frontends.grpc.http2.errors import ConnectionFault, ErrorCode
from perdure.server.frontends.grpc.http2.events import DataArrived, Event, RequestStarted, StreamEnded
from perdure.server.frontends.grpc.http2.sending import HeaderFrame
from perdure.server.frontends.grpc.http2.streams import Stream
from perdure.server.frontends.grpc.replies import OK, REPLY_HEAD, failure
from perdure.server.frontends.grpc.requests import CallHead
from perdure.server.frontends.grpc.service import Service, StreamRoute, UnaryRoute
from perdure.server.frontends.grpc.status import CallStatus

_log = logging.getLogger(__name__)

WRITE_BUFFER_BYTES: Final = 256 * 1024
"""When the transport has more than this that it cannot send, data waits."""
GOAWAY_PATIENCE_SECONDS: Final = 1.0
"""How long a peer may take to learn that the server stops, before streams it begins are not looked at any more."""
CLOSE_PATIENCE_SECONDS: Final = 5.0
"""How long a peer may take to read what was sent before its connection is closed."""


class GrpcProtocol(asyncio.Protocol):
    """A connection.

    Args:
        service: What is served.
        on_lost: Called once when the connection is gone.
        unwelcome: Why it may not stay, which it is told; empty where it may.
    """

    def __init__(self, service: Service, on_lost: Callable[[GrpcProtocol], None], *, unwelcome: str = "") -> None:
        self.service: Final = service
        self.loop: Final = asyncio.get_running_loop()
        self.unread_bytes = 0
        """What has arrived for streams that have not taken it yet."""
        self._on_lost = on_lost
        self._unwelcome = unwelcome
        self._http2: Connection[CallHead] = Connection(service.limits, service.interpret)
        self._sender = self._http2.sender
        self._transport: asyncio.Transport | None = None
        self._is_flush_due = False
        self._is_ending = False
        self._has_ended = False
        self._received_at = self.loop.time()
        self._stall: tuple[int, float] | None = None
        self._ping: bytes | None = None
        self._timer: asyncio.TimerHandle | None = None

    # --- for the streams ----------------------------------------------------------------------------------------------

    def reply(self, stream: Stream, prefix: bytes, message: bytes) -> None:
        """Send the whole answer of a call that went well."""
        try:
            self._sender.reply(stream, REPLY_HEAD, prefix, message, OK)
        except ConnectionFault as fault:
            self._cut(fault)
        if not self._is_flush_due:
            self._is_flush_due = True
            self.loop.call_soon(self._flush)

    def answer(self, stream: Stream, head: HeaderFrame) -> None:
        """Send headers."""
        self._sender.head(stream, head)
        self._wake()

    def data(self, stream: Stream, data: bytes) -> None:
        """Send data, or have it wait."""
        try:
            self._sender.data(stream, data)
        except ConnectionFault as fault:
            self._cut(fault)
        self._wake()

    def end(self, stream: Stream, trailers: bytes) -> None:
        """Send what ends a stream on which headers were sent."""
        self._sender.end(stream, trailers)
        self._wake()

    def reset(self, stream: Stream, code: ErrorCode) -> None:
        """End a stream at once."""
        self._sender.reset(stream, code)
        self._wake()

    def took(self, stream: Stream, count: int) -> None:
        """Let the peer send so much more on a stream."""
        self._http2.took(stream, count)
        self._wake()

    # --- for the event loop -------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet, and give the peer some time to do the same."""
        # uvloop's transports are not derived from asyncio's.
        self._transport = transport = cast("asyncio.Transport", transport)
        transport.set_write_buffer_limits(WRITE_BUFFER_BYTES)
        if self._unwelcome:
            self._sender.control(frames.goaway(0, ErrorCode.ENHANCE_YOUR_CALM, self._unwelcome))
            self._close_for(ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, self._unwelcome))
            return
        self._timer = self.loop.call_later(self.service.limits.handshake_seconds, self._check_handshake)
        self._wake()

    def data_received(self, data: bytes) -> None:
        """Read what has come in, and act on it."""
        self._received_at = now = self.loop.time()
        try:
            events = self._http2.receive(data, now)
        except ConnectionFault as fault:
            self._close_for(fault)
            return
        for event in events:
            self._on_event(event)
        if self._sender.has_output or self._is_ending:
            self._wake()
        if drained := self._sender.take_drained():
            self._tell_drained(drained)

    def pause_writing(self) -> None:
        """Have data wait: the transport cannot get rid of what it has."""
        self._sender.is_paused = True

    def resume_writing(self) -> None:
        """Go on sending."""
        self._sender.is_paused = False
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """End everything that was going on here."""
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
        for stream in self._http2.streams:
            self._sender.forget(stream)
            if stream.owner is not None:
                stream.owner.cancel()
        self._on_lost(self)

    # --- for the front end --------------------------------------------------------------------------------------------

    def go_away(self) -> None:
        """Take no more calls, and close once those in progress have ended.

        In two steps, as RFC 9113 recommends: what the peer has sent before it learns of the end is still served.
        """
        self._is_ending = True
        self._http2.announce_end()
        self._ask()
        self.loop.call_later(GOAWAY_PATIENCE_SECONDS, self._end)

    def give_up(self, status: CallStatus) -> None:
        """End the calls that are still in progress, and with them the connection."""
        for stream in self._http2.streams:
            if isinstance(stream.owner, Exchange):
                stream.owner.give_up(status)
        self._end()

    def abort(self) -> None:
        """Close without waiting for the peer."""
        if self._transport is not None:
            self._transport.abort()

    # --- events -------------------------------------------------------------------------------------------------------

    def _on_event(self, event: Event[CallHead]) -> None:
        if isinstance(event, DataArrived):
            if event.stream.owner is not None and not event.stream.is_closed:
                event.stream.owner.receive(event.data, event.is_end)
        elif isinstance(event, RequestStarted):
            if not event.stream.is_closed:
                self._on_request(event.stream, event.head, event.is_end)
        elif isinstance(event, StreamEnded):
            if event.stream.owner is not None:
                event.stream.owner.cancel()
        else:
            self._on_answered(event.data)

    def _on_request(self, stream: Stream, head: CallHead, is_end: bool) -> None:
        if head.refusal is not None:
            self._sender.head(stream, head.refusal)
            return
        match self.service.routes.get(head.path):
            case UnaryRoute() as route:
                call = GrpcCall(self, stream, head, route)
                stream.owner = call
                if is_end:
                    call.receive(b"", True)
            case StreamRoute() as route:
                byte_stream = GrpcByteStream(self, stream, head, route.handler)
                stream.owner = byte_stream
                byte_stream.begin()
                if is_end:
                    byte_stream.receive(b"", True)
            case None:
                status = CallStatus(StatusCode.UNIMPLEMENTED, f"there is no method {head.path}", b"")
                self._sender.head(stream, failure(status))

    def _tell_drained(self, drained: list[Stream]) -> None:
        for stream in drained:
            if stream.owner is not None:
                stream.owner.drained()

    # --- writing ------------------------------------------------------------------------------------------------------

    def _wake(self) -> None:
        if not self._is_flush_due:
            self._is_flush_due = True
            self.loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._is_flush_due = False
        transport, sender = self._transport, self._sender
        if transport is None or transport.is_closing():
            return
        if sender.unsent_bytes:
            sender.pump()
        if sender.has_output:
            transport.write(sender.take())
            if sender.unsent_bytes:
                # What was held back only because this write had enough goes with the next one.
                sender.pump()
                if sender.has_output:
                    self._wake()
        if drained := sender.take_drained():
            self._tell_drained(drained)
        if transport.get_write_buffer_size() + sender.unsent_bytes > self.service.limits.unsent_bytes:
            self._cut(ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "the peer reads nothing of what is sent"))
        elif self._has_ended and not self._http2.has_streams and not sender.has_output:
            self._close(transport)

    def _end(self) -> None:
        if not self._has_ended:
            self._has_ended = True
            self._http2.end()
            self._wake()

    def _close_for(self, fault: ConnectionFault) -> None:
        if self._transport is not None:
            _log.info("a connection is closed: %s", fault)
            self._transport.write(self._sender.take())
            self._close(self._transport)

    def _close(self, transport: asyncio.Transport) -> None:
        transport.close()
        self.loop.call_later(CLOSE_PATIENCE_SECONDS, transport.abort)

    def _cut(self, fault: ConnectionFault) -> None:
        _log.warning("a connection is cut: %s", fault)
        self.abort()

    # --- timers -------------------------------------------------------------------------------------------------------

    def _check_handshake(self) -> None:
        if self._http2.is_ready:
            self._check_silence()
        else:
            self._close_for(ConnectionFault(ErrorCode.SETTINGS_TIMEOUT, "the peer does not say that it speaks HTTP/2"))

    def _check_silence(self) -> None:
        """Ask a peer that has long said nothing whether it is there; leave one that takes nothing."""
        now, limits = self.loop.time(), self.service.limits
        if self._is_stalled(now):
            self._cut(ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "the peer takes nothing of what waits for it"))
        elif now - self._received_at >= limits.keepalive_seconds:
            self._ask()
            self._timer = self.loop.call_later(limits.keepalive_answer_seconds, self._check_answer, self._received_at)
        else:
            self._timer = self.loop.call_at(self._received_at + limits.keepalive_seconds, self._check_silence)

    def _is_stalled(self, now: float) -> bool:
        """Whether something waits for the peer, and for so long already without any progress."""
        sender = self._sender
        if not (sender.unsent_bytes or sender.is_paused):
            self._stall = None
        elif self._stall is None or self._stall[0] != sender.data_frames:
            self._stall = (sender.data_frames, now)
        else:
            return now - self._stall[1] >= self.service.limits.stalled_seconds
        return False

    def _check_answer(self, silent_since: float) -> None:
        if self._received_at == silent_since:
            self._cut(ConnectionFault(ErrorCode.NO_ERROR, "the peer does not answer"))
        else:
            self._check_silence()

    def _ask(self) -> None:
        # Not to be guessed: an answer proves that the question was read.
        self._ping = os.urandom(frames.PING_BYTES)
        self._sender.control(frames.ping(self._ping, is_answer=False))
        self._wake()

    def _on_answered(self, data: bytes) -> None:
        if data == self._ping:
            self._ping = None
            if self._is_ending:
                self._end()
