"""Every limit of a connection, by name, and the bucket that those per second are counted with. Data, and no I/O.

A limit is checked by the module it concerns. What a peer can have us do without asking for anything of use, such as
answering pings, is counted: tokens are taken for it, and given back by time and by useful work.
"""

from __future__ import annotations

import msgspec

_KIB = 1024
_MIB = 1024 * 1024


class Http2Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of one connection."""

    # --- told to the peer in SETTINGS ---------------------------------------------------------------------------------

    concurrent_streams: int = 10_000
    """Streams in progress at once; more are refused. High, because workers park their polls on one connection."""
    frame_bytes: int = 64 * _KIB
    """Largest frame taken, without its head."""
    stream_window_bytes: int = 1 * _MIB
    """What a peer may send on one stream before it is told that it was taken."""
    connection_window_bytes: int = 16 * _MIB
    """The same for all streams together."""
    header_list_bytes: int = 16 * _KIB
    """Largest header list of a request, as HTTP/2 counts it; a call with more is refused as RESOURCE_EXHAUSTED."""

    # --- where a peer that does not keep to the above loses its connection --------------------------------------------

    header_block_bytes: int = 32 * _KIB
    """Largest header block as it is sent, and largest header list that is decoded at all."""
    continuation_frames: int = 16
    """Most CONTINUATION frames of one header block."""
    settings_entries: int = 64
    """Most entries of one SETTINGS frame."""
    resets_at_once: int = 10_000
    """Streams that may end by RST_STREAM in a burst: as many as can be parked."""
    resets_per_second: float = 200
    """How many more may with every second."""
    idle_frames_at_once: int = 2_000
    """Frames that may come in a burst and ask for nothing: PING, SETTINGS, PRIORITY, WINDOW_UPDATE, empty, unknown."""
    idle_frames_per_second: float = 100
    """How many more may with every second."""

    # --- memory -------------------------------------------------------------------------------------------------------

    unread_bytes: int = 64 * _MIB
    """What may have arrived for calls that are not complete or not read yet; the call that adds more is refused."""
    unsent_bytes: int = 256 * _MIB
    """What may wait because the peer takes nothing; with more the connection is cut."""

    # --- waiting, in seconds ------------------------------------------------------------------------------------------

    handshake_seconds: float = 10.0
    """How long a new connection may take to say that it speaks HTTP/2."""
    keepalive_seconds: float = 60.0
    """After how much silence a peer is asked whether it is still there."""
    keepalive_answer_seconds: float = 10.0
    """How long it may take to answer. A poller that is gone without a word is noticed within the two together."""
    request_seconds: float = 60.0
    """How long the body of a unary request may take to arrive where the call has no deadline."""
    stalled_seconds: float = 60.0
    """How long a peer may let us wait that has replies to come and takes none."""


IDLE_FRAMES_PER_USEFUL_ONE = 10
"""How many frames of no use each request and each frame of data, in either direction, makes up for."""


class Bucket:
    """Tokens that are taken one by one and come back with time, up to as many as there were at first.

    Args:
        size: How many there are at first.
        per_second: How many come back each second.
    """

    __slots__ = ("_per_second", "_size", "_tokens", "_updated_at")

    def __init__(self, size: int, per_second: float) -> None:
        self._size = size
        self._per_second = per_second
        self._tokens: float = size
        self._updated_at: float | None = None

    def take(self, now: float, count: int = 1) -> bool:
        """Take tokens and return whether there were enough; `now` is in seconds on any clock that goes forward."""
        if self._updated_at is None:
            self._updated_at = now
        if self._tokens < count:
            # Time is only looked at when it matters.
            self.give((now - self._updated_at) * self._per_second)
            self._updated_at = now
            if self._tokens < count:
                return False
        self._tokens -= count
        return True

    def give(self, count: float) -> None:
        """Put tokens back; those that do not fit are lost."""
        self._tokens = min(self._size, self._tokens + count)
