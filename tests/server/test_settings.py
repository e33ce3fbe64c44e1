"""The server's settings: how people may write them, and what is refused at once instead of failing later."""

from __future__ import annotations

import math

import pytest

from perdure.server.settings import (
    SEARCH_ATTRIBUTE_TYPES,
    PostgresSettings,
    ServerSettings,
    SettingsError,
    is_cockroach,
    is_postgres,
    search_attribute_type,
    shown_db,
    sqlite_path,
)


@pytest.mark.parametrize(
    ("db", "path"),
    [
        ("sqlite:///orders.db", "orders.db"),
        ("sqlite:////var/lib/orders.db", "/var/lib/orders.db"),
        ("orders.db", "orders.db"),
        ("/var/lib/orders.db", "/var/lib/orders.db"),
        ("memory:", None),
        (":memory:", None),
        ("sqlite://", None),
        ("sqlite:///:memory:", None),
    ],
)
def test_a_database_is_a_file_or_memory(db: str, path: str | None) -> None:
    assert sqlite_path(db) == path


@pytest.mark.parametrize("db", ["", "sqlite:///", "sqlite://orders.db", "mysql://h/d"])
def test_a_database_this_release_does_not_have_is_refused(db: str) -> None:
    with pytest.raises(SettingsError, match=r"^db "):
        ServerSettings(db=db)


@pytest.mark.parametrize(
    ("db", "shown"),
    [
        ("mysql://ada:secret@db.example/orders", "mysql://ada:***@db.example/orders"),
        ("postgress://ada:secret@at/secret@db.example/orders", "postgress://ada:***@db.example/orders"),
        ("POSTGRESQL://ada@db.example/orders?password=secret", "POSTGRESQL://ada@db.example/orders"),
        ("sqlite://ada:secret@db.example/orders", "sqlite://ada:***@db.example/orders"),
        ("mysql://db.example:3306/orders", "mysql://db.example:3306/orders"),
    ],
)
def test_a_database_that_is_refused_is_shown_without_its_password(db: str, shown: str) -> None:
    with pytest.raises(SettingsError) as refused:
        ServerSettings(db=db)
    assert str(refused.value).startswith(f"db {shown!r}: ")
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("db", "shown"),
    [
        ("postgresql://ada:secret@db.example:5433/orders", "postgresql://ada@db.example:5433/orders"),
        ("postgres://ada@db.example/orders?password=secret", "postgres://ada@db.example/orders"),
        ("postgresql:///orders", "postgresql:///orders"),
        ("cockroachdb://ada:secret@one,two:1/orders", "cockroachdb://ada@one,two:1/orders"),
        ("sqlite:///orders.db", "orders.db"),
        ("memory:", "memory"),
    ],
)
def test_a_database_is_shown_without_its_password(db: str, shown: str) -> None:
    assert ServerSettings(db=db).db == db
    assert is_postgres(db) == db.startswith(("postgres", "cockroach"))
    assert is_cockroach(db) == db.startswith("cockroach")
    assert shown_db(db) == shown


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_is_a_port(port: int) -> None:
    with pytest.raises(SettingsError, match=r"^port must be 0 to 65535"):
        ServerSettings(port=port)


def test_sizes_and_times_are_not_nothing() -> None:
    with pytest.raises(SettingsError, match=r"^concurrent_calls_max must be above 0"):
        ServerSettings(concurrent_calls_max=0)
    with pytest.raises(SettingsError, match=r"^store_check_seconds must be above 0"):
        ServerSettings(store_check_seconds=0)
    with pytest.raises(SettingsError, match=r"^namespace_retention_seconds must be above 0"):
        ServerSettings(namespace_retention_seconds=0)
    with pytest.raises(SettingsError, match=r"^shutdown_grace_seconds must not be negative"):
        ServerSettings(shutdown_grace_seconds=-0.1)
    with pytest.raises(SettingsError, match=r"^lock_wait_seconds must not be negative"):
        ServerSettings(lock_wait_seconds=-0.1)
    with pytest.raises(SettingsError, match="namespace must have a name"):
        ServerSettings(namespaces=["orders", ""])


@pytest.mark.parametrize("field", ["store_check_seconds", "shutdown_grace_seconds", "lock_wait_seconds"])
@pytest.mark.parametrize("seconds", [math.nan, math.inf])
def test_times_end(field: str, seconds: float) -> None:
    with pytest.raises(SettingsError, match=f"^{field} must be a finite number, not {seconds}"):
        ServerSettings(**{field: seconds})  # type: ignore[arg-type]  # one of several fields


def test_search_attribute_types_are_those_of_the_protocol() -> None:
    from temporalio.api.enums.v1 import IndexedValueType

    names = {f"INDEXED_VALUE_TYPE_{_snake(name)}": number for name, number in SEARCH_ATTRIBUTE_TYPES.items()}
    assert names == {name: number for name, number in IndexedValueType.items() if number != 0}


def test_a_search_attribute_type_is_known_in_any_case() -> None:
    assert search_attribute_type("KeywordList") == search_attribute_type("keywordlist") == 7
    with pytest.raises(SettingsError, match="'Number' is no search attribute type"):
        search_attribute_type("Number")


def _snake(name: str) -> str:
    return "KEYWORD_LIST" if name == "KeywordList" else name.upper()


@pytest.mark.parametrize("lease_seconds", [1.0, 5.0])
def test_a_batch_that_stops_blocks_the_others_for_less_than_half_a_lease(lease_seconds: float) -> None:
    postgres = PostgresSettings().within(lease_seconds)
    assert postgres.idle_transaction_timeout_seconds < postgres.lock_timeout_seconds < lease_seconds / 2


def test_shorter_timeouts_than_the_lease_asks_for_stay_as_they_were_set() -> None:
    short = PostgresSettings(lock_timeout_seconds=0.2, idle_transaction_timeout_seconds=0.1)
    assert short.within(5.0) == short


@pytest.mark.parametrize("advertise", ["", "node-1:7233", "10.0.0.7:7233", "[fd00::7]:7233"])
def test_an_address_for_other_nodes_is_a_host_and_a_port(advertise: str) -> None:
    assert ServerSettings(advertise=advertise).advertise == advertise


@pytest.mark.parametrize(
    "advertise", ["node-1", ":7233", "node-1:", "node-1:0", "node-1:70000", "node-1:grpc", "fd00::7", "a..b:1", "a b:1"]
)
def test_an_address_that_nobody_could_dial_is_refused(advertise: str) -> None:
    with pytest.raises(SettingsError, match=r"^advertise must be host:port"):
        ServerSettings(advertise=advertise)
