"""Watches the tests of the core take their moves, so that the last of them can say which were never taken."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from perdure._machine import Coverage

HERE = Path(__file__).parent
LAST = "test_every_move.py"

_coverage = Coverage()


@pytest.fixture(scope="module", autouse=True)
def _watch_moves() -> Iterator[None]:
    with _coverage.watching():
        yield


@pytest.fixture
def coverage() -> Coverage:
    """The moves that the tests of the core have taken so far in this process."""
    return _coverage


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Run the check of the moves last, and only where all the tests it looks back on are run in this process."""
    checks = [item for item in items if item.path == HERE / LAST]
    items[:] = [item for item in items if item.path != HERE / LAST] + checks
    collected = {item.path for item in items}
    missing = [file.name for file in sorted(HERE.rglob("test_*.py")) if file not in collected]
    if missing or config.option.keyword or hasattr(config, "workerinput"):
        reason = "it looks back on the whole suite of the core, run in one process"
        for check in checks:
            check.add_marker(pytest.mark.skip(reason=reason))
