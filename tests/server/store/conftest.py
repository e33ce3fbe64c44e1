"""Every kind of store, as a place where stores are opened."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from perdure.server.store.interface import Store
from perdure.server.store.memory import MemoryDatabase, MemoryStore
from perdure.server.store.postgres import COCKROACH, PostgresStore
from perdure.server.store.sqlite import SqliteStore
from tests.server.store.faults import PLANS, PersistentStore


class Place:
    """Where the state is: opens stores on it and closes them all at the end."""

    def __init__(self, make: Callable[[], Store]) -> None:
        self._make = make
        self._opened: list[Store] = []

    async def open(self) -> Store:
        """Open one more store, as another process or a restarted one would."""
        store = self._make()
        await store.open()
        self._opened.append(store)
        return store

    async def close(self) -> None:
        """Close what was opened; closing twice does nothing."""
        for store in reversed(self._opened):
            await store.close()


def place_on_file(path: Path, pragmas: dict[str, str] | None = None) -> Place:
    return Place(lambda: SqliteStore(str(path), pragmas or {}))


def _place(kind: str, request: pytest.FixtureRequest) -> Place:
    if kind == "postgres":
        url: str = request.getfixturevalue("postgres_url")
        return Place(lambda: PostgresStore(url))
    if kind in PLANS:
        faulty_url: str = request.getfixturevalue("postgres_url")
        return Place(lambda: PersistentStore(faulty_url, PLANS[kind]()))
    if kind == "cockroach":
        cockroach_url: str = request.getfixturevalue("cockroach_url")
        return Place(lambda: PostgresStore(cockroach_url, dialect=COCKROACH))
    directory: Path = request.getfixturevalue("tmp_path")
    if kind == "sqlite-file":
        return place_on_file(directory / "perdure.db")
    if kind == "sqlite-memory":
        return Place(lambda: SqliteStore(None))
    database = MemoryDatabase()
    return Place(lambda: MemoryStore(database))


@pytest.fixture(params=["sqlite-file", "sqlite-memory", "postgres", *PLANS, "cockroach", "fake"])
def place_of_store(request: pytest.FixtureRequest) -> Place:
    """A place of each kind."""
    return _place(request.param, request)


@pytest.fixture(params=["sqlite-file", "postgres", *PLANS, "cockroach", "fake"])
def lasting_place(request: pytest.FixtureRequest) -> Place:
    """A place that outlives the stores opened on it, of each kind that has one."""
    return _place(request.param, request)


@pytest.fixture
async def store(place_of_store: Place) -> AsyncIterator[Store]:
    """An open store of each kind, claimed by nobody."""
    yield await place_of_store.open()
    await place_of_store.close()


@pytest.fixture
async def place(lasting_place: Place) -> AsyncIterator[Place]:
    """A place that outlives the stores opened on it; they are closed at the end."""
    yield lasting_place
    await lasting_place.close()


@pytest.fixture
async def file_store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    """A store on a file that does not wait for locks."""
    store = SqliteStore(str(tmp_path / "perdure.db"), {"busy_timeout": "0"})
    await store.open()
    yield store
    await store.close()
