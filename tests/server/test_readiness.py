"""Readiness: a store that goes away is told once, and its return is told once."""

from __future__ import annotations

import asyncio
import logging

import pytest

from perdure.server.readiness import Readiness
from perdure.server.store.interface import StoreUnavailable
from tests.virtual_time import in_virtual_time


class _Store:
    """Cannot write from one time of the loop to another."""

    def __init__(self, away_from: float, back_at: float) -> None:
        self._away_from, self._back_at = away_from, back_at

    async def check(self) -> None:
        if self._away_from <= asyncio.get_running_loop().time() < self._back_at:
            raise StoreUnavailable("gone fishing")


class _Reports(list[tuple[float, bool]]):
    async def report(self, *, is_ready: bool) -> None:
        self.append((asyncio.get_running_loop().time(), is_ready))


@in_virtual_time
async def test_a_store_that_goes_away_and_comes_back_is_told_each_time(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    reports = _Reports()
    readiness = Readiness(_Store(away_from=10.5, back_at=20.5), reports, 2.0)
    readiness.start()
    await asyncio.sleep(60)
    await readiness.stop()
    assert reports == [(12.0, False), (22.0, True)]
    assert caplog.messages == ["not ready, nothing can be stored: gone fishing", "ready again"]


@in_virtual_time
async def test_a_store_that_works_is_not_spoken_of() -> None:
    reports = _Reports()
    readiness = Readiness(_Store(away_from=70, back_at=80), reports, 2.0)
    readiness.start()
    await asyncio.sleep(60)
    await readiness.stop()
    assert reports == []
