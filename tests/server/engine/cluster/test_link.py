"""A stream between two nodes, frame by frame: no answer is lost, whenever its caller goes away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from perdure.server.core.errors import Unavailable
from perdure.server.engine.cluster.errors import LinkDown
from perdure.server.engine.cluster.frames import Call, Cancel, Cast, FrameReader, Moved, Reply, encode_frame
from perdure.server.engine.cluster.link import Link
from perdure.server.engine.cluster.settings import ClusterSettings
from perdure.server.engine.cluster.stream import ByteStream
from perdure.server.store.interface import StoreUnavailable
from tests.server.engine.cluster.network import Network, WaitingStream
from tests.virtual_time import in_virtual_time, settle


class Asked:
    """The services of one end: they answer when a test lets them."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.answered = asyncio.Event()
        self.fault: Exception | None = None

    async def answer(self, peer: str, call: Call) -> bytes:
        self.calls.append(call)
        await self.answered.wait()
        if self.fault is not None:
            raise self.fault
        return b"answer"

    def news(self, peer: str, cast: Cast) -> None:
        raise AssertionError("nothing is told")


class Pair:
    """Both ends of a stream, and what was done with answers that came too late."""

    def __init__(self, near: Link, far: Link, services: Asked) -> None:
        self.near = near
        self.far = far
        self.services = services
        self.late: list[bytes] = []

    async def call(self) -> asyncio.Task[bytes]:
        """Begin a call; it is on its way when this returns."""
        late = self.late
        call = asyncio.create_task(self.near.call("s", b"", late=lambda _, answer: late.append(answer)))
        await settle()
        return call

    def holds_nothing(self) -> bool:
        return not (self.near._waiting or self.near._late or self.far._serving)


@asynccontextmanager
async def linked() -> AsyncIterator[Pair]:
    network, services, settings = Network(), Asked(), ClusterSettings()
    ends: list[Link] = []

    async def accept(stream: ByteStream) -> None:
        ends.append(Link("near", stream, services, settings))
        await ends[0].run(FrameReader())

    network.listen("far", accept)
    async with network.dialer("near").dial("far") as stream:
        near = Link("far", stream, services, settings)
        running = asyncio.create_task(near.run(FrameReader()))
        await settle()
        yield Pair(near, ends[0], services)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@asynccontextmanager
async def network_stream(network: Network) -> AsyncIterator[tuple[ByteStream, ByteStream]]:
    ends: list[ByteStream] = []
    until_closed = asyncio.Event()

    async def accept(stream: ByteStream) -> None:
        ends.append(stream)
        await until_closed.wait()

    network.listen("far", accept)
    async with network.dialer("near").dial("far") as near:
        await settle()
        yield near, ends[0]
        until_closed.set()


@in_virtual_time
async def test_an_answer_on_its_way_to_a_caller_that_goes_is_handed_to_who_undoes_it() -> None:
    async with linked() as pair:
        call = await pair.call()
        call.cancel()
        pair.services.answered.set()
        await settle()
        assert call.cancelled()
        assert pair.holds_nothing()


@in_virtual_time
async def test_an_answer_in_the_turn_of_the_cancellation_is_handed_to_who_undoes_it() -> None:
    """The caller is cancelled, and has not noticed yet when the answer is taken in."""
    async with linked() as pair:
        call = await pair.call()
        number = pair.services.calls[0].number
        call.cancel()
        pair.near._take(Reply(number, b"answer"))
        await settle()
        assert call.cancelled()
        assert pair.late == [b"answer"]
        assert not pair.near._late


@in_virtual_time
async def test_a_refusal_in_the_turn_of_the_cancellation_leaves_nothing_behind() -> None:
    """No other answer will come for which something could be kept."""
    async with linked() as pair:
        call = await pair.call()
        pair.near._take(Moved(pair.services.calls[0].number, 7))
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        assert pair.late == []
        assert not pair.near._late


@in_virtual_time
async def test_a_call_that_is_cancelled_before_it_is_begun_is_answered() -> None:
    """Both came in one piece; who asked keeps what undoes the answer until there is one."""
    async with linked() as pair:
        pair.near._late[99] = lambda _, answer: None
        pair.far._take(Call(99, "s", b"", None))
        pair.far._take(Cancel(99))
        await settle()
        assert pair.services.calls == []
        assert pair.holds_nothing()


def fail(link: Link, answer: bytes) -> None:
    raise ValueError("what was handed out cannot be read")


@in_virtual_time
async def test_news_and_answers_that_cannot_be_taken_in_leave_the_link_up() -> None:
    async with linked() as pair:
        pair.near.cast("unheard of", b"")
        pair.near._late[99] = fail
        pair.near._take(Reply(99, b"answer"))
        call = await pair.call()
        pair.services.answered.set()
        assert await call == b"answer"


@in_virtual_time
async def test_what_fails_at_the_other_node_may_be_tried_again() -> None:
    for fault, message in ((StoreUnavailable("it is away"), "it is away"), (ValueError("x"), "the other node met an")):
        async with linked() as pair:
            call = await pair.call()
            pair.services.fault = fault
            pair.services.answered.set()
            with pytest.raises(Unavailable, match=message):
                await call


class Slow(WaitingStream):
    """A stream over which nothing goes until a test lets it."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self.go_on = asyncio.Event()

    async def read(self) -> bytes | None:
        return await self._stream.read()

    async def write(self, data: bytes) -> None:
        await self.go_on.wait()
        await self._stream.write(data)


@in_virtual_time
async def test_bytes_count_until_they_are_written() -> None:
    async with linked() as pair:
        pair.near._stream = slow = Slow(pair.near._stream)
        pair.near.tell("s", bytes(ClusterSettings().link_bytes_max))
        await settle()
        with pytest.raises(LinkDown):
            await pair.near.call("s", b"")
        slow.go_on.set()
        await settle()
        assert pair.near._outgoing_bytes == 0


@in_virtual_time
async def test_what_arrives_behind_the_end_of_a_link_is_not_begun() -> None:
    """Nobody could be told how it went."""
    network, services = Network(), Asked()
    async with network_stream(network) as (near, far):
        link = Link("near", far, services, ClusterSettings())
        running = asyncio.create_task(link.run(FrameReader()))
        await settle()
        near.send(encode_frame(Call(1, "s", b"", None)))
        link._end()
        await settle()
        assert services.calls == []
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
