"""The links of a node: one to each other member of its cluster.

Of two nodes the one whose name comes first dials. Both prove who they are by the session that the database holds for
them, which nobody else knows. A link that breaks is dialled anew for as long as the other is a member.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from perdure.server.engine.background import Background
from perdure.server.engine.cluster.errors import LinkDown
from perdure.server.engine.cluster.frames import PROTOCOL, BadFrame, Frame, FrameReader, Hello, encode_frame
from perdure.server.engine.cluster.link import ByteStream, Link, Services
from perdure.server.engine.cluster.settings import ClusterSettings
from perdure.server.store.interface import StoreError

_logger = logging.getLogger(__name__)


class Dialer(Protocol):
    """Opens connections to other nodes."""

    def dial(self, address: str) -> AbstractAsyncContextManager[ByteStream]:
        """Connect for as long as the context lasts. Raises OSError where that is not possible."""


class Watcher(Protocol):
    """Who wants to know of links."""

    def linked(self, link: Link) -> None:
        """A link is up."""

    def unlinked(self, peer: str) -> None:
        """The link to a node is down."""


class Links:
    """All links of one node.

    Args:
        hello: What this node says of itself, looked up when it is said: a new session may begin.
        dialer: How to reach others.
        services: Who answers their calls.
        watcher: Who is told when links come and go.
        look_again: Reads the members anew, for a node that is not known yet.
        settings: Limits and times.
    """

    def __init__(
        self,
        hello: Callable[[], Hello],
        dialer: Dialer,
        services: Services,
        watcher: Watcher,
        look_again: Callable[[], Awaitable[None]],
        settings: ClusterSettings,
    ) -> None:
        self._hello = hello
        self._dialer = dialer
        self._services = services
        self._watcher = watcher
        self._look_again = look_again
        self._settings = settings
        self._sessions: Mapping[str, str] = {}
        self._up: dict[str, Link] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        self._dialling: dict[str, asyncio.Task[None]] = {}
        self._ended = Background()
        self._is_stopped = False

    def set_members(self, sessions: Mapping[str, str]) -> None:
        """Have links to these nodes, and to no others.

        Args:
            sessions: The session of each other member, by name.
        """
        if self._is_stopped:
            return
        before, self._sessions = self._sessions, dict(sessions)
        for peer in before.keys() - sessions.keys():
            self._cut(peer)
        for peer in sessions:
            if before.get(peer, sessions[peer]) != sessions[peer]:
                # The node has begun anew: what is left of its old stream leads to nobody.
                self._cut(peer)
            if self._hello().node < peer and peer not in self._dialling:
                self._dialling[peer] = asyncio.create_task(self._dial_for_ever(peer), name=f"dialling of {peer}")

    def peers(self) -> list[Link]:
        """Return the links that are up."""
        return list(self._up.values())

    def to(self, peer: str) -> Link:
        """Return the link to a node. Raises LinkDown where there is none."""
        link = self._up.get(peer)
        if link is None:
            raise LinkDown(f"node {peer} cannot be reached now; try again")
        return link

    def cast(self, topic: str, body: bytes) -> None:
        """Tell news to all other nodes."""
        for link in self._up.values():
            link.cast(topic, body)

    async def accept(self, stream: ByteStream) -> None:
        """Serve a stream that another node has opened, until it ends."""
        reader = FrameReader()
        try:
            frames = await self._read_first(stream, reader)
            hello = _greeting(frames)
            if hello is None or not await self._is_member(hello):
                return
            await stream.write(encode_frame(self._hello()))
        except (OSError, BadFrame, StoreError) as error:
            _logger.info("a stream that another node has opened is given up: %s", error)
            return
        await self._run(hello.node, stream, reader, frames[1:])

    async def finish(self, seconds: float) -> None:
        """Wait for the calls in progress over all links, for that long at most."""
        calls = [call for link in self._up.values() for call in link.in_progress()]
        if calls:
            await asyncio.wait(calls, timeout=seconds)

    async def stop(self) -> None:
        """Close all links."""
        self._is_stopped = True
        tasks = [*self._dialling.values(), *self._running.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._ended.finish()

    # --- within -------------------------------------------------------------------------------------------------------

    def _cut(self, peer: str) -> None:
        for tasks in (self._dialling, self._running):
            task = tasks.pop(peer, None)
            if task is not None:
                task.cancel()
                self._ended.start(_ended(task), f"end of {task.get_name()}")

    async def _dial_for_ever(self, peer: str) -> None:
        while True:
            try:
                async with self._dialer.dial(peer) as stream:
                    reader = FrameReader()
                    await stream.write(encode_frame(self._hello()))
                    frames = await self._read_first(stream, reader)
                    hello = _greeting(frames)
                    if hello is not None and self._sessions.get(peer) == hello.session and hello.node == peer:
                        await self._run(peer, stream, reader, frames[1:])
            except (OSError, BadFrame) as error:
                _logger.debug("node %s cannot be reached: %s", peer, error)
            await asyncio.sleep(self._settings.dial_retry_seconds)

    async def _read_first(self, stream: ByteStream, reader: FrameReader) -> list[Frame]:
        """Return the first frames of a stream: the peer's greeting, and what it says right after; nothing in vain."""
        try:
            async with asyncio.timeout(self._settings.dial_timeout_seconds):
                while (data := await stream.read()) is not None:
                    frames = list(reader.feed(data))
                    if frames:
                        return frames
        except TimeoutError:
            _logger.info("a node does not say who it is")
        return []

    async def _is_member(self, hello: Hello) -> bool:
        if self._sessions.get(hello.node) != hello.session:
            await self._look_again()
        is_member = self._sessions.get(hello.node) == hello.session
        if not is_member:
            _logger.warning("a stream of somebody who says to be node %s is refused: it is no member", hello.node)
        return is_member

    async def _run(self, peer: str, stream: ByteStream, reader: FrameReader, frames: list[Frame]) -> None:
        link = Link(peer, stream, self._services, self._settings)
        running = asyncio.create_task(link.run(reader, frames), name=f"link with {peer}")
        previous = self._running.get(peer)
        self._running[peer] = running
        if previous is not None:
            previous.cancel()
            await asyncio.gather(previous, return_exceptions=True)
        self._up[peer] = link
        self._watcher.linked(link)
        try:
            await asyncio.wait({running})
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            if self._running.get(peer) is running:
                del self._running[peer]
            if self._up.get(peer) is link:
                del self._up[peer]
                self._watcher.unlinked(peer)


def _greeting(frames: list[Frame]) -> Hello | None:
    if not frames or not isinstance(frames[0], Hello):
        return None
    if frames[0].protocol != PROTOCOL:
        _logger.warning("node %s speaks protocol %d, this one %d", frames[0].node, frames[0].protocol, PROTOCOL)
        return None
    return frames[0]


async def _ended(task: asyncio.Task[None]) -> None:
    await asyncio.gather(task, return_exceptions=True)
