"""The links of a node: one to each other member of its cluster.

Of two nodes the one whose name comes first dials. Both prove who they are (`greeting.py`). A link that breaks is
dialled anew for as long as the other is a member.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol

from perdure.server.engine.background import Background, run_for_ever
from perdure.server.engine.cluster.errors import LinkDown
from perdure.server.engine.cluster.frames import BadFrame, FrameReader
from perdure.server.engine.cluster.greeting import Greeter, Refused
from perdure.server.engine.cluster.link import Link, Services
from perdure.server.engine.cluster.settings import ClusterSettings
from perdure.server.engine.cluster.stream import ByteStream

_logger = logging.getLogger(__name__)
_WARNING_SECONDS: Final = 10.0
"""How long the same warning is not logged again."""


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
        node: This node.
        release: The release it runs.
        new_nonce: Makes strings that nobody can guess.
        own_session: This node's session; a new one may begin.
        dialer: How to reach others.
        services: Who answers their calls.
        watcher: Who is told when links come and go.
        look_soon: Has the members read anew, for a node that is not known yet.
        settings: Limits and times.
    """

    def __init__(
        self,
        node: str,
        release: str,
        new_nonce: Callable[[], str],
        own_session: Callable[[], str],
        dialer: Dialer,
        services: Services,
        watcher: Watcher,
        look_soon: Callable[[], None],
        settings: ClusterSettings,
    ) -> None:
        self._node = node
        self._greeter = Greeter(node, release, new_nonce, own_session, self._session_of)
        self._dialer = dialer
        self._services = services
        self._watcher = watcher
        self._look_soon = look_soon
        self._settings = settings
        self._sessions: Mapping[str, str] = {}
        self._up: dict[str, Link] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        self._dialling: dict[str, asyncio.Task[None]] = {}
        self._ended = Background()
        self._unproven = 0
        """How many streams of others have not proved yet that they come from a member."""
        self._seldom_look = _Seldom(settings.dial_retry_seconds)
        self._seldom_warn = _Seldom(_WARNING_SECONDS)
        self.is_stopped = False
        """Whether there will be no link any more."""

    def set_members(self, sessions: Mapping[str, str]) -> None:
        """Have links to these nodes, and to no others.

        Args:
            sessions: The session of each other member, by name.
        """
        if self.is_stopped:
            return
        before, self._sessions = self._sessions, dict(sessions)
        for peer in before.keys() - sessions.keys():
            self._cut(peer)
        for peer in sessions:
            if before.get(peer, sessions[peer]) != sessions[peer]:
                # The node has begun anew: what is left of its old stream leads to nobody.
                self._cut(peer)
            if self._node < peer and peer not in self._dialling:
                self._dialling[peer] = run_for_ever(self._dial_for_ever(peer), f"dialling of {peer}")

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
        if self._unproven >= self._settings.unproven_links_max:
            if self._seldom_warn.is_due():
                _logger.warning("a stream is refused: %d others have not proved yet whose they are", self._unproven)
            return
        self._unproven += 1
        try:
            async with asyncio.timeout(self._settings.dial_timeout_seconds):
                peer, reader = await self._greeter.answer(stream)
        except Refused as refused:
            if self._seldom_warn.is_due():
                _logger.warning("a stream is refused: %s", refused)
            # It may have joined just now: then it comes again, and is known.
            if self._seldom_look.is_due():
                self._look_soon()
            return
        except (OSError, BadFrame) as error:
            _logger.info("a stream that another node has opened is given up: %s", error)
            return
        finally:
            self._unproven -= 1
        await self._run(peer, stream, reader)

    async def finish(self, seconds: float) -> None:
        """Wait for the calls in progress over all links, for that long at most."""
        calls = [call for link in self._up.values() for call in link.in_progress()]
        if calls:
            await asyncio.wait(calls, timeout=seconds)

    async def stop(self) -> None:
        """Close all links."""
        self.is_stopped = True
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
                await self._dial(peer)
            except (OSError, BadFrame, Refused) as error:
                _logger.debug("node %s cannot be reached: %s", peer, error)
            except Exception as error:  # noqa: BLE001 - whatever it is, the next try may do better
                if self._seldom_warn.is_due():
                    _logger.warning("node %s cannot be dialled: %r", peer, error)
            await asyncio.sleep(self._settings.dial_retry_seconds)

    async def _dial(self, peer: str) -> None:
        async with asyncio.timeout(self._settings.dial_timeout_seconds) as patience, self._dialer.dial(peer) as stream:
            reader = await self._greeter.dial(stream, peer)
            patience.reschedule(None)
            await self._run(peer, stream, reader)

    def _session_of(self, peer: str) -> str | None:
        return self._sessions.get(peer)

    async def _run(self, peer: str, stream: ByteStream, reader: FrameReader) -> None:
        link = Link(peer, stream, self._services, self._settings)
        previous = self._running.get(peer)
        running = asyncio.create_task(self._follow(previous, link, reader), name=f"link with {peer}")
        self._running[peer] = running
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

    async def _follow(self, previous: asyncio.Task[None] | None, link: Link, reader: FrameReader) -> None:
        """Have a link take the place of the last one with its peer, and then carry frames.

        Not before: what the peer says first, such as what is polled there, is said once, and would be forgotten with
        all that was heard over the last link. A further stream that comes meanwhile, as when a node that was paused
        takes in all that were tried, ends this one.
        """
        if previous is not None:
            previous.cancel()
            await asyncio.gather(previous, return_exceptions=True)
        self._up[link.peer] = link
        self._watcher.linked(link)
        await link.run(reader)


class _Seldom:
    """Says when something that others bring about may be done again."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._due_at = 0.0

    def is_due(self) -> bool:
        """Return whether it may be done now; it is taken as done then."""
        now = asyncio.get_running_loop().time()
        if now < self._due_at:
            return False
        self._due_at = now + self._seconds
        return True


async def _ended(task: asyncio.Task[None]) -> None:
    await asyncio.gather(task, return_exceptions=True)
