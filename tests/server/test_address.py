"""At which address other nodes reach a server, however it is told to listen."""

from __future__ import annotations

import pytest

from perdure.server.address import node_address
from perdure.server.settings import ServerSettings


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
