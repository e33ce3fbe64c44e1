"""The address at which other nodes reach this one, where nobody has set it."""

from __future__ import annotations

import pytest

from perdure.server.address import database_host, node_address
from perdure.server.settings import ServerSettings


@pytest.mark.parametrize(
    ("db", "host"),
    [
        ("postgresql://ada:s@db.example:5433/orders", "db.example"),
        ("postgresql://db.example/orders?sslmode=require", "db.example"),
        ("postgresql://h1,h2/orders", "h1"),
        ("postgresql://h1:1,h2:2/orders", "h1"),
        ("postgresql://[fd00::1]:5432,[fd00::2]/orders", "fd00::1"),
        ("postgresql:///orders", None),
        ("postgresql:///orders?host=/var/run/postgresql", None),
        ("postgresql://%2Fvar%2Frun%2Fpostgresql/orders", None),
        ("postgresql:///orders?host=h1,h2", "h1"),
    ],
)
def test_the_first_host_of_the_database_counts(db: str, host: str | None) -> None:
    assert database_host(db) == host


def test_who_listens_on_all_addresses_is_reached_where_it_reaches_the_database() -> None:
    settings = ServerSettings(ip="0.0.0.0", db="postgresql://127.0.0.1:5432,127.0.0.2:5432/orders")
    assert node_address(settings, 7000) == "127.0.0.1:7000"


def test_who_listens_on_one_address_is_reached_there() -> None:
    assert node_address(ServerSettings(ip="::1"), 7000) == "[::1]:7000"
    assert node_address(ServerSettings(advertise="node-1:1"), 7000) == "node-1:1"
