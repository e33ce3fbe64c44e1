"""A load balancer on loopback: as many addresses as nodes, each with a node of its own for as long as that one lives.

It looks at each node several times a second: one that accepts a connection but does not greet, as a suspended process
does, is taken for dead too. Connections to a dead node are cut, so that clients connect anew and get another one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

_LOOK_SECONDS = 0.2
_GREETING_SECONDS = 0.8
"""How long a node may take to greet: much longer than it does on a busy machine."""
_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
"""What a client of HTTP/2 sends first, with empty settings; a server answers with its own."""
_PIECE_BYTES = 65_536


class _Node:
    """A node as the balancer knows it."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.is_up = False
        self.connections: set[asyncio.Task[None]] = set()

    async def look(self) -> None:
        """Find out whether the node greets; cut what leads to it where it does not."""
        try:
            async with asyncio.timeout(_GREETING_SECONDS):
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                try:
                    writer.write(_HELLO)
                    self.is_up = bool(await reader.read(1))
                finally:
                    writer.close()
        except (OSError, TimeoutError):
            self.is_up = False
        if not self.is_up:
            for connection in self.connections:
                connection.cancel()


class Balancer:
    """Takes connections in for nodes.

    Args:
        ports: Where the nodes listen.
    """

    def __init__(self, ports: Sequence[int]) -> None:
        self._nodes = [_Node(port) for port in ports]
        self.addresses: list[str] = []
        """Where it listens: one address for each node, which leads to that node while it is up."""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Balancer]:
        """Listen for as long as the block lasts."""
        servers = [await self._listen(place) for place in range(len(self._nodes))]
        self.addresses = [f"127.0.0.1:{server.sockets[0].getsockname()[1]}" for server in servers]
        looks = [asyncio.create_task(_look_for_ever(node)) for node in self._nodes]
        try:
            yield self
        finally:
            for server in servers:
                server.close()
            tasks = [*looks, *(connection for node in self._nodes for connection in node.connections)]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _listen(self, place: int) -> asyncio.Server:
        preferred = [*self._nodes[place:], *self._nodes[:place]]

        def accept(from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
            node = next((node for node in preferred if node.is_up), None)
            if node is None:
                to_client.close()
                return
            connection = asyncio.ensure_future(_connect(node, from_client, to_client))
            node.connections.add(connection)
            # Not in the connection itself: it may be cancelled before it has begun.
            connection.add_done_callback(lambda _: to_client.close())
            connection.add_done_callback(node.connections.discard)

        return await asyncio.start_server(accept, "127.0.0.1", 0)


async def _look_for_ever(node: _Node) -> None:
    while True:
        await node.look()
        await asyncio.sleep(_LOOK_SECONDS)


async def _connect(node: _Node, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
    """Pass everything on both ways, until either side ends."""
    try:
        from_node, to_node = await asyncio.open_connection("127.0.0.1", node.port)
    except OSError:
        return
    ways = [asyncio.create_task(_pass_on(from_client, to_node)), asyncio.create_task(_pass_on(from_node, to_client))]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        to_node.close()
        await asyncio.gather(*ways, return_exceptions=True)


async def _pass_on(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while data := await source.read(_PIECE_BYTES):
        target.write(data)
        await target.drain()
