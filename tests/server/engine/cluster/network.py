"""A network between nodes in one event loop: streams as queues, which a test cuts, holds up or severs for good."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from perdure.server.engine.cluster.stream import ByteStream

Accept = Callable[[ByteStream], Awaitable[None]]


class _Pipe:
    """One direction of a stream."""

    def __init__(self, delay: Callable[[], float]) -> None:
        self._delay = delay
        self._pieces: deque[tuple[float, bytes]] = deque()
        self._wake = asyncio.Event()
        self._last_at = 0.0
        self.is_cut = False

    def put(self, data: bytes) -> None:
        # Never before what was sent earlier.
        self._last_at = max(self._last_at, asyncio.get_running_loop().time() + self._delay())
        self._pieces.append((self._last_at, data))
        self._wake.set()

    def cut(self) -> None:
        self.is_cut = True
        self._wake.set()

    async def get(self) -> bytes | None:
        while not self.is_cut:
            if self._pieces:
                wait = self._pieces[0][0] - asyncio.get_running_loop().time()
                if wait <= 0:
                    return self._pieces.popleft()[1]
                await asyncio.sleep(wait)
            else:
                self._wake.clear()
                await self._wake.wait()
        return None


class WaitingStream:
    """The other half of a stream, made of the half that waits; nothing can be sent at once."""

    async def read(self) -> bytes | None:
        raise NotImplementedError

    async def carry(self, take: Callable[[bytes], None]) -> None:
        while (data := await self.read()) is not None:
            take(data)

    def send(self, data: bytes) -> bool:
        return False


class _Stream(WaitingStream):
    """One end of a stream."""

    def __init__(self, incoming: _Pipe, outgoing: _Pipe) -> None:
        self._incoming = incoming
        self._outgoing = outgoing

    async def read(self) -> bytes | None:
        return await self._incoming.get()

    async def write(self, data: bytes) -> None:
        if self._outgoing.is_cut:
            raise OSError("the stream was cut")
        self._outgoing.put(data)

    def send(self, data: bytes) -> bool:
        if self._outgoing.is_cut:
            return False
        self._outgoing.put(data)
        return True


class Network:
    """Where nodes listen and dial."""

    def __init__(self) -> None:
        self._listeners: dict[str, Accept] = {}
        self._streams: dict[tuple[str, str], tuple[_Pipe, _Pipe]] = {}
        self._apart: set[frozenset[str]] = set()
        self.delay: Callable[[], float] = lambda: 0.0

    def listen(self, address: str, accept: Accept) -> None:
        """Have a node take in streams."""
        self._listeners[address] = accept

    def vanish(self, address: str) -> None:
        """Cut all streams of a node that does not listen any more."""
        self._listeners.pop(address, None)
        self._cut(lambda ends: address in ends)

    def part(self, one: str, other: str) -> None:
        """Let two nodes not reach each other."""
        self._apart.add(frozenset((one, other)))
        self._cut(lambda ends: set(ends) == {one, other})

    def join(self, one: str, other: str) -> None:
        """Let them reach each other again."""
        self._apart.discard(frozenset((one, other)))

    def dialer(self, own_address: str) -> Dialer:
        """Return what a node dials others with."""
        return Dialer(self, own_address)

    def _cut(self, chosen: Callable[[tuple[str, str]], bool]) -> None:
        for ends in [ends for ends in self._streams if chosen(ends)]:
            for pipe in self._streams.pop(ends):
                pipe.cut()

    @asynccontextmanager
    async def stream(self, dialling: str, dialled: str) -> AsyncIterator[ByteStream]:
        """Connect two nodes for as long as the context lasts."""
        accept = self._listeners.get(dialled)
        if accept is None or frozenset((dialling, dialled)) in self._apart:
            raise OSError(f"{dialled} cannot be reached")
        there, back = _Pipe(self.delay), _Pipe(self.delay)
        self._streams[dialling, dialled] = (there, back)
        serving = asyncio.ensure_future(accept(_Stream(there, back)))
        serving.add_done_callback(lambda _: back.cut())
        try:
            yield _Stream(back, there)
        finally:
            there.cut()
            back.cut()
            await asyncio.gather(serving, return_exceptions=True)


class Dialer:
    """Dials from one node."""

    def __init__(self, network: Network, own_address: str) -> None:
        self._network = network
        self._own_address = own_address

    @asynccontextmanager
    async def dial(self, address: str) -> AsyncIterator[ByteStream]:
        async with self._network.stream(self._own_address, address) as stream:
            yield stream
