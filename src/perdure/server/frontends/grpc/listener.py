"""Sockets that listen. Bound before anything is served, so that the port is known and nobody else can take it."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Final

BACKLOG: Final = 1024
"""Connections that wait to be accepted."""


async def listen(address: str) -> list[socket.socket]:
    """Return a listening socket for each address a name has; all have the same port.

    Args:
        address: `host:port`, `[ipv6]:port`; port 0 takes a free one.

    Raises:
        OSError: It cannot be listened on; the message says so.
    """
    sockets: list[socket.socket] = []
    try:
        host, port = _split(address)
        # With SO_REUSEPORT, which is not set, a second server could take the same port and half of the calls.
        for family, host_address in await _resolved(host):
            sockets.append(_listening(family, host_address, port))
            port = sockets[0].getsockname()[1]
    except (OSError, ValueError, OverflowError) as error:
        for opened in sockets:
            opened.close()
        raise OSError(f"cannot listen on {address}: {error}") from error
    return sockets


def _split(address: str) -> tuple[str, int]:
    host, colon, port = address.rpartition(":")
    if not colon:
        raise ValueError("there is no port")
    return host.removeprefix("[").removesuffix("]"), int(port)


async def _resolved(host: str) -> list[tuple[socket.AddressFamily, str]]:
    infos = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys((family, str(sockaddr[0])) for family, _, _, _, sockaddr in infos))


def _listening(family: socket.AddressFamily, host: str, port: int) -> socket.socket:
    opened = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":
            # A restarted server need not wait for the connections of the one before. Elsewhere it means sharing.
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6 and hasattr(socket, "IPPROTO_IPV6"):
            # Everything means IPv4 too; a name with addresses of both kinds has a socket for each.
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, host != "::")
        opened.setblocking(False)
        opened.bind((host, port))
        opened.listen(BACKLOG)
    except (OSError, OverflowError):
        opened.close()
        raise
    return opened
