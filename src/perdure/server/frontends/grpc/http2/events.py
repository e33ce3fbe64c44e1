"""What a connection has to tell the layer above, in the order it happened."""

from __future__ import annotations

from typing import Generic, TypeAlias

import msgspec

from perdure.server.frontends.grpc.http2.head_reader import HeadT
from perdure.server.frontends.grpc.http2.streams import Stream


class RequestStarted(msgspec.Struct, Generic[HeadT], gc=False):
    """A stream was opened by a request's head, and whether that is all of the request.

    The stream itself is ahead of its events: it knows already what those behind this one will tell.
    """

    stream: Stream
    head: HeadT
    is_end: bool


class DataArrived(msgspec.Struct, gc=False):
    """Data of a request, and whether it was the last; empty where only the end came."""

    stream: Stream
    data: bytes
    is_end: bool


class StreamEnded(msgspec.Struct, gc=False):
    """The peer has reset a stream, or has broken the protocol in it. It is closed already."""

    stream: Stream


class PingAnswered(msgspec.Struct, gc=False):
    """The peer has answered one of our pings."""

    data: bytes


Event: TypeAlias = RequestStarted[HeadT] | DataArrived | StreamEnded | PingAnswered
