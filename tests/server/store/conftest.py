"""Every kind of store, as a place where stores are opened."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from perdure.server.store.interface import Store
from perdure.server.store.memory import MemoryDatabase, MemoryStore
from perdure.server.store.sqlite import SqliteStore


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


def _place(kind: str, directory: Path) -> Place:
    if kind == "sqlite-file":
        return place_on_file(directory / "perdure.db")
    if kind == "sqlite-memory":
        return Place(lambda: SqliteStore(None))
    database = MemoryDatabase()
    return Place(lambda: MemoryStore(database))


@pytest.fixture(params=["sqlite-file", "sqlite-memory", "fake"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    """An open store of each kind, claimed by nobody."""
    place = _place(request.param, tmp_path)
    yield await place.open()
    await place.close()


@pytest.fixture(params=["sqlite-file", "fake"])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    """A place that outlives the stores opened on it, of each kind that has one."""
    place = _place(request.param, tmp_path)
    yield place
    await place.close()


@pytest.fixture
async def file_store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    """A store on a file that does not wait for locks."""
    store = SqliteStore(str(tmp_path / "perdure.db"), {"busy_timeout": "0"})
    await store.open()
    yield store
    await store.close()
