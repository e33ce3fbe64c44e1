"""What is registered with `sqlite3` changes no value, and replaces nothing that an application registered."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from perdure.server.store.sqlite.adapters import register_adapters


@pytest.fixture
def own_adapter() -> Iterator[None]:
    """An application's adapter for bytes."""
    key = (bytes, sqlite3.PrepareProtocol)
    former = sqlite3.adapters.get(key)
    sqlite3.register_adapter(bytes, lambda value: value + b"!")
    yield
    del sqlite3.adapters[key]
    if former is not None:
        sqlite3.register_adapter(bytes, former)


@pytest.mark.parametrize("value", [None, b"", b"\0bytes", True, False])
def test_values_are_bound_as_they_are(value: object) -> None:
    register_adapters()
    with closing(sqlite3.connect(":memory:")) as connection:
        bound, kind = connection.execute("SELECT ?1, typeof(?1)", (value,)).fetchone()
    assert bound == value
    assert kind == {bool: "integer", bytes: "blob", type(None): "null"}[type(value)]


def test_what_an_application_registered_stays(own_adapter: None) -> None:
    register_adapters()
    with closing(sqlite3.connect(":memory:")) as connection:
        assert connection.execute("SELECT ?", (b"a",)).fetchone() == (b"a!",)
