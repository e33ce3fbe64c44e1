"""Unary calls on one connection, in virtual time: requests, deadlines, and every way in which a call can end."""

from __future__ import annotations

import asyncio
import gc
import gzip

import pytest

from perdure.server.core.errors import NotFound
from perdure.server.engine.client_software import ClientSoftware
from perdure.server.frontends.grpc.call import GrpcCall
from perdure.server.frontends.grpc.http2 import frames
from perdure.server.frontends.grpc.http2.errors import ErrorCode
from perdure.server.frontends.grpc.http2.frames import Setting
from perdure.server.frontends.grpc.http2.limits import Http2Limits
from tests.server.frontends.grpc.connected import Connected, status_in
from tests.server.frontends.grpc.peer import call_headers, message, of_kind
from tests.virtual_time import in_virtual_time, settle


class Parked:
    """A handler that waits, and notes how it ends."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.began = 0
        self.cancelled = 0

    async def __call__(self, data: bytes, call: GrpcCall) -> bytes:
        self.began += 1
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return b"done"


# --- requests ---------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_call_is_answered_in_one_write() -> None:
    client = Connected()
    await client.hello()
    client.protocol.data_received(client.peer.call(1, b"a") + client.peer.call(3, b"b"))
    await settle()
    assert len(client.transport.written) == 1
    found = await client.frames()
    assert [frame.payload for frame in of_kind(found, frames.DATA)] == [message(b"a"), message(b"b")]
    assert [client.peer.fields(frame) for frame in of_kind(found, frames.HEADERS)] == [
        {":status": "200", "content-type": "application/grpc"},
        {"grpc-status": "0"},
    ] * 2


@in_virtual_time
async def test_a_request_may_come_in_any_number_of_parts() -> None:
    client = Connected()
    await client.hello()
    await client.give(client.peer.headers(1))
    for byte in message(b"hello"):
        await client.give(client.peer.data(1, bytes((byte,))))
    (answered,) = of_kind(await client.give(client.peer.data(1, b"", ends_stream=True)), frames.DATA)
    assert answered.payload == message(b"hello")
    assert client.protocol.unread_bytes == 0


@in_virtual_time
async def test_a_compressed_request_is_read() -> None:
    client = Connected()
    await client.hello()
    body = message(gzip.compress(b"hello"), is_compressed=True)
    found = await client.give(
        client.peer.headers(1, call_headers(grpc_encoding="gzip")) + client.peer.data(1, body, ends_stream=True)
    )
    assert of_kind(found, frames.DATA)[0].payload == message(b"hello")


@in_virtual_time
async def test_a_request_without_a_message_is_unimplemented() -> None:
    client = Connected()
    await client.hello()
    found = await client.give(client.peer.headers(1, ends_stream=True))
    assert status_in(found, client.peer)["grpc-status"] == "12"


@in_virtual_time
async def test_a_request_that_says_it_is_too_large_is_refused_before_it_arrives() -> None:
    client = Connected(message_size_max=100)
    await client.hello()
    found = await client.give(client.peer.headers(1) + client.peer.data(1, message(b"x" * 101)[:7]))
    assert status_in(found, client.peer)["grpc-message"] == "grpc: received message larger than max (101 vs. 100)"
    assert of_kind(found, frames.RST_STREAM)[0].number == ErrorCode.NO_ERROR
    assert await client.give(client.peer.data(1, b"x" * 50)) == []
    assert client.protocol.unread_bytes == 0


@in_virtual_time
async def test_a_request_that_goes_on_beyond_its_message_is_refused() -> None:
    client = Connected(message_size_max=100)
    await client.hello()
    found = await client.give(client.peer.headers(1) + client.peer.data(1, message(b"x") + b"x" * 120))
    assert status_in(found, client.peer)["grpc-status"] == "8"


@in_virtual_time
async def test_the_window_is_given_back_while_a_request_arrives() -> None:
    client = Connected(limits=Http2Limits(stream_window_bytes=100), message_size_max=1000)
    await client.hello()
    found = await client.give(client.peer.headers(1) + client.peer.data(1, message(b"x" * 500)[:60]))
    assert [(frame.kind, frame.number) for frame in found] == [(frames.WINDOW_UPDATE, 60)]


@in_virtual_time
async def test_what_is_not_complete_is_bounded() -> None:
    client = Connected(limits=Http2Limits(unread_bytes=150))
    await client.hello()
    assert await client.give(client.peer.headers(1) + client.peer.data(1, message(b"x" * 500)[:100])) == []
    found = await client.give(client.peer.headers(3) + client.peer.data(3, message(b"x" * 500)[:100]))
    assert status_in(found, client.peer)["grpc-status"] == "8"
    assert client.protocol.unread_bytes == 100


@in_virtual_time
async def test_a_path_that_nobody_serves_is_unimplemented() -> None:
    client = Connected()
    await client.hello()
    found = await client.give(client.peer.call(1, headers=call_headers("/no/such")))
    status = status_in(found, client.peer)
    assert (status["grpc-status"], status["grpc-message"]) == ("12", "there is no method /no/such")


@in_virtual_time
async def test_an_answer_fits_into_a_frame_however_long_the_path() -> None:
    client = Connected()
    await client.hello()
    found = await client.give(client.peer.call(1, headers=call_headers("/" + "ü" * 4_000)))
    assert max(len(frame.payload) for frame in found) < 8_192
    assert status_in(found, client.peer)["grpc-status"] == "12"


@in_virtual_time
async def test_what_is_no_grpc_is_415() -> None:
    client = Connected()
    await client.hello()
    found = await client.give(client.peer.call(1, headers=call_headers(content_type="text/plain")))
    assert status_in(found, client.peer) == {":status": "415"}


@in_virtual_time
async def test_calls_in_progress_are_bounded() -> None:
    parked = Parked()
    client = Connected(parked, calls_max=1)
    await client.hello()
    found = await client.give(client.peer.call(1) + client.peer.call(3))
    assert status_in(found, client.peer)["grpc-status"] == "8"
    found = await client.give(client.peer.reset(1) + client.peer.call(5))
    # The first handler still cleans up when the third call comes: a reset makes no room by itself.
    assert status_in(found, client.peer)["grpc-status"] == "8"
    assert await client.give(client.peer.call(7)) == []
    assert (parked.began, parked.cancelled) == (2, 1)


# --- how calls end ----------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_handlers_error_is_a_status() -> None:
    async def missing(data: bytes, call: GrpcCall) -> bytes:
        raise NotFound("It is not there.")

    client = Connected(missing)
    await client.hello()
    found = await client.give(client.peer.call(1))
    status = status_in(found, client.peer)
    assert (len(found), status["grpc-status"], status["grpc-message"]) == (1, "5", "It is not there.")


@in_virtual_time
async def test_a_deadline_ends_the_call_and_its_handler() -> None:
    parked = Parked()
    client = Connected(parked)
    await client.hello()
    assert await client.give(client.peer.call(1, headers=call_headers(grpc_timeout="5S"))) == []
    await asyncio.sleep(4.9)
    assert await client.frames() == []
    await asyncio.sleep(0.2)
    found = await client.frames()
    assert status_in(found, client.peer)["grpc-status"] == "4"
    assert parked.cancelled == 1
    assert len(client.service.calls) == 0


@in_virtual_time
async def test_a_deadline_holds_while_the_request_arrives() -> None:
    client = Connected()
    await client.hello()
    await client.give(client.peer.headers(1, call_headers(grpc_timeout="5S")))
    await asyncio.sleep(5.1)
    assert status_in(await client.frames(), client.peer)["grpc-status"] == "4"


@in_virtual_time
async def test_a_deadline_holds_while_the_answer_is_not_taken() -> None:
    client = Connected()
    await client.hello((Setting.INITIAL_WINDOW_SIZE, 0))
    found = await client.give(client.peer.call(1, b"answer", call_headers(grpc_timeout="5S")))
    assert [frame.kind for frame in found] == [frames.HEADERS]
    await asyncio.sleep(5.1)
    (reset,) = await client.frames()
    assert (reset.kind, reset.number) == (frames.RST_STREAM, ErrorCode.CANCEL)


@in_virtual_time
async def test_a_request_without_a_deadline_has_to_arrive_in_time() -> None:
    client = Connected(limits=Http2Limits(request_seconds=30))
    await client.hello()
    await client.give(client.peer.headers(1))
    await asyncio.sleep(30.1)
    assert status_in(await client.frames(), client.peer)["grpc-status"] == "4"


@in_virtual_time
async def test_a_call_without_a_deadline_may_take_for_ever() -> None:
    parked = Parked()
    client = Connected(parked, limits=Http2Limits(request_seconds=30, keepalive_seconds=100_000))
    await client.hello()
    await client.give(client.peer.call(1))
    await asyncio.sleep(50_000)
    parked.go_on.set()
    assert of_kind(await client.frames(), frames.DATA)[0].payload == message(b"done")


@in_virtual_time
async def test_a_reset_cancels_the_handler_and_nothing_is_sent() -> None:
    parked = Parked()
    client = Connected(parked)
    await client.hello()
    await client.give(client.peer.call(1))
    assert await client.give(client.peer.reset(1)) == []
    assert parked.cancelled == 1
    assert len(client.service.calls) == 0


@in_virtual_time
async def test_a_lost_connection_cancels_every_handler() -> None:
    parked = Parked()
    client = Connected(parked)
    await client.hello()
    await client.give(client.peer.call(1) + client.peer.call(3) + client.peer.headers(5))
    await client.lose()
    assert parked.cancelled == 2
    assert len(client.service.calls) == 0
    assert client.is_lost


@in_virtual_time
async def test_a_call_that_is_reset_with_its_request_never_begins() -> None:
    parked = Parked()
    client = Connected(parked)
    await client.hello()
    await client.give(client.peer.call(1) + client.peer.reset(1))
    assert parked.began == 0


@in_virtual_time
async def test_a_handler_that_was_cancelled_before_it_began_is_not_counted() -> None:
    parked = Parked()
    client = Connected(parked)
    await client.hello()
    client.protocol.data_received(client.peer.call(1))
    client.protocol.data_received(client.peer.reset(1))
    await settle()
    assert (parked.began, len(client.service.calls)) == (0, 0)


@in_virtual_time
async def test_a_handler_that_is_cancelled_by_something_else_is_unavailable() -> None:
    async def give_up(data: bytes, call: GrpcCall) -> bytes:
        raise asyncio.CancelledError

    client = Connected(give_up)
    await client.hello()
    assert status_in(await client.give(client.peer.call(1)), client.peer)["grpc-status"] == "14"


@in_virtual_time
async def test_an_answer_waits_for_the_peers_window() -> None:
    client = Connected()
    await client.hello((Setting.INITIAL_WINDOW_SIZE, 7))
    found = await client.give(client.peer.call(1, b"answer"))
    assert of_kind(found, frames.DATA)[0].payload == message(b"answer")[:7]
    found = await client.give(frames.window_update(1, 100))
    assert [frame.payload for frame in of_kind(found, frames.DATA)] == [message(b"answer")[7:]]
    assert found[-1].ends_stream


@in_virtual_time
async def test_a_call_leaves_no_circles_of_garbage_behind() -> None:
    async def missing(data: bytes, call: GrpcCall) -> bytes:
        raise NotFound("It is not there.")

    for answer in (None, missing):
        client = Connected(answer)
        await client.hello()
        await client.give(client.peer.call(1, headers=call_headers(grpc_timeout="5S")))
        while gc.collect():
            # What other tests have left may take several looks.
            pass
        gc.disable()
        try:
            for stream_id in range(3, 403, 2):
                await client.give(client.peer.call(stream_id, headers=call_headers(grpc_timeout="5S")))
            assert gc.collect() < 200, "less than one object a call"
        finally:
            gc.enable()


@pytest.mark.parametrize("headers", [{"grpc_timeout": "30S"}, {}])
def test_handlers_see_the_deadline_and_the_client(headers: dict[str, str]) -> None:
    seen: list[tuple[float | None, ClientSoftware]] = []

    async def look(data: bytes, call: GrpcCall) -> bytes:
        seen.append((call.deadline, call.client))
        return b""

    @in_virtual_time
    async def run() -> None:
        client = Connected(look)
        await client.hello()
        said = {"client_name": "c", "client_version": "1", "supported_features": "f,g"}
        await client.give(client.peer.call(1, headers=call_headers(**said, **headers)))

    run()
    assert seen == [(30.0 if headers else None, ClientSoftware("c", "1", "f,g"))]
