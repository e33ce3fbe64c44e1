"""The network between simulated nodes: pieces take their time, links break at each end for itself, or fall silent.

What a node does runs in its own process: one that is frozen takes a connection in, as its kernel would, and says
nothing. What was sent before a break may still arrive, what is sent after it never does.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final, Protocol

from perdure.server.engine.cluster.stream import ByteStream

Accept = Callable[[ByteStream], Coroutine[object, object, None]]

KEEPALIVE_SECONDS: Final = 15.0
"""After so long the transport of the real links gives a silent one up."""


class Listener(Protocol):
    """A process that takes in streams."""

    def spawn(self, work: Coroutine[object, object, None]) -> Awaitable[None]:
        """Run something in it."""


class _Pipe:
    """One direction of a stream."""

    def __init__(self, delay: Callable[[], float]) -> None:
        # Looking the loop up costs a system call in CPython 3.11.
        self._loop = asyncio.get_running_loop()
        self._delay = delay
        self._pieces: deque[tuple[float, bytes]] = deque()
        self._wake = asyncio.Event()
        self._last_at = 0.0
        self._lost_from = float("inf")
        """What would arrive after this is lost."""
        self._ends_at = float("inf")
        """When its reader is told of the end."""

    def put(self, data: bytes) -> None:
        # Never before what was sent earlier.
        self._last_at = max(self._last_at, self._loop.time() + self._delay())
        if self._last_at < self._lost_from:
            self._pieces.append((self._last_at, data))
            self._wake.set()

    def hold(self, until: float) -> None:
        """Let nothing arrive before."""
        self._last_at = max(self._last_at, until)
        self._pieces = deque((max(at, until), data) for at, data in self._pieces)

    def end(self, lost_from: float, ends_at: float) -> None:
        """Let the stream break: what arrives later is lost, and the reader is told some time."""
        self._lost_from = min(self._lost_from, lost_from)
        self._ends_at = min(self._ends_at, max(ends_at, lost_from))
        self._pieces = deque(piece for piece in self._pieces if piece[0] < self._lost_from)
        self._wake.set()

    @property
    def is_ended(self) -> bool:
        return self._loop.time() >= self._ends_at

    async def get(self) -> bytes | None:
        while not self.is_ended:
            next_at = min(self._pieces[0][0] if self._pieces else float("inf"), self._ends_at)
            if next_at <= self._loop.time():
                return self._pieces.popleft()[1]
            self._wake.clear()
            if next_at == float("inf"):
                await self._wake.wait()
                continue
            try:
                async with asyncio.timeout_at(next_at):
                    await self._wake.wait()
            except TimeoutError:
                continue
        return None


class _Stream:
    """One end of a stream."""

    def __init__(self, incoming: _Pipe, outgoing: _Pipe) -> None:
        self._incoming = incoming
        self._outgoing = outgoing

    async def read(self) -> bytes | None:
        return await self._incoming.get()

    async def write(self, data: bytes) -> None:
        if self._incoming.is_ended:
            raise OSError("the simulated stream broke")
        self._outgoing.put(data)

    async def carry(self, take: Callable[[bytes], None]) -> None:
        while (data := await self.read()) is not None:
            take(data)

    def send(self, data: bytes) -> bool:
        if self._incoming.is_ended:
            return False
        self._outgoing.put(data)
        return True


class _Connection:
    """A stream with both its directions."""

    def __init__(self, ends: frozenset[str], processes: tuple[object, object], delay: Callable[[], float]) -> None:
        self.ends = ends
        self.processes = processes
        self.there, self.back = _Pipe(delay), _Pipe(delay)

    def break_off(self, rng: random.Random, notice_seconds: float) -> None:
        """Lose what is sent from now on; each end notices for itself."""
        for pipe in (self.there, self.back):
            now = _now()
            pipe.end(now + rng.choice((0.0, rng.uniform(0, 0.05))), now + rng.uniform(0, notice_seconds))

    def close(self) -> None:
        """End it as one of its ends does; what it has sent still arrives."""
        for pipe in (self.there, self.back):
            pipe.end(_now() + 1.0, _now())


class Network:
    """Where nodes listen and dial.

    Args:
        rng: Decides on delays and on what is lost.
        slowness: How long a piece takes at most, in seconds.
    """

    def __init__(self, rng: random.Random, slowness: float) -> None:
        self._rng = rng
        self._slowness = slowness
        self._listeners: dict[str, list[tuple[Listener, Accept]]] = {}
        self._connections: dict[_Connection, None] = {}
        self._apart_until: dict[frozenset[str], float] = {}

    def listen(self, address: str, listener: Listener, accept: Accept) -> None:
        """Take in streams at an address, instead of a process that had it before, for as long as this one lives."""
        self._listeners.setdefault(address, []).append((listener, accept))

    def vanish(self, address: str, process: Listener) -> None:
        """Break all streams of a process that is gone."""
        listeners = self._listeners.get(address, [])
        listeners[:] = [listening for listening in listeners if listening[0] is not process]
        self._break(lambda connection: process in connection.processes, 0.1)

    def break_link(self, ends: frozenset[str]) -> None:
        """Break the streams between two nodes, which can be dialled anew at once."""
        self._break(lambda connection: connection.ends == ends, 2.0)

    def part(self, ends: frozenset[str], seconds: float, *, in_silence: bool) -> None:
        """Let two nodes not reach each other for a while; in silence their streams stay as long as they can."""
        self._apart_until[ends] = _now() + seconds
        if not in_silence or seconds > KEEPALIVE_SECONDS:
            self._break(lambda connection: connection.ends == ends, KEEPALIVE_SECONDS if in_silence else 2.0)
            return
        for connection in self._connections:
            if connection.ends == ends:
                connection.there.hold(_now() + seconds)
                connection.back.hold(_now() + seconds)

    def heal(self) -> None:
        """Let everybody reach everybody."""
        self._apart_until.clear()

    def dialer(self, own_address: str, process: object) -> Dialer:
        """Return what a process dials others with."""
        return Dialer(self, own_address, process)

    def _break(self, chosen: Callable[[_Connection], bool], notice_seconds: float) -> None:
        for connection in [connection for connection in self._connections if chosen(connection)]:
            del self._connections[connection]
            connection.break_off(self._rng, notice_seconds)

    @asynccontextmanager
    async def stream(self, dialling: str, process: object, dialled: str) -> AsyncIterator[ByteStream]:
        """Connect two nodes for as long as the context lasts. Raises OSError."""
        await asyncio.sleep(self._delay())
        ends = frozenset((dialling, dialled))
        if _now() < self._apart_until.get(ends, 0.0):
            await asyncio.sleep(self._rng.uniform(0, 1))
            raise OSError("the simulated network is cut")
        if not self._listeners.get(dialled):
            raise OSError(f"nobody listens at {dialled}")
        listener, accept = self._listeners[dialled][-1]
        connection = _Connection(ends, (process, listener), self._delay)
        self._connections[connection] = None
        listener.spawn(self._served(connection, accept))
        try:
            yield _Stream(connection.back, connection.there)
        finally:
            self._close(connection)

    async def _served(self, connection: _Connection, accept: Accept) -> None:
        try:
            await accept(_Stream(connection.there, connection.back))
        finally:
            self._close(connection)

    def _close(self, connection: _Connection) -> None:
        self._connections.pop(connection, None)
        connection.close()

    def _delay(self) -> float:
        return self._rng.uniform(0, self._slowness)


class Dialer:
    """Dials from one process."""

    def __init__(self, network: Network, own_address: str, process: object) -> None:
        self._network = network
        self._own_address = own_address
        self._process = process

    def dial(self, address: str) -> AbstractAsyncContextManager[ByteStream]:
        return self._network.stream(self._own_address, self._process, address)


def _now() -> float:
    return asyncio.get_running_loop().time()
