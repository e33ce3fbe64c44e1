"""Links as they are made: whatever happens to a stream before both ends know each other, nothing of it is left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import msgspec
import pytest

from perdure.server.core.errors import Unavailable
from perdure.server.core.shards import shard_of
from perdure.server.engine.cluster.frames import PROTOCOL, BadFrame, Cast, FrameReader, Hello, Proof, encode_frame
from perdure.server.engine.cluster.greeting import GREETING_BYTES_MAX, Greeter, Refused
from perdure.server.engine.cluster.links import Dialer
from perdure.server.engine.cluster.queues import POLLS, Announcement, Queue
from perdure.server.engine.cluster.services import Asked
from perdure.server.engine.cluster.stream import ByteStream
from perdure.server.engine.matching import QueueKey, QueueKind
from tests.server.engine.cluster.network import Network, WaitingStream
from tests.server.engine.cluster.nodes import town
from tests.server.engine.node import key_of
from tests.virtual_time import in_virtual_time, settle


class Cut(WaitingStream):
    """A stream that says something and then breaks."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = list(pieces)

    async def read(self) -> bytes | None:
        return self._pieces.pop(0) if self._pieces else None

    async def write(self, data: bytes) -> None:
        raise OSError("the other side is gone")


class Said(Cut):
    """A stream that says something and listens until it ends."""

    async def write(self, data: bytes) -> None:
        pass


class Open(Cut):
    """A stream that stays."""

    async def read(self) -> bytes | None:
        await asyncio.Event().wait()
        return None

    async def write(self, data: bytes) -> None:
        """Whatever is said."""


@in_virtual_time
async def test_of_streams_that_come_at_once_the_last_is_the_link() -> None:
    """A node that was paused finds all that another one has tried meanwhile."""
    async with town("a", "b") as nodes:
        links = nodes.nodes["a"].cluster.links
        streams = [Open() for _ in range(4)]
        running = [asyncio.create_task(links._run("b", stream, FrameReader())) for stream in streams]
        await settle()
        [link] = links.peers()
        assert link._stream is streams[-1]
        assert not link._is_down
        assert [task.done() for task in running] == [True, True, True, False]


class Telling(Open):
    """A stream that stays, and says something as soon as somebody listens."""

    async def carry(self, take: Callable[[bytes], None]) -> None:
        for piece in self._pieces:
            take(piece)
        await super().carry(take)


@in_virtual_time
async def test_what_a_peer_says_first_on_a_new_link_is_not_forgotten_with_the_old_one() -> None:
    """The peer has noticed before this node that the old link is broken, and says once what is polled there."""
    async with town("a", "b") as nodes:
        links, queues = nodes.nodes["a"].cluster.links, nodes.nodes["a"].cluster.queues
        [old] = links.peers()
        polls = Announcement(Queue("n", "q", int(QueueKind.WORKFLOW)), is_polled=True)
        stream = Telling(encode_frame(Cast(POLLS, msgspec.msgpack.encode(polls))))
        running = asyncio.create_task(links._run("b", stream, FrameReader()))
        await settle()
        [link] = links.peers()
        assert link is not old
        assert queues.polls(QueueKey("n", "q", QueueKind.WORKFLOW))
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@in_virtual_time
async def test_a_stream_that_breaks_during_the_greeting_is_given_up() -> None:
    async with town("a", "b") as nodes:
        a, _ = nodes.nodes.values()
        await a.cluster.accept(Cut(encode_frame(Hello("b", PROTOCOL, "test", "nonce"))))
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
        await a.cluster.accept(Cut(encode_frame(Hello("b", PROTOCOL, "test", "nonce"))))
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


# --- who may come in --------------------------------------------------------------------------------------------------


class Overheard(WaitingStream):
    """A stream that keeps what this side has said."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self.said = b""

    async def read(self) -> bytes | None:
        return await self._stream.read()

    async def write(self, data: bytes) -> None:
        self.said += data
        await self._stream.write(data)


def greeter(node: str, session: str, others: dict[str, str]) -> Greeter:
    return Greeter(node, "test", lambda: f"nonce of {node}", lambda: session, others.get)


async def greet(dialling: Greeter, dialled: Greeter) -> tuple[object, object, bytes]:
    """Let node a dial node b; return what became of it at each, and all that was said."""
    network, there = Network(), list[Overheard]()
    answered: asyncio.Future[object] = asyncio.get_running_loop().create_future()

    async def accept(stream: ByteStream) -> None:
        there.append(Overheard(stream))
        try:
            answered.set_result((await dialled.answer(there[0]))[0])
        except (Refused, BadFrame, OSError) as error:
            answered.set_result(error)

    network.listen("b", accept)
    result: object
    async with network.stream("a", "b") as stream:
        here = Overheard(stream)
        try:
            result = await dialling.dial(here, "b")
        except (Refused, BadFrame, OSError) as error:
            result = error
    return result, await answered, here.said + there[0].said


@in_virtual_time
async def test_both_prove_who_they_are_and_neither_tells_its_session() -> None:
    a = greeter("a", "secret of a", {"b": "secret of b"})
    b = greeter("b", "secret of b", {"a": "secret of a"})
    dialled, answered, said = await greet(a, b)
    assert isinstance(dialled, FrameReader)
    assert answered == "a"
    assert b"secret" not in said


@in_virtual_time
async def test_who_has_another_session_than_the_database_says_is_refused() -> None:
    a = greeter("a", "guessed", {"b": "secret of b"})
    b = greeter("b", "secret of b", {"a": "secret of a"})
    _, answered, _ = await greet(a, b)
    assert isinstance(answered, Refused)


@in_virtual_time
async def test_who_answers_at_the_address_of_a_member_proves_it_too() -> None:
    a = greeter("a", "secret of a", {"b": "secret of b"})
    b = greeter("b", "guessed", {"a": "secret of a"})
    dialled, _, _ = await greet(a, b)
    assert isinstance(dialled, Refused)


@in_virtual_time
async def test_a_proof_that_is_sent_back_proves_nothing() -> None:
    """Not even if both had the same session."""
    here, there = greeter("a", "same", {"b": "same"}), Hello("b", PROTOCOL, "test", "nonce")
    echo = encode_frame(here._proof(here._hello(), there))
    with pytest.raises(Refused):
        await here.dial(Said(encode_frame(there), echo), "b")


@in_virtual_time
async def test_what_is_said_before_the_proof_is_short() -> None:
    with pytest.raises(BadFrame, match="longer than any"):
        await greeter("a", "secret of a", {}).answer(Said((GREETING_BYTES_MAX + 1).to_bytes(4, "big")))


class Silent(WaitingStream):
    """A stream of somebody who says nothing, and is there."""

    async def read(self) -> bytes | None:
        await asyncio.Event().wait()
        return None

    async def write(self, data: bytes) -> None:
        pass


@in_virtual_time
async def test_streams_that_have_proved_nothing_are_bounded_in_number_and_time() -> None:
    async with town("a") as nodes:
        a, settings = nodes.nodes["a"], nodes.settings.cluster
        held = [asyncio.create_task(a.cluster.accept(Silent())) for _ in range(settings.unproven_links_max)]
        await settle()
        beyond = asyncio.create_task(a.cluster.accept(Silent()))
        await settle()
        assert beyond.done()
        assert not any(task.done() for task in held)
        await asyncio.sleep(2 * settings.dial_timeout_seconds)
        assert all(task.done() for task in held)


@in_virtual_time
async def test_strangers_have_the_members_read_once_in_a_while_only() -> None:
    async with town("a") as nodes:
        a, looks = nodes.nodes["a"], list[float]()
        a.cluster.links._look_soon = lambda: looks.append(asyncio.get_running_loop().time())
        for _ in range(100):
            hello, made_up = Hello("x", PROTOCOL, "test", "nonce"), Proof(b"made up")
            await a.cluster.accept(Said(encode_frame(hello), encode_frame(made_up)))
        assert len(looks) == 1


# --- dialling ---------------------------------------------------------------------------------------------------------


class Failing:
    """Dials an address that first cannot be read, then answers nothing, then is another node's."""

    def __init__(self, dialer: Dialer) -> None:
        self._dialer = dialer
        self.tries = 0

    @asynccontextmanager
    async def dial(self, address: str) -> AsyncIterator[ByteStream]:
        self.tries += 1
        if self.tries == 1:
            raise UnicodeError("label empty or too long")
        if self.tries == 2:
            await asyncio.Event().wait()
        async with self._dialer.dial(address) as stream:
            yield stream


@in_virtual_time
async def test_an_address_that_cannot_be_read_or_reached_in_time_is_dialled_again() -> None:
    async with town("a", "b") as nodes:
        links = nodes.nodes["a"].cluster.links
        links._dialer = failing = Failing(links._dialer)
        nodes.network.part("a", "b")
        nodes.network.join("a", "b")
        await asyncio.sleep(5)
        assert failing.tries == 3
        assert [link.peer for link in links.peers()] == ["b"]


@in_virtual_time
async def test_what_is_passed_on_ends_when_the_node_hangs_up() -> None:
    async with town("a", "b") as nodes:
        a, b = nodes.nodes.values()
        never = asyncio.Event()

        async def wait_for_ever(asked: Asked) -> bytes:
            await never.wait()
            return b""

        b.cluster.services.offer("wait", wait_for_ever)
        asked = asyncio.create_task(a.cluster.forwarding.ask_owner(shard_of(key_of(nodes.here(b))), "wait", b""))
        await settle()
        await a.cluster.hang_up()
        async with asyncio.timeout(1):
            with pytest.raises(Unavailable, match="stopping"):
                await asked
