"""Streams between nodes on the gRPC port: told from clients by their first bytes, whole in both directions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2

from perdure.server.engine.cluster.stream import ByteStream
from perdure.server.frontends.grpc.frontend import GrpcFrontend
from perdure.server.frontends.grpc.http2.limits import Http2Limits
from perdure.server.frontends.links import PREFACE, AcceptLink, TcpDialer
from perdure.server.handlers.dispatch import Dispatcher
from tests.server.frontends.grpc.test_frontend import server_with

MIB = 1024 * 1024


@asynccontextmanager
async def serving(
    accept: AcceptLink, limits: Http2Limits | None = None, *, connections_max: int = 10, doormen_max: int = 10
) -> AsyncIterator[str]:
    """A front end that takes in links; its address."""
    frontend = GrpcFrontend(
        [], address="127.0.0.1:0", limits=limits, connections_max=connections_max, doormen_max=doormen_max
    )
    port = await frontend.bind()
    await frontend.start(Dispatcher(server_with(), []), accept)
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await frontend.stop(0)


async def echo(stream: ByteStream) -> None:
    while (data := await stream.read()) is not None:
        await stream.write(data)


async def read_exactly(stream: ByteStream, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = await stream.read()
        assert piece is not None, "the stream ended early"
        data += piece
    return data


async def test_what_goes_in_comes_out() -> None:
    async with serving(echo) as address, TcpDialer().dial(address) as stream:
        await stream.write(b"hello")
        assert await read_exactly(stream, 5) == b"hello"


async def test_a_reader_that_is_slow_holds_the_writer_up_and_loses_nothing() -> None:
    go_on = asyncio.Event()
    received = asyncio.get_running_loop().create_future()

    async def read_late(stream: ByteStream) -> None:
        await go_on.wait()
        received.set_result(await read_exactly(stream, 64 * MIB))

    async with serving(read_late) as address, TcpDialer().dial(address) as stream:
        writing = asyncio.create_task(write_all(stream, 64))
        done, _ = await asyncio.wait({writing}, timeout=0.2)
        assert not done, "64 MiB do not fit into what the two ends and the system hold"
        go_on.set()
        await writing
        assert await received == bytes(64 * MIB)


async def write_all(stream: ByteStream, mebibytes: int) -> None:
    for _ in range(mebibytes):
        await stream.write(bytes(MIB))


async def test_what_is_carried_comes_whole_and_in_order_until_the_end() -> None:
    """Also what has come before it is carried."""
    got = bytearray()
    half_is_sent, ended = asyncio.Event(), asyncio.Event()

    async def carry(stream: ByteStream) -> None:
        got.extend(await read_exactly(stream, 1))
        await half_is_sent.wait()
        await stream.carry(got.extend)
        ended.set()

    sent = b"".join(number.to_bytes(4, "big") for number in range(100_000))
    async with serving(carry) as address:
        async with TcpDialer().dial(address) as stream:
            for start in range(0, len(sent), 1000):
                if start == len(sent) // 2:
                    half_is_sent.set()
                if not stream.send(sent[start : start + 1000]):
                    await stream.write(sent[start : start + 1000])
        await asyncio.wait_for(ended.wait(), 5)
    assert got == sent


async def test_what_cannot_be_taken_in_is_raised_where_it_is_carried_and_nothing_is_taken_after_it() -> None:
    taken: list[bytes] = []
    raised = asyncio.get_running_loop().create_future()

    def refuse(data: bytes) -> None:
        taken.append(data)
        raise ValueError(data)

    async def carry(stream: ByteStream) -> None:
        try:
            await stream.carry(refuse)
        except ValueError as error:
            await stream.write(b"stop")
            assert await stream.read() == b"more"
            raised.set_result(error.args)

    async with serving(carry) as address, TcpDialer().dial(address) as stream:
        await stream.write(b"nonsense")
        assert await read_exactly(stream, 4) == b"stop"
        await stream.write(b"more")
        assert await asyncio.wait_for(raised, 5) == (b"nonsense",)
        assert taken == [b"nonsense"]


async def test_to_who_reads_nothing_not_everything_is_sent_at_once() -> None:
    go_on = asyncio.Event()

    async def read_late(stream: ByteStream) -> None:
        await go_on.wait()

    async with serving(read_late) as address, TcpDialer().dial(address) as stream:
        assert stream.send(b"x")
        while stream.send(bytes(MIB)):
            await asyncio.sleep(0)
        go_on.set()


async def test_nothing_is_sent_over_a_stream_that_has_ended() -> None:
    async with serving(echo) as address:
        async with TcpDialer().dial(address) as stream:
            pass
        await asyncio.wait_for(stream.carry(bytearray().extend), 5)
        assert not stream.send(b"late")


async def test_a_client_is_served_beside_links() -> None:
    async with serving(echo) as address, grpc.aio.insecure_channel(address) as channel:
        check: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/grpc.health.v1.Health/Check")
        reply = health_pb2.HealthCheckResponse.FromString(await check(b""))
        assert reply.status == health_pb2.HealthCheckResponse.SERVING


async def test_the_first_bytes_may_come_one_by_one() -> None:
    async with serving(echo) as address:
        host, port = address.split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        for byte in PREFACE + b"x":
            writer.write(bytes((byte,)))
            await writer.drain()
            await asyncio.sleep(0)
        assert await reader.readexactly(1) == b"x"
        writer.close()


async def test_who_says_nothing_is_not_waited_for() -> None:
    async with serving(echo, Http2Limits(handshake_seconds=0.05)) as address:
        host, port = address.split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        with pytest.raises(ConnectionResetError):
            assert await reader.read() == b""
            raise ConnectionResetError
        writer.close()


async def test_a_stream_ends_for_both_when_one_ends_it() -> None:
    ended = asyncio.Event()

    async def until_the_end(stream: ByteStream) -> None:
        while await stream.read() is not None:
            pass
        ended.set()

    async with serving(until_the_end) as address:
        async with TcpDialer().dial(address) as stream:
            await stream.write(b"bye")
        await asyncio.wait_for(ended.wait(), 5)
        with pytest.raises(OSError, match="closed"):
            await stream.write(b"late")


async def test_nobody_listens_is_an_error_of_the_system() -> None:
    async with serving(echo) as address:
        pass
    with pytest.raises(OSError):
        async with TcpDialer().dial(address):
            pass


async def test_a_flood_of_clients_keeps_no_other_node_out() -> None:
    async with serving(echo, connections_max=1) as address:
        host, port = address.split(":")
        clients = [await asyncio.open_connection(host, int(port)) for _ in range(3)]
        said = []
        for reader, writer in clients:
            writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            said.append(await reader.read(4096))
        assert [b"too many connections" in each for each in said] == [False, True, True]
        async with TcpDialer().dial(address) as stream:
            await stream.write(b"hello")
            assert await read_exactly(stream, 5) == b"hello"
        for _, writer in clients:
            writer.close()


async def test_of_too_many_that_say_nothing_the_eldest_goes() -> None:
    async with serving(echo, doormen_max=2) as address:
        host, port = address.split(":")
        silent = [await asyncio.open_connection(host, int(port)) for _ in range(2)]
        async with TcpDialer().dial(address) as stream:
            await stream.write(b"hello")
            assert await read_exactly(stream, 5) == b"hello"
        with pytest.raises(ConnectionResetError):
            assert await silent[0][0].read() == b""
            raise ConnectionResetError
        assert not silent[1][0].at_eof()
        for _, writer in silent:
            writer.close()
