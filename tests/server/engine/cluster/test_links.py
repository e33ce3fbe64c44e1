"""Links as they are made: whatever happens to a stream before both ends know each other, nothing of it is left."""

from __future__ import annotations

import asyncio

from perdure.server.engine.cluster.frames import PROTOCOL, Hello, encode_frame
from tests.server.engine.cluster.nodes import town
from tests.virtual_time import in_virtual_time


class Cut:
    """A stream that says something and then breaks."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = list(pieces)

    async def read(self) -> bytes | None:
        return self._pieces.pop(0) if self._pieces else None

    async def write(self, data: bytes) -> None:
        raise OSError("the other side is gone")


@in_virtual_time
async def test_a_stream_that_breaks_during_the_greeting_is_given_up() -> None:
    async with town("a", "b") as nodes:
        a, b = nodes.nodes.values()
        session = b.cluster.membership.session
        await a.cluster.accept(Cut(encode_frame(Hello("b", session, PROTOCOL, "test"))))
        assert [link.peer for link in a.cluster.links.peers()] == ["b"]


@in_virtual_time
async def test_a_stream_of_bytes_that_mean_nothing_is_given_up() -> None:
    async with town("a") as nodes:
        await nodes.nodes["a"].cluster.accept(Cut(b"\x00\x00\x00\x01\xc1"))


@in_virtual_time
async def test_a_stream_of_a_stranger_is_given_up_while_the_database_is_away() -> None:
    """Whether he is a member cannot be looked up; he dials again."""
    async with town("a") as nodes:
        a = nodes.nodes["a"]
        a.store.is_cut = True
        await a.cluster.accept(Cut(encode_frame(Hello("b", "session of b", PROTOCOL, "test"))))
        assert not a.cluster.links.peers()


@in_virtual_time
async def test_namespaces_are_read_anew_with_each_link_once_the_database_is_back() -> None:
    async with town("a", "b") as nodes:
        a, b = nodes.nodes.values()
        a.store.is_cut = True
        nodes.network.part("a", "b")
        nodes.network.join("a", "b")
        record = await b.engine.namespaces.register("later", retention_seconds=86_400)
        await asyncio.sleep(1)
        assert [link.peer for link in a.cluster.links.peers()] == ["b"]
        a.store.is_cut = False
        await asyncio.sleep(2)
        assert a.engine.namespaces.resolve("later") == record
