"""The address at which the other nodes of a cluster reach this one; it is also its name."""

from __future__ import annotations

import ipaddress
import socket
from urllib.parse import parse_qs, unquote

from perdure.server.settings import ServerSettings

_ANY_PORT = 9
"""A datagram socket that is connected sends nothing; the port does not matter."""


def node_address(settings: ServerSettings, port: int) -> str:
    """Return host:port, as set, or found.

    A server that listens on one address is reached there. One that listens on all is reached at the address from which
    it reaches the database, because the other nodes do so too.

    Args:
        settings: Of the server.
        port: On which it listens.

    Raises:
        OSError, ValueError: It cannot be found, and has to be set.
    """
    if settings.advertise:
        return settings.advertise
    address = ipaddress.ip_address(settings.ip)
    host = _towards(database_host(settings.db)) if address.is_unspecified else settings.ip
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def database_host(db: str) -> str | None:
    """Return the first host that a URL of PostgreSQL names; None where it names none, or a socket on this machine."""
    address, _, query = db.partition("://")[2].partition("?")
    [named, *_] = parse_qs(query).get("host") or [unquote(address.partition("/")[0].rpartition("@")[2])]
    first = named.split(",")[0]
    if first.startswith("/"):
        return None
    host = first[1:].partition("]")[0] if first.startswith("[") else first.partition(":")[0]
    return host or None


def _towards(host: str | None) -> str:
    if host is None:
        return socket.gethostbyname(socket.gethostname())
    [(family, _, _, _, destination), *_] = socket.getaddrinfo(host, _ANY_PORT, type=socket.SOCK_DGRAM)
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect(destination)
        own: str = probe.getsockname()[0]
    return own
