"""Every kind of store, as a place where stores are opened."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from perdure.server.store.interface import ClusterStore, Store
from perdure.server.store.memory import MemoryDatabase, MemoryStore
from perdure.server.store.postgres import COCKROACH, POSTGRES, PostgresStore
from perdure.server.store.sqlite import SqliteStore
from tests.server.store.faults import PLANS, PersistentStore
from tests.server.store.writing import Node

_LEASE_SECONDS = 60.0

SHARED = ("postgres", *PLANS, "cockroach")
"""The kinds of databases that nodes can share; the fake is one too."""


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


class ClusterPlace(Place):
    """A database that several nodes share."""

    def __init__(self, make: Callable[[], ClusterStore]) -> None:
        super().__init__(make)
        self._make_cluster_store = make

    async def node(self, name: str, *, lease_seconds: float = _LEASE_SECONDS, session: str | None = None) -> Node:
        """Open a store for one more node and let it join; its session is its name where none is given."""
        store = self._make_cluster_store()
        await store.open()
        self._opened.append(store)
        node = Node(name, store)
        await node.join(session or name, _LEASE_SECONDS)
        if lease_seconds != _LEASE_SECONDS:
            await store.renew(lease_seconds)
        return node


def place_on_file(path: Path, pragmas: dict[str, str] | None = None) -> Place:
    return Place(lambda: SqliteStore(str(path), pragmas or {}))


def _postgres(kind: str, request: pytest.FixtureRequest) -> Callable[[], PostgresStore]:
    """Return what makes stores on a database that speaks PostgreSQL's protocol, or is made to fail."""
    fixture = {"postgres": "postgres_url", "cockroach": "cockroach_url"}.get(kind, "reused_postgres_url")
    url: str = request.getfixturevalue(fixture)
    if kind in PLANS:
        return lambda: PersistentStore(url, PLANS[kind]())
    return lambda: PostgresStore(url, dialect=COCKROACH if kind == "cockroach" else POSTGRES)


def _place(kind: str, request: pytest.FixtureRequest) -> Place:
    if kind in SHARED:
        return Place(_postgres(kind, request))
    directory: Path = request.getfixturevalue("tmp_path")
    if kind == "sqlite-file":
        return place_on_file(directory / "perdure.db")
    if kind == "sqlite-memory":
        return Place(lambda: SqliteStore(None))
    database = MemoryDatabase()
    return Place(lambda: MemoryStore(database))


@pytest.fixture(params=["sqlite-file", "sqlite-memory", *SHARED, "fake"])
def place_of_store(request: pytest.FixtureRequest) -> Place:
    """A place of each kind."""
    return _place(request.param, request)


@pytest.fixture(params=["sqlite-file", *SHARED, "fake"])
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


@pytest.fixture(params=[*SHARED, "fake"])
def shared_place(request: pytest.FixtureRequest) -> ClusterPlace:
    """An empty database of each kind that nodes can share."""
    if request.param in SHARED:
        return ClusterPlace(_postgres(request.param, request))
    database = MemoryDatabase()
    return ClusterPlace(lambda: MemoryStore(database))


@pytest.fixture
async def cluster(shared_place: ClusterPlace) -> AsyncIterator[ClusterPlace]:
    """A place that nodes share; they are closed at the end."""
    yield shared_place
    await shared_place.close()


@pytest.fixture
async def file_store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    """A store on a file that does not wait for locks."""
    store = SqliteStore(str(tmp_path / "perdure.db"), {"busy_timeout": "0"})
    await store.open()
    yield store
    await store.close()
