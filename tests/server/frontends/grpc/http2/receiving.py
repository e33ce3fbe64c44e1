"""A connection under test with its peer: bytes in, events and frames out."""

from __future__ import annotations

from collections.abc import Sequence

from perdure.server.frontends.grpc.http2.connection import Connection
from perdure.server.frontends.grpc.http2.errors import ConnectionFault, ErrorCode
from perdure.server.frontends.grpc.http2.events import DataArrived, Event, RequestStarted, StreamEnded
from perdure.server.frontends.grpc.http2.hpack import Header
from perdure.server.frontends.grpc.http2.limits import Http2Limits
from perdure.server.frontends.grpc.http2.streams import Stream
from tests.server.frontends.grpc.peer import Frame, Peer, goaway_code

Head = dict[str, str]


class Receiving:
    """A connection that has shaken hands, and what came of the bytes it was given."""

    def __init__(self, limits: Http2Limits | None = None, *, hello: bool = True) -> None:
        self.connection: Connection[Head] = Connection(limits or Http2Limits(), self._interpret)
        self.peer = Peer()
        self.now = 0.0
        if hello:
            self.give(self.peer.hello())
            self.frames()

    @staticmethod
    def _interpret(headers: Sequence[Header], list_bytes: int) -> Head:
        return {name.decode(): value.decode() for name, value in headers}

    def give(self, data: bytes) -> list[Event[Head]]:
        """Hand in bytes and return the events."""
        return self.connection.receive(data, self.now)

    def frames(self) -> list[Frame]:
        """Return what was sent since the last time."""
        return self.peer.read(self.connection.sender.take())

    def open(self, stream_id: int = 1) -> Stream:
        """Begin a request and return its stream."""
        (started,) = self.give(self.peer.headers(stream_id))
        assert isinstance(started, RequestStarted)
        return started.stream

    def fault_of(self, data: bytes) -> ErrorCode:
        """Hand in bytes that end the connection, and return the code: the one raised, which the peer is told."""
        try:
            self.give(data)
        except ConnectionFault as fault:
            assert goaway_code(self.frames()) is fault.code
            return fault.code
        raise AssertionError("the connection goes on")


def told(events: Sequence[Event[Head]]) -> list[tuple[object, ...]]:
    """Return events as plain values, for comparison."""
    plain: list[tuple[object, ...]] = []
    for event in events:
        if isinstance(event, RequestStarted):
            plain.append(("started", event.stream.id, event.head[":path"], event.is_end))
        elif isinstance(event, DataArrived):
            plain.append(("data", event.stream.id, event.data, event.is_end))
        elif isinstance(event, StreamEnded):
            plain.append(("ended", event.stream.id))
        else:
            plain.append(("answered", event.data))
    return plain
