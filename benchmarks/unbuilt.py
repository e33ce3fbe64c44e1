"""The rows of the table whose subject does not exist yet. A row leaves this file when its benchmark is written."""

from __future__ import annotations

from benchmarks._measure import NOT_BUILT, Figures, Row

ROWS = (
    Row("embedded.one", "embedded with Perdure's SDK, one step", "/s", target="10 x DBOS", more_is_better=True),
    Row("embedded.ten", "  ten steps", "/s", target="10 x DBOS", more_is_better=True),
    Row("replay.1000", "replay of 1,000 sequential activities", "ev/s", target="10 x at 5,000", more_is_better=True),
    Row("replay.5000", "  of 5,000", "ev/s", target="linear", more_is_better=True),
)
FIGURES: Figures = {row.key: NOT_BUILT for row in ROWS}
