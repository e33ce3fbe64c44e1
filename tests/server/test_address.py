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


@pytest.mark.parametrize(
    "db",
    [
        "postgresql://ada:p@127.0.0.1/orders",
        "cockroachdb://ada:p@127.0.0.1:26257/orders",
        "cockroachdb://ada@127.0.0.1,no-such-host.invalid:26257/orders",
        "postgresql://127.0.0.1:5432,[::1]:5433/orders",
    ],
)
def test_a_server_that_listens_on_all_is_reached_from_where_it_reaches_the_database(db: str) -> None:
    assert node_address(ServerSettings(db=db, ip="0.0.0.0"), 7233) == "127.0.0.1:7233"


def test_an_address_of_version_6_stands_in_brackets() -> None:
    assert node_address(ServerSettings(db="cockroachdb://h/d", ip="::1"), 7233) == "[::1]:7233"


def test_what_is_set_is_said() -> None:
    settings = ServerSettings(db="cockroachdb://h/d", ip="0.0.0.0", advertise="here.example:1")
    assert node_address(settings, 7233) == "here.example:1"
