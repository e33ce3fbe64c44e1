"""The table: rows in a fixed order, one column per subject, medians of the rounds, and how many times better."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import median

from benchmarks._measure import NOT_MEASURED, Figures, Row
from benchmarks._perdure import NAME

Rounds = Mapping[str, Sequence[Figures]]
"""The figures of every round, by the name of the subject."""

_LABEL_WIDTH = 58
_VALUE_WIDTH = 16


def header(peers: Sequence[str]) -> str:
    """Return the two lines above the rows."""
    titles = ["Perdure", *peers, *(_ratio_title(peer, peers) for peer in peers)]
    cells = "".join(title.rjust(_VALUE_WIDTH) for title in titles)
    line = f"{'':<{_LABEL_WIDTH}}{'unit':>5}{cells}{'target':>{_VALUE_WIDTH}}"
    return f"{line}\n{'-' * len(line)}"


def lines(rows: Sequence[Row], rounds: Rounds, peers: Sequence[str]) -> Iterator[str]:
    """Return one line per row: median of the rounds for each subject, then how many times better Perdure is."""
    for row in rows:
        values = {name: middle(row.key, rounds.get(name, ())) for name in [NAME, *peers]}
        cells = [_text(row, values[name]) for name in [NAME, *peers]]
        cells += [_ratio(row, values[NAME], values[peer]) for peer in peers]
        body = "".join(cell.rjust(_VALUE_WIDTH) for cell in cells)
        yield f"{row.label:<{_LABEL_WIDTH}}{row.unit:>5}{body}{row.target:>{_VALUE_WIDTH}}"


def middle(key: str, rounds: Sequence[Figures]) -> float | str:
    """Return the median of a figure over the rounds, or why there is none."""
    values = [figures[key] for figures in rounds if key in figures]
    numbers = [value for value in values if isinstance(value, float | int)]
    if numbers:
        return median(numbers)
    return next((value for value in values if isinstance(value, str)), NOT_MEASURED)


def _text(row: Row, value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:,.{row.digits}f}"


def _ratio(row: Row, ours: float | str, theirs: float | str) -> str:
    if isinstance(ours, str) or isinstance(theirs, str) or not ours or not theirs:
        return "-"
    better = ours / theirs if row.more_is_better else theirs / ours
    return f"{better:.1f} x"


def _ratio_title(peer: str, peers: Sequence[str]) -> str:
    return "better by" if len(peers) == 1 else f"by {peer}"
