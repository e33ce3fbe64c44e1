"""Every row of every table is taken by some test of the core: a move that nobody can show may not be needed."""

from __future__ import annotations

import pytest

from perdure._machine import Coverage
from tests._machine.tables import TABLES


@pytest.mark.parametrize("name", TABLES)
def test_every_row_is_taken(name: str, coverage: Coverage) -> None:
    untaken = coverage.untaken(TABLES[name])
    assert not untaken, f"no test of the core takes these rows of {name}: {', '.join(untaken)}"
