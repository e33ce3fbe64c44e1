"""Listening: the port is taken at once, by one process, for addresses of both kinds."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from perdure.server.frontends.grpc.listener import listen


@pytest.fixture
def opened() -> Iterator[list[socket.socket]]:
    sockets: list[socket.socket] = []
    yield sockets
    for each in sockets:
        each.close()


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


async def test_a_free_port_is_taken(opened: list[socket.socket]) -> None:
    opened += await listen("127.0.0.1:0")
    (only,) = opened
    port = only.getsockname()[1]
    assert port > 0
    with socket.create_connection(("127.0.0.1", port), timeout=5):
        pass


async def test_a_taken_port_is_an_error_that_names_the_address(opened: list[socket.socket]) -> None:
    opened += await listen("127.0.0.1:0")
    address = f"127.0.0.1:{opened[0].getsockname()[1]}"
    with pytest.raises(OSError, match=f"^cannot listen on {address}: "):
        await listen(address)


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.1:http!", "127.0.0.1:99999", "no.such.host.invalid:1"])
async def test_what_is_no_address_is_an_error_that_names_it(address: str) -> None:
    with pytest.raises(OSError, match=r"^cannot listen on "):
        await listen(address)


@pytest.mark.skipif(not has_ipv6(), reason="there is no IPv6 here")
async def test_ipv6(opened: list[socket.socket]) -> None:
    opened += await listen("[::1]:0")
    with socket.create_connection(("::1", opened[0].getsockname()[1]), timeout=5):
        pass


@pytest.mark.skipif(not has_ipv6(), reason="there is no IPv6 here")
async def test_everything_is_both_kinds(opened: list[socket.socket]) -> None:
    opened += await listen("[::]:0")
    for host in ("127.0.0.1", "::1"):
        with socket.create_connection((host, opened[0].getsockname()[1]), timeout=5):
            pass


async def test_a_name_is_listened_on_at_all_its_addresses_with_one_port(opened: list[socket.socket]) -> None:
    opened += await listen("localhost:0")
    assert len({each.getsockname()[1] for each in opened}) == 1
    assert len({each.family for each in opened}) == len(opened)
