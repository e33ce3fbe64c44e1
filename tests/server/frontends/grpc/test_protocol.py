"""A connection's own affairs, in virtual time: handshake, keepalive, a transport that is full, and the end."""

from __future__ import annotations

import asyncio
import logging

import pytest

from perdure.server.frontends.grpc.call import GrpcCall
from perdure.server.frontends.grpc.codes import StatusCode
from perdure.server.frontends.grpc.http2 import frames
from perdure.server.frontends.grpc.http2.errors import ErrorCode
from perdure.server.frontends.grpc.http2.frames import Setting
from perdure.server.frontends.grpc.http2.limits import Http2Limits
from perdure.server.frontends.grpc.protocol import CLOSE_PATIENCE_SECONDS, GOAWAY_PATIENCE_SECONDS
from perdure.server.frontends.grpc.status import CallStatus
from tests.server.frontends.grpc.connected import Connected, status_in
from tests.server.frontends.grpc.peer import Frame, goaway_code, last_stream_id, of_kind
from tests.virtual_time import in_virtual_time, settle

LIMITS = Http2Limits(handshake_seconds=10, keepalive_seconds=60, keepalive_answer_seconds=10, stalled_seconds=60)


async def never(data: bytes, call: GrpcCall) -> bytes:
    await asyncio.Event().wait()
    return b""


def the_ping(found: list[Frame]) -> bytes:
    (ping,) = of_kind(found, frames.PING)
    assert not ping.flags & frames.ACK
    return frames.ping(ping.payload, is_answer=True)


# --- the handshake ----------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_connection_that_says_nothing_is_closed() -> None:
    client = Connected(limits=LIMITS)
    await client.give(frames.PREFACE[:10])
    await asyncio.sleep(9.9)
    was_lost = client.is_lost
    await asyncio.sleep(0.2)
    assert (was_lost, client.is_lost) == (False, True)


@in_virtual_time
async def test_a_handshake_that_trickles_in_is_closed_too() -> None:
    client = Connected(limits=LIMITS)
    for byte in client.peer.hello()[:20]:
        await client.give(bytes((byte,)))
        await asyncio.sleep(0.6)
        if client.transport.is_closed:
            break
    assert asyncio.get_running_loop().time() == pytest.approx(10, abs=0.7)


@in_virtual_time
async def test_what_is_not_http2_is_told_so_and_closed() -> None:
    client = Connected(limits=LIMITS)
    found = await client.give(b"GET / HTTP/1.1\r\n\r\n")
    assert goaway_code(found) is ErrorCode.PROTOCOL_ERROR
    assert client.transport.is_closed


@in_virtual_time
async def test_one_connection_too_many_is_told_so_and_closed() -> None:
    client = Connected(unwelcome="too many connections")
    assert goaway_code(await client.frames()) is ErrorCode.ENHANCE_YOUR_CALM
    assert client.is_lost


# --- keepalive --------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_silent_peer_is_asked_and_stays_when_it_answers() -> None:
    client = Connected(limits=LIMITS)
    await client.hello()
    await client.frames()
    for _ in range(5):
        await asyncio.sleep(65)
        await client.give(the_ping(await client.frames()))
    assert not client.transport.is_closed


@in_virtual_time
async def test_a_peer_that_does_not_answer_is_cut_within_seventy_seconds() -> None:
    client = Connected(never, limits=LIMITS)
    await client.hello()
    await client.give(client.peer.call(1))
    began = asyncio.get_running_loop().time()
    while not client.is_lost:
        await asyncio.sleep(1)
    assert asyncio.get_running_loop().time() - began <= 71
    await settle()
    assert len(client.service.calls) == 0


@in_virtual_time
async def test_a_peer_that_sends_is_not_asked() -> None:
    client = Connected(limits=LIMITS)
    await client.hello()
    for stream_id in range(1, 41, 2):
        assert of_kind(await client.give(client.peer.call(stream_id)), frames.PING) == []
        await asyncio.sleep(50)
    assert not client.transport.is_closed


# --- a peer that does not read ----------------------------------------------------------------------------------------


@in_virtual_time
async def test_data_waits_while_the_transport_is_full() -> None:
    client = Connected()
    await client.hello()
    client.protocol.pause_writing()
    found = await client.give(client.peer.call(1, b"a"))
    assert of_kind(found, frames.DATA) == []
    client.protocol.resume_writing()
    found = await client.frames()
    assert len(of_kind(found, frames.DATA)) == 1
    assert found[-1].ends_stream


@in_virtual_time
async def test_a_large_answer_is_written_in_parts() -> None:
    async def large(data: bytes, call: GrpcCall) -> bytes:
        return b"x" * 5_000_000

    client = Connected(large)
    await client.hello((Setting.INITIAL_WINDOW_SIZE, frames.WINDOW_MAX))
    client.protocol.data_received(frames.window_update(0, 1 << 30) + client.peer.call(1))
    await settle()
    assert len(client.transport.written) > 5
    assert max(map(len, client.transport.written)) < 1_000_000
    data = of_kind(await client.frames(), frames.DATA)
    assert sum(len(frame.payload) for frame in data) == 5_000_005


@in_virtual_time
async def test_a_peer_that_lets_too_much_wait_is_cut(caplog: pytest.LogCaptureFixture) -> None:
    client = Connected(limits=Http2Limits(unsent_bytes=500))
    await client.hello((Setting.INITIAL_WINDOW_SIZE, 0))
    with caplog.at_level(logging.WARNING):
        for stream_id in (1, 3, 5, 7):
            if not client.is_lost:
                await client.give(client.peer.call(stream_id, b"x" * 200))
    assert client.is_lost
    assert "bytes wait to be taken" in caplog.text


@in_virtual_time
async def test_a_peer_that_asks_and_never_reads_is_cut(caplog: pytest.LogCaptureFixture) -> None:
    client = Connected(limits=Http2Limits(unsent_bytes=500))
    await client.hello()
    client.transport.unread = 501
    with caplog.at_level(logging.WARNING):
        await client.give(frames.ping(b"12345678", is_answer=False))
    assert client.transport.was_aborted
    assert "the peer reads nothing" in caplog.text


@in_virtual_time
async def test_a_peer_that_takes_nothing_for_long_is_cut(caplog: pytest.LogCaptureFixture) -> None:
    client = Connected(limits=LIMITS)
    await client.hello((Setting.INITIAL_WINDOW_SIZE, 0))
    await client.give(client.peer.call(1, b"x"))
    began = asyncio.get_running_loop().time()
    with caplog.at_level(logging.WARNING):
        while not client.is_lost:
            await asyncio.sleep(10)
            if not client.is_lost:
                await client.give(frames.ping(b"12345678", is_answer=False))
    assert asyncio.get_running_loop().time() - began <= 60 + 60 + 60
    assert "takes nothing" in caplog.text


@in_virtual_time
async def test_a_peer_that_takes_little_by_little_stays() -> None:
    client = Connected(limits=LIMITS)
    await client.hello((Setting.INITIAL_WINDOW_SIZE, 0))
    await client.give(client.peer.call(1, b"x" * 100))
    for _ in range(20):
        await asyncio.sleep(50)
        assert len(await client.give(frames.window_update(1, 1))) == 1
    assert not client.transport.is_closed


# --- the end ----------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_fault_of_the_peer_closes_the_connection_and_cancels_its_calls(
    caplog: pytest.LogCaptureFixture,
) -> None:
    client = Connected(never)
    await client.hello()
    await client.give(client.peer.call(1))
    with caplog.at_level(logging.INFO):
        found = await client.give(frames.frame(frames.PING, 0, 1, b"12345678"))
    assert goaway_code(found) is ErrorCode.PROTOCOL_ERROR
    assert "PING on stream 1" in caplog.text
    assert client.is_lost
    assert len(client.service.calls) == 0


@in_virtual_time
async def test_an_idle_connection_ends_when_its_peer_knows() -> None:
    client = Connected()
    await client.hello()
    client.protocol.go_away()
    found = await client.frames()
    assert last_stream_id(found) == frames.WINDOW_MAX
    found = await client.give(the_ping(found))
    assert (last_stream_id(found), goaway_code(found)) == (0, ErrorCode.NO_ERROR)
    assert client.is_lost


@in_virtual_time
async def test_calls_in_progress_end_before_the_connection() -> None:
    go_on = asyncio.Event()

    async def wait(data: bytes, call: GrpcCall) -> bytes:
        await go_on.wait()
        return data

    client = Connected(wait)
    await client.hello()
    await client.give(client.peer.call(1))
    client.protocol.go_away()
    ping = the_ping(await client.frames())
    # What was sent before the peer knew is served, what comes later is not.
    found = await client.give(client.peer.call(3) + ping)
    assert last_stream_id(found) == 3
    assert await client.give(client.peer.call(5)) == []
    assert not client.transport.is_closed
    go_on.set()
    found = await client.frames()
    assert {frame.stream_id for frame in of_kind(found, frames.DATA)} == {1, 3}
    assert client.is_lost


@in_virtual_time
async def test_a_call_that_is_given_up_lets_the_connection_end() -> None:
    client = Connected(never)
    await client.hello()
    await client.give(client.peer.call(1))
    client.protocol.go_away()
    await client.give(the_ping(await client.frames()))
    await client.give(client.peer.reset(1))
    assert client.is_lost


@in_virtual_time
async def test_a_peer_that_does_not_answer_is_told_the_end_all_the_same() -> None:
    client = Connected()
    await client.hello()
    client.protocol.go_away()
    await asyncio.sleep(GOAWAY_PATIENCE_SECONDS + 0.1)
    assert client.is_lost


@in_virtual_time
async def test_calls_that_are_given_up_are_unavailable() -> None:
    client = Connected(never)
    await client.hello()
    await client.give(client.peer.call(1))
    client.protocol.go_away()
    client.protocol.give_up(CallStatus(StatusCode.UNAVAILABLE, "the server stops", b""))
    found = await client.frames()
    assert status_in(found, client.peer)["grpc-status"] == "14"
    assert client.is_lost
    assert len(client.service.calls) == 0


@in_virtual_time
async def test_a_peer_that_never_reads_the_end_is_cut() -> None:
    client = Connected()
    await client.hello()
    client.transport.unread = 100
    await client.give(b"\xff" * 100)
    assert not client.is_lost
    await asyncio.sleep(CLOSE_PATIENCE_SECONDS + 0.1)
    assert client.transport.was_aborted
    assert client.is_lost
