"""The streams of a connection: those that are open, and of the closed ones those that the peer may not know of yet."""

from __future__ import annotations

from collections import deque
from typing import Final, Protocol

CLOSED_EARLY_MAX: Final = 1_000
"""Streams remembered that we closed before the peer had ended its side, whose frames may still come in."""


class StreamOwner(Protocol):
    """Who a stream's events are for."""

    def receive(self, data: bytes, is_end: bool) -> None:
        """Take what the peer sent, and whether it has ended its side."""

    def cancel(self) -> None:
        """Stop: the peer reset the stream, or its connection is gone."""

    def drained(self) -> None:
        """Know that what waited for the peer's window has been sent."""


class Stream:
    """One stream: what either side may still send, and what waits to be sent."""

    __slots__ = (
        "credit",
        "id",
        "is_closed",
        "is_queued",
        "is_remote_done",
        "owner",
        "receive_window",
        "send_window",
        "trailers",
        "waiting",
    )

    def __init__(self, stream_id: int, receive_window: int, send_window: int, *, is_remote_done: bool) -> None:
        self.id = stream_id
        self.owner: StreamOwner | None = None
        self.receive_window = receive_window
        """What the peer may send before it is told that more is taken."""
        self.credit = 0
        """What was taken of which it is not told yet."""
        self.send_window = send_window
        """What we may; below zero after the peer has lowered its setting."""
        self.is_remote_done = is_remote_done
        """Whether the peer has ended its side."""
        self.is_closed = False
        self.waiting: deque[memoryview] | None = None
        """Data for which there was no window, in order."""
        self.trailers: bytes | None = None
        """The header block that ends our side once nothing waits any more."""
        self.is_queued = False
        """Whether it is among those whose turn it is next."""


class StreamTable:
    """The streams of one connection."""

    __slots__ = ("_closed_early", "_closed_early_order", "open")

    def __init__(self) -> None:
        self.open: dict[int, Stream] = {}
        self._closed_early: set[int] = set()
        self._closed_early_order: deque[int] = deque()

    def close(self, stream: Stream) -> None:
        """Forget a stream that both sides have ended, or that the peer has reset."""
        stream.is_closed = True
        stream.waiting = None
        stream.trailers = None
        self.open.pop(stream.id, None)

    def close_early(self, stream: Stream) -> None:
        """Close a stream of which the peer may still send."""
        self.close(stream)
        self.remember(stream.id)

    def remember(self, stream_id: int) -> None:
        """Keep in mind that frames of a stream that was not opened, or closed early, are no fault of the peer's."""
        if len(self._closed_early_order) >= CLOSED_EARLY_MAX:
            self._closed_early.discard(self._closed_early_order.popleft())
        self._closed_early_order.append(stream_id)
        self._closed_early.add(stream_id)

    def was_closed_early(self, stream_id: int) -> bool:
        """Whether the peer may not have known, when it sent a frame, that the stream is closed."""
        return stream_id in self._closed_early
