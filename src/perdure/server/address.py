"""The address at which the other nodes of a cluster reach this one; it is also its name."""

from __future__ import annotations

import ipaddress
import socket
from urllib.parse import urlsplit

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
    """
    if settings.advertise:
        return settings.advertise
    address = ipaddress.ip_address(settings.ip)
    host = _towards(_first_host(settings.db)) if address.is_unspecified else settings.ip
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _first_host(db: str) -> str | None:
    """Return the host of a URL, the first one where it names several servers."""
    parts = urlsplit(db)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2].partition(",")[0]).hostname


def _towards(host: str | None) -> str:
    if host is None:
        return socket.gethostbyname(socket.gethostname())
    [(family, _, _, _, destination), *_] = socket.getaddrinfo(host, _ANY_PORT, type=socket.SOCK_DGRAM)
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect(destination)
        own: str = probe.getsockname()[0]
    return own
