"""The operations page is true: what it quotes of the log is logged, at that level, and its links lead somewhere.

Its SQL runs in `tests/server/store/test_views.py`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
LEVELS = {"critical": "error", "error": "error", "exception": "error", "warning": "warn", "info": "info"}
"""How the text of a log line names the level of each method of a logger."""

ROWS: list[tuple[str, str]] = [
    (row[1], message)
    for row in re.finditer(r"^\| (error|warn|info) \| (.*?) \|", PAGE, re.MULTILINE)
    for message in re.findall(r"`([^`]+)`", row[2])
]


def _logged() -> Iterator[tuple[str, str]]:
    """Yield level and text of everything that the server logs."""
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Call(
                    func=ast.Attribute(value=ast.Name(id="_log" | "_logger"), attr=method),
                    args=[ast.Constant(value=str(text)), *_],
                ) if method in LEVELS:
                    yield LEVELS[method], text


LOGGED = list(_logged())


@pytest.mark.parametrize(("level", "message"), ROWS)
def test_what_it_quotes_is_logged(level: str, message: str) -> None:
    pattern = re.compile(".+".join(re.escape(part) for part in message.split("...")))
    assert any(level == its_level and pattern.match(text) for its_level, text in LOGGED)


def test_it_quotes_something() -> None:
    assert len(ROWS) > 15


def test_its_links_lead_somewhere() -> None:
    headings = re.findall(r"^#+ (.+)$", PAGE, re.MULTILINE)
    anchors = {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    links = [link.partition("#") for link in re.findall(r"\]\(([^)]+)\)", PAGE)]
    assert links
    assert not [file for file, _, _ in links if file and not (ROOT / "docs" / file).exists()]
    assert {anchor for file, _, anchor in links if not file} <= anchors
