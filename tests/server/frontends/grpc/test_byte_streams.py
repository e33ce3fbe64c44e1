"""Byte streams on one connection, in virtual time: messages both ways, flow control both ways, and their ends."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Awaitable, Callable

import pytest

from perdure.server.core.errors import NotFound
from perdure.server.frontends.grpc.byte_streams import STREAM_MESSAGE_BYTES_MAX, ByteStream
from perdure.server.frontends.grpc.http2 import frames
from perdure.server.frontends.grpc.http2.errors import ErrorCode
from perdure.server.frontends.grpc.http2.frames import Setting
from perdure.server.frontends.grpc.http2.limits import Http2Limits
from tests.server.frontends.grpc.connected import Connected, status_in
from tests.server.frontends.grpc.peer import call_headers, message, of_kind
from tests.virtual_time import in_virtual_time, settle

STREAM = "/test/Stream"


def connected(handler: Callable[[ByteStream], Awaitable[None]], **limits: int) -> Connected:
    return Connected(streams={STREAM: handler}, limits=Http2Limits(**limits))


async def echo(stream: ByteStream) -> None:
    while (data := await stream.read()) is not None:
        await stream.write(data)


class Reader:
    """A handler that reads as often as it is told."""

    def __init__(self) -> None:
        self.may_read = asyncio.Semaphore(0)
        self.messages: list[bytes | None] = []
        self.is_cancelled = False

    async def __call__(self, stream: ByteStream) -> None:
        try:
            while None not in self.messages:
                await self.may_read.acquire()
                self.messages.append(await stream.read())
        except asyncio.CancelledError:
            self.is_cancelled = True
            raise


@in_virtual_time
async def test_messages_go_both_ways() -> None:
    client = connected(echo)
    await client.hello()
    (head,) = await client.give(client.peer.headers(1, call_headers(STREAM)))
    assert client.peer.fields(head)[":status"] == "200"
    found = await client.give(client.peer.data(1, message(b"a") + message(b"b")[:3]))
    assert [frame.payload for frame in found] == [message(b"a")]
    found = await client.give(client.peer.data(1, message(b"b")[3:], ends_stream=True))
    assert found[0].payload == message(b"b")
    assert status_in(found, client.peer) == {"grpc-status": "0"}
    assert len(client.service.calls) == 0


@in_virtual_time
async def test_a_stream_may_end_with_its_head() -> None:
    client = connected(echo)
    await client.hello()
    found = await client.give(client.peer.headers(1, call_headers(STREAM), ends_stream=True))
    assert [frame.kind for frame in found] == [frames.HEADERS, frames.HEADERS]


@in_virtual_time
async def test_compressed_messages_are_read() -> None:
    client = connected(echo)
    await client.hello()
    await client.give(client.peer.headers(1, call_headers(STREAM, grpc_encoding="gzip")))
    (found,) = await client.give(client.peer.data(1, message(gzip.compress(b"hello"), is_compressed=True)))
    assert found.payload == message(b"hello")


@in_virtual_time
async def test_the_peer_may_send_on_when_what_it_sent_was_read() -> None:
    reader = Reader()
    client = connected(reader, stream_window_bytes=100)
    await client.hello()
    await client.give(client.peer.headers(1, call_headers(STREAM)))
    assert await client.give(client.peer.data(1, message(b"x" * 25) * 2)) == []
    assert client.protocol.unread_bytes == 60
    reader.may_read.release()
    assert await client.frames() == []
    reader.may_read.release()
    (update,) = await client.frames()
    assert (update.kind, update.number) == (frames.WINDOW_UPDATE, 60)
    assert client.protocol.unread_bytes == 0


@in_virtual_time
async def test_a_message_larger_than_the_window_arrives() -> None:
    reader = Reader()
    client = connected(reader, stream_window_bytes=100)
    await client.hello()
    await client.give(client.peer.headers(1, call_headers(STREAM)))
    reader.may_read.release()
    rest = message(b"x" * 1000)
    while rest:
        found = await client.give(client.peer.data(1, rest[:100]))
        assert len(rest) <= 100 or found[0].kind == frames.WINDOW_UPDATE
        rest = rest[100:]
    assert reader.messages == [b"x" * 1000]


@in_virtual_time
async def test_what_is_not_read_is_bounded() -> None:
    reader = Reader()
    client = connected(reader, unread_bytes=100)
    await client.hello()
    await client.give(client.peer.headers(1, call_headers(STREAM)))
    found = await client.give(client.peer.data(1, message(b"x" * 90)) + client.peer.data(1, message(b"x" * 10)))
    assert client.peer.fields(found[0])["grpc-status"] == "8"
    assert reader.is_cancelled
    assert client.protocol.unread_bytes == 0


@in_virtual_time
async def test_a_message_has_a_largest_size() -> None:
    client = connected(echo)
    await client.hello()
    await client.give(client.peer.headers(1, call_headers(STREAM)))
    too_large = b"\0" + (STREAM_MESSAGE_BYTES_MAX + 1).to_bytes(4, "big")
    found = await client.give(client.peer.data(1, too_large))
    assert client.peer.fields(found[0])["grpc-status"] == "8"
    assert len(client.service.calls) == 0


@in_virtual_time
async def test_a_write_waits_for_the_peers_window() -> None:
    written: list[int] = []

    async def count(stream: ByteStream) -> None:
        for number in range(3):
            await stream.write(b"x" * 95)
            written.append(number)

    client = connected(count)
    await client.hello((Setting.INITIAL_WINDOW_SIZE, 150))
    await client.give(client.peer.headers(1, call_headers(STREAM)))
    assert written == [0]
    await client.give(frames.window_update(1, 49))
    assert written == [0]
    await client.give(frames.window_update(1, 1))
    assert written == [0, 1]
    found = await client.give(frames.window_update(1, 100))
    assert written == [0, 1, 2]
    assert of_kind(found, frames.HEADERS)[-1].ends_stream


@in_virtual_time
async def test_a_write_waits_for_the_transport() -> None:
    client = connected(echo)
    await client.hello()
    await client.give(client.peer.headers(1, call_headers(STREAM)))
    client.protocol.pause_writing()
    assert await client.give(client.peer.data(1, message(b"a"))) == []
    client.protocol.resume_writing()
    (found,) = await client.frames()
    assert found.payload == message(b"a")


@in_virtual_time
async def test_an_error_of_the_handler_ends_the_stream_with_its_status() -> None:
    async def fail(stream: ByteStream) -> None:
        await stream.read()
        raise NotFound("It is not there.")

    client = connected(fail)
    await client.hello()
    await client.give(client.peer.headers(1, call_headers(STREAM)))
    found = await client.give(client.peer.data(1, message(b"a")))
    assert client.peer.fields(found[0])["grpc-message"] == "It is not there."
    assert (found[1].kind, found[1].number) == (frames.RST_STREAM, ErrorCode.NO_ERROR)


@pytest.mark.parametrize("how", ["reset", "lost"])
def test_a_peer_that_goes_away_cancels_the_handler(how: str) -> None:
    @in_virtual_time
    async def run() -> None:
        reader = Reader()
        client = connected(reader)
        await client.hello()
        await client.give(client.peer.headers(1, call_headers(STREAM)) + client.peer.data(1, message(b"unread")))
        if how == "reset":
            await client.give(client.peer.reset(1))
        else:
            await client.lose()
        assert reader.is_cancelled
        assert client.protocol.unread_bytes == 0
        assert len(client.service.calls) == 0

    run()


@in_virtual_time
async def test_somebody_else_who_writes_learns_that_the_stream_is_over() -> None:
    streams: list[ByteStream] = []

    async def lend(stream: ByteStream) -> None:
        streams.append(stream)
        await asyncio.Event().wait()

    client = connected(lend)
    await client.hello((Setting.INITIAL_WINDOW_SIZE, 0))
    await client.give(client.peer.headers(1, call_headers(STREAM)))
    waiting = asyncio.create_task(streams[0].write(b"never taken"))
    await settle()
    await client.give(client.peer.reset(1))
    with pytest.raises(ConnectionResetError):
        await waiting
    with pytest.raises(ConnectionResetError):
        await streams[0].write(b"late")


@in_virtual_time
async def test_a_read_that_is_given_up_loses_nothing() -> None:
    found: list[bytes | None] = []

    async def impatient(stream: ByteStream) -> None:
        while not found:
            try:
                found.append(await asyncio.wait_for(stream.read(), 1))
            except TimeoutError:
                pass

    client = connected(impatient)
    await client.hello()
    await client.give(client.peer.headers(1, call_headers(STREAM)))
    await asyncio.sleep(5.5)
    await client.give(client.peer.data(1, message(b"late")))
    assert found == [b"late"]


@in_virtual_time
async def test_a_deadline_ends_a_stream() -> None:
    reader = Reader()
    client = connected(reader)
    await client.hello()
    await client.give(client.peer.headers(1, call_headers(STREAM, grpc_timeout="5S")))
    await asyncio.sleep(5.1)
    found = await client.frames()
    assert client.peer.fields(found[0])["grpc-status"] == "4"
    assert reader.is_cancelled


@in_virtual_time
async def test_streams_count_as_calls_in_progress() -> None:
    client = Connected(streams={STREAM: echo}, calls_max=1)
    await client.hello()
    found = await client.give(
        client.peer.headers(1, call_headers(STREAM)) + client.peer.headers(3, call_headers(STREAM))
    )
    first, second = of_kind(found, frames.HEADERS)
    assert (first.stream_id, first.ends_stream) == (1, False)
    assert second.ends_stream
    assert (client.peer.fields(first), client.peer.fields(second)["grpc-status"])[1] == "8"
